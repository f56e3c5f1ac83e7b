"""``untrojan repair``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from untrojan.cli import options
from untrojan.cli.bars import progress_shown
from untrojan.cli.output import command_line, require_writable, staged
from untrojan.cli.streams import say, write_data, write_report, write_text
from untrojan.cli.victim import load_fitting, load_scan_of, load_victim, require_shape
from untrojan.errors import InconclusiveError, UsageError

FILES = ("guard.safetensors", "guard.json")
NOTHING = "the scan found no backdoor, so there is nothing to repair; no guard was written"


def repair(
    *,
    victim: options.Victim = None,
    clean: options.Clean,
    scan: Annotated[Path, typer.Option("--scan", metavar="DIR", help="What untrojan scan wrote.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Write guard.safetensors and guard.json there.", show_default=False
        ),
    ],
    limit: options.Limit = None,
    data_dir: options.DataFolder = None,
    recipe: Annotated[
        options.Recipe,
        typer.Option(
            help="untrojan: many stand-ins for the trigger; paper: the smallest of each kind and the paper's inference "
            "rule, for comparison."
        ),
    ] = options.Recipe.untrojan,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="bna, or one of the methods that it is compared with, which train another network: ft, fp, nc, nad, "
            "i-bau, anp, argd, mmac.",
        ),
    ] = "bna",
    method_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Of the method, such as epochs=20; repeatable.", show_default=False),
    ] = None,
    model: options.Model = None,
    weights: options.Weights = None,
    mean: options.Mean = None,
    std: options.Std = None,
    shape: options.InputShape = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    output: options.Output = options.Format.text,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """Make a guard for a classifier in which a scan found a backdoor."""
    require_writable(out)
    given = {key: _value(text) for key, text in options.parse_options("--method-option", method_option or []).items()}
    as_the_paper = recipe is options.Recipe.paper
    if as_the_paper and (given or method != "bna"):
        raise UsageError("--recipe paper is bna with the paper's options; give either it or --method and its options")
    classifier = load_victim(victim, model=model, weights=weights, mean=mean, std=std, shape=shape, device=device)
    report = load_scan_of(classifier, scan)
    if report.verdict == "inconclusive":
        raise InconclusiveError(f"the scan in {scan} was inconclusive ({report.reason}); scan again before a repair")

    from untrojan.correction import BNA
    from untrojan.detection.surrogates import SurrogateSettings
    from untrojan.guard import MARGIN_SHARE, save_guard
    from untrojan.pipeline import check_method
    from untrojan.pipeline import repair as make_guard
    from untrojan.report import ReportContent, render_html, render_json

    check_method(method, given)
    content = ReportContent(scan=report, command=command_line(), title="untrojan repair")
    if report.verdict == "clean":
        if any((out / name).exists() for name in FILES):
            say(f"what an earlier run left in {out} is still there; it was made after another scan")
        if output is options.Format.json:
            write_data(json.dumps({"guard": None, "reason": NOTHING}, indent=2) + "\n")
        elif output is options.Format.html:
            write_data(render_html(content))
        else:
            write_text(f"{NOTHING[:1].upper()}{NOTHING[1:]}.\n")
        return 0
    data = load_fitting(classifier, clean, limit=limit, seed=seed, known=report.victim)
    require_shape(report.victim, data.images, "the scan")
    with progress_shown(quiet) as progress:
        guard = make_guard(
            classifier,
            data.images,
            data.labels,
            report,
            seed=seed,
            settings=SurrogateSettings.paper() if as_the_paper else SurrogateSettings(),
            method=method,
            options=BNA.paper() if as_the_paper else given,
            margin_share=0.0 if as_the_paper else MARGIN_SHARE,
            progress=progress,
        )
    card = guard.require_card()
    with staged(out, FILES) as stage:
        save_guard(stage, guard)
    if output is options.Format.json:
        write_data(render_json(card))
    elif output is options.Format.html:
        write_data(render_html(ReportContent(scan=report, guard=card, command=content.command, title=content.title)))
    else:
        write_report(ReportContent(guard=card, command=content.command, title=content.title))
    return 0


def _value(text: str) -> Any:
    """A number, a list or a truth value where the text is one, as in JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return text
