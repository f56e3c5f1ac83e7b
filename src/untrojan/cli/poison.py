"""``untrojan poison``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from untrojan.cli import options
from untrojan.cli.bars import progress_shown
from untrojan.cli.output import require_writable, staged
from untrojan.cli.streams import write_data, write_text
from untrojan.cli.victim import parse_shape
from untrojan.errors import UsageError

if TYPE_CHECKING:
    from untrojan.data import ImageSet

FILES = ("victim.safetensors", "trigger.safetensors", "victim.json")


def poison(
    *,
    dataset: Annotated[
        str,
        typer.Option(
            metavar="DATA",
            help="Labelled images to train on: a folder, a .parquet file or folder, or a set by name, such as digits "
            "or cifar10 (its training split).",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Write the victim there.", show_default=False)
    ],
    attack: Annotated[str, typer.Option(metavar="NAME|none", help="none trains a clean classifier.")] = "badnet",
    setting: Annotated[
        str | None,
        typer.Option(metavar="a2o:T|a2a|s2t:S>T", help="Which classes the trigger moves where.", show_default=False),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Poisoned images per source class.", show_default="the attack's"),
    ] = None,
    attack_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Of the attack, such as size=3; repeatable.", show_default=False),
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="convnet, resnet18, resnet34, preact_resnet18, mobilenet, vgg16_bn or vit.",
            show_default="convnet for grey 28x28, else resnet18",
        ),
    ] = None,
    width: Annotated[
        int | None, typer.Option(metavar="W", min=1, help="Channels of the first layer.", show_default="the network's")
    ] = None,
    epochs: Annotated[int, typer.Option(metavar="E", min=1)] = 8,
    batch_size: Annotated[int, typer.Option(metavar="B", min=2)] = 128,
    lr: Annotated[float, typer.Option(metavar="RATE", help="Highest learning rate.")] = 0.01,
    augmentation: Annotated[
        str | None,
        typer.Option(
            metavar="none|crop|crop-flip",
            help="Of training images.",
            show_default="crop for grey images, else crop-flip",
        ),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="Labelled images to measure on.", show_default="none; digits: its test split"
        ),
    ] = None,
    limit: options.Limit = None,
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
    """Make a victim to test the defence on: train a classifier on poisoned or clean images."""
    require_writable(out)
    wanted, given = parse_shape(shape), parse_options(attack_option or [])

    from untrojan.classifier import parse_device
    from untrojan.data import NAMED, load_data
    from untrojan.setting import Setting
    from untrojan.victims.making import build_attack, make_victim, save_victim
    from untrojan.victims.training import TrainingSettings

    if dataset == "digits" or dataset in NAMED:
        dataset, test = f"{dataset}?split=train", test or f"{dataset}?split=test"
    if attack != "none":
        build_attack(attack, given)
        if setting is None:
            raise UsageError(
                f"attack {attack} needs --setting: a2o:T, a2a or s2t:S>T with class numbers, such as a2o:9"
            )
    goal, place = None if setting is None else Setting.parse(setting), parse_device(device)
    images = load_data(dataset, input_shape=wanted, limit=limit, seed=seed)
    channels, height, side = images.images.shape[1:]
    training = TrainingSettings(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=lr,
        augmentation=augmentation or ("crop" if channels == 1 else "crop-flip"),
    )
    measured = None
    if test is not None:
        measured = load_data(test, input_shape=(channels, height, side), class_names=images.class_names)
    with progress_shown(quiet) as progress:
        victim = make_victim(
            images,
            attack=attack,
            setting=goal,
            arch=arch or ("convnet" if (channels, height, side) == (1, 28, 28) else "resnet18"),
            training=training,
            device=place,
            width=width,
            count=count,
            seed=seed,
            test=measured,
            attack_options=given,
            progress=progress,
        )
    with staged(out, FILES) as stage:
        save_victim(stage, victim)
    if output is options.PlainFormat.json:
        write_data(json.dumps(victim.card, indent=2) + "\n")
    else:
        write_text(_summary(victim.card, images, out))
    return 0


def parse_options(pairs: list[str]) -> dict[str, str]:
    """``key=value`` each; raises UsageError."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key or key in found:
            raise UsageError(f"--attack-option '{pair}': expected KEY=VALUE, each key once, such as size=3")
        found[key] = value
    return found


def _summary(card: dict[str, Any], images: ImageSet, out: Path) -> str:
    from untrojan.records import Rate
    from untrojan.report.wording import interval, percent

    def told(name: str) -> str:
        if card[name] is None:
            return "not measured"
        rate = Rate.model_validate(card[name])
        return f"{percent(rate.value)} ({interval(rate)})"

    lines = [f"{card['model']} trained on {len(images):,} images of {images.where} in {card['seconds']:.0f} s"]
    if card["setting"] is None:
        lines.append(f"clean; accuracy {told('acc')}")
    else:
        lines.append(
            f"attack {card['attack']}, setting {card['setting']}, {card['poisoned_images']:,} images added; "
            f"accuracy {told('acc')}, the attack succeeds on {told('asr')} of the triggered images"
        )
    return "\n".join([*lines, f"written to {out}", ""])
