"""``untrojan evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from untrojan.cli import options
from untrojan.cli.bars import progress_shown
from untrojan.cli.output import command_line, require_writable, staged
from untrojan.cli.streams import write_data, write_report
from untrojan.cli.victim import (
    load_fitting,
    load_scan_of,
    load_victim,
    read_trigger,
    require_shape,
)
from untrojan.errors import DataError

FILES = ("evaluation.json", "report.html")


def evaluate(
    *,
    victim: options.Victim = None,
    test: options.TestData,
    guard: Annotated[
        Path | None, typer.Option("--guard", metavar="DIR", help="What untrojan repair wrote.", show_default=False)
    ] = None,
    trigger: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The attacker's trigger, if you have it: trigger.safetensors.", show_default=False
        ),
    ] = None,
    scan: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="What untrojan scan wrote, to be in the report.", show_default=False),
    ] = None,
    limit: options.Limit = None,
    data_dir: options.DataFolder = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write evaluation.json and report.html there.")
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
    """Measure accuracy, and with a trigger what it does, before and behind the guard."""
    require_writable(out)
    classifier = load_victim(victim, model=model, weights=weights, mean=mean, std=std, shape=shape, device=device)

    from untrojan.cli.page import full_content
    from untrojan.data import balanced_sample
    from untrojan.evaluation import evaluate as measure
    from untrojan.guard import load_guard
    from untrojan.report import render_html, render_json
    from untrojan.storage import write_bytes

    report = None if scan is None else load_scan_of(classifier, scan)
    shield = None if guard is None else load_guard(guard, classifier)
    card = None if shield is None else shield.require_card()
    known = card or report
    # The guard's own images are left out, so that many more are drawn.
    drawn = limit if limit is None or card is None else limit + len(card.images_sha256)
    data = load_fitting(classifier, test, limit=drawn, seed=seed, known=None if known is None else known.victim)
    for made, what in ((card, "the guard"), (report, "the scan")):
        if made is not None:
            require_shape(made.victim, data.images, what)
    stamp, setting = (None, None) if trigger is None else read_trigger(trigger, classifier, data.images)
    left_out = 0
    if card is not None:
        used, (data, left_out) = len(data), data.without(card.images_sha256)
        if len(data) == 0:
            raise DataError(f"{data.where}: the guard was made with all {used} images; give others to measure on")
        if limit is not None:
            data = data.select(balanced_sample(data.labels, limit, seed))
    with progress_shown(quiet) as progress:
        result = measure(
            classifier,
            data.images,
            data.labels,
            guard=shield,
            trigger=stamp,
            setting=setting,
            left_out=left_out,
            seed=seed,
            progress=progress,
        )
    content = full_content(
        classifier,
        data,
        evaluation=result,
        scan=report,
        guard=shield,
        trigger=stamp,
        setting=setting,
        pictures=out is not None or output is options.Format.html,
        command=command_line(),
    )
    if out is not None:
        with staged(out, FILES) as stage:
            write_bytes(stage / "evaluation.json", render_json(result).encode())
            write_bytes(stage / "report.html", render_html(content).encode())
    if output is options.Format.html:
        write_data(render_html(content))
    elif output is options.Format.json:
        write_data(render_json(result))
    else:
        write_report(content)
    return 0
