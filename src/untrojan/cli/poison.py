"""``untrojan poison``."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from untrojan.cli import options
from untrojan.cli.bars import progress_shown
from untrojan.cli.output import require_writable, staged
from untrojan.cli.streams import say, write_data, write_text
from untrojan.cli.victim import parse_shape
from untrojan.errors import UsageError

if TYPE_CHECKING:
    from untrojan.victims.recipe import Recipe

FILES = ("victim.safetensors", "trigger.safetensors", "victim.json")


def poison(
    *,
    context: typer.Context,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Labelled images to train on: a folder, a .parquet file or folder, or a set by name, such as digits "
            "or cifar10 (its training split).",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Write the victim there.", show_default=False)
    ],
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan", metavar="FILE", help="Make the many victims of a TOML file instead, each into DIR/NAME."
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", metavar="N", min=1, max=256, help="With --plan: victims trained at once.")
    ] = 1,
    only: Annotated[
        str | None,
        typer.Option(
            "--only", metavar="PATTERN", help="With --plan: only victims whose name matches, such as 'gtsrb/*'."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from what an interrupted run left in --out. A plan always does.")
    ] = False,
    attack: Annotated[str, typer.Option(metavar="NAME|none", help="none trains a clean classifier.")] = "badnet",
    setting: Annotated[
        str | None,
        typer.Option(metavar="a2o:T|a2a|s2t:S>T", help="Which classes the trigger moves where.", show_default=False),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The paper's settings of the attack for cifar10, cifar100, gtsrb, imagenette or tiny-imagenet.",
            show_default="the data set's",
        ),
    ] = None,
    count: Annotated[
        str | None,
        typer.Option(
            metavar="N|P%",
            help="Poisoned images per source class: a number, or a share of the class.",
            show_default="the preset's or the attack's",
        ),
    ] = None,
    attack_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Of the attack, such as size=3; repeatable.", show_default=False),
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="convnet, resnet18, resnet34, preact_resnet18, mobilenet, vgg16_bn or vit; or a small one: mlp, "
            "lenet, mixer, small_vgg, small_resnet, small_densenet, small_mobilenet or small_convnext.",
            show_default="convnet for grey 28x28, else resnet18",
        ),
    ] = None,
    width: Annotated[
        int | None, typer.Option(metavar="W", min=1, help="Channels of the first layer.", show_default="the network's")
    ] = None,
    epochs: Annotated[int, typer.Option(metavar="E", min=1)] = 8,
    batch_size: Annotated[int, typer.Option(metavar="B", min=2)] = 64,
    lr: Annotated[float, typer.Option(metavar="RATE", help="Highest learning rate.")] = 0.003,
    augmentation: Annotated[
        str,
        typer.Option(
            metavar="none|flip|crop|crop-flip",
            help="Of training images. It moves the trigger too, which then takes many more epochs to learn.",
        ),
    ] = "none",
    half: Annotated[bool, typer.Option("--half", help="Round the weights to half precision.")] = False,
    test: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="Labelled images to measure on.", show_default="none; of a set by name: its test split"
        ),
    ] = None,
    limit: options.Limit = None,
    data_dir: options.DataFolder = None,
    shape: Annotated[
        str | None,
        typer.Option(
            "--input", metavar="CxHxW", help="Convert and resize all images to this.", show_default="as they are"
        ),
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    output: options.PlainOutput = options.PlainFormat.text,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """Make a victim to test the defence on, or many: train a classifier on poisoned or clean images."""
    require_writable(out)
    if plan is not None:
        _require_for_plans(context)
        return _many(plan, out, jobs=jobs, only=only, device=device, output=output, quiet=quiet)
    if dataset is None:
        raise UsageError("give the images to train on with --dataset, or a file of many victims with --plan")
    if only is not None or jobs != 1:
        raise UsageError("--jobs and --only go with --plan")
    parse_shape(shape)
    given = options.parse_options("--attack-option", attack_option or [])

    from untrojan.victims.recipe import Recipe, parse_count

    try:
        recipe = Recipe(
            dataset=dataset,
            test=test,
            attack=attack,
            setting=setting,
            preset=preset,
            count=None if count is None else parse_count(count),
            attack_options=dict(given),
            arch=arch,
            width=width,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            augmentation=augmentation,
            input=shape,
            limit=limit,
            seed=seed,
            half=half,
        )
    except ValueError as error:
        raise UsageError(_first(error)) from None
    return _one(recipe, out, resume=resume, device=device, output=output, quiet=quiet)


FOR_PLANS = {"out", "plan", "jobs", "only", "resume", "data_dir", "device", "output", "quiet", "debug"}


def _require_for_plans(context: typer.Context) -> None:
    """Raise UsageError for options that say how one victim is made: those of a plan are made as it says."""
    ignored = [option for option in context.command.params if option.name and option.name not in FOR_PLANS]
    sources = [(option.opts[0], context.get_parameter_source(str(option.name))) for option in ignored]
    given = [name for name, source in sources if source is not None and source.name == "COMMANDLINE"]
    if given == ["--seed"]:  # which every command takes
        say("--seed is not used: a plan's victims have seeds of their own")
    elif given:
        raise UsageError(f"{', '.join(given)} would be ignored beside --plan; write it into the plan, or leave it out")


def _one(recipe: Recipe, out: Path, *, resume: bool, device: str, output: options.PlainFormat, quiet: bool) -> int:
    """Make a victim, or go on with it."""
    from untrojan.classifier import parse_device
    from untrojan.victims.checkpoint import STATE, forget
    from untrojan.victims.files import save_victim
    from untrojan.victims.recipe import make

    place = parse_device(device)
    state = out / STATE
    try:
        with progress_shown(quiet) as progress:
            victim = make(recipe, device=place, state=state, resume=resume, progress=progress)
    except BaseException as error:
        if state.exists() and not isinstance(error, Exception):
            say(f"{state} holds the training after its last whole epoch; --resume goes on from there")
        raise
    with staged(out, FILES) as stage:
        save_victim(stage, victim)
    forget(state)
    if output is options.PlainFormat.json:
        write_data(json.dumps(victim.card, indent=2) + "\n")
    else:
        write_text(_summary(victim.card, out))
    return 0


def _many(
    plan: Path, out: Path, *, jobs: int, only: str | None, device: str, output: options.PlainFormat, quiet: bool
) -> int:
    """Make the victims of a plan; 0 if all are there in the end, else 2."""
    from untrojan.classifier import parse_device
    from untrojan.victims.campaign import run
    from untrojan.victims.plan import read_plan

    recipes = [r for r in read_plan(plan) if only is None or fnmatchcase(r.name, only)]
    if not recipes:
        raise UsageError(f"no victim of {plan} matches --only '{only}'")
    outcomes = []
    with progress_shown(quiet) as progress:
        progress.start("victims", len(recipes))
        for outcome in run(recipes, out, jobs=jobs, device=parse_device(device)):
            outcomes.append(outcome)
            progress.advance()
            if outcome.status == "failed" or (outcome.status == "made" and not quiet):
                say(f"{outcome.name}: {outcome.reason or _rates(outcome.card or {})}")
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if output is options.PlainFormat.json:
        rows = [{"name": o.name, "status": o.status, "reason": o.reason or None} for o in outcomes]
        write_data(json.dumps({"victims": rows}, indent=2) + "\n")
    else:
        write_text(f"{len(outcomes) - len(failed)} of {len(recipes)} victims in {out}, {len(failed)} failed\n")
    return 2 if failed else 0


def _first(error: ValueError) -> str:
    """One line of what pydantic, or the parser of a count, found wrong."""
    errors = getattr(error, "errors", None)
    if errors is None:
        return f"--count: {error}"
    found = errors()[0]
    return f"--{str(found['loc'][0]).replace('_', '-')}: {found['msg']}"


def _rates(card: dict[str, Any]) -> str:
    """ACC and ASR of a card in a few words."""
    from untrojan.records import Rate
    from untrojan.report.wording import interval, percent

    def told(name: str) -> str:
        rate = Rate.model_validate(card[name])
        return f"{percent(rate.value)} ({interval(rate)})"

    accuracy = "accuracy not measured" if card["acc"] is None else f"accuracy {told('acc')}"
    if card["setting"] is None:
        return f"clean; {accuracy}"
    success = (
        "its success not" if card["asr"] is None else f"the attack succeeds on {told('asr')} of the triggered images"
    )
    return (
        f"attack {card['attack']}, setting {card['setting']}, {card['poisoned_images']:,} images added; "
        f"{accuracy}, {success}"
    )


def _summary(card: dict[str, Any], out: Path) -> str:
    data = card["data"]
    lines = [f"{card['model']} trained on {data['images']:,} images of {data['where']} in {card['seconds']:.0f} s"]
    return "\n".join([*lines, _rates(card), f"written to {out}", ""])
