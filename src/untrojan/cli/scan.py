"""``untrojan scan``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from untrojan.cli import options
from untrojan.cli.bars import progress_shown
from untrojan.cli.output import command_line, require_writable, staged
from untrojan.cli.streams import say, write_data, write_report
from untrojan.cli.victim import load_fitting, load_victim
from untrojan.errors import UsageError

EXIT_CODES = {"clean": 0, "backdoor": 1, "inconclusive": 2}
FILES = ("scan.json", "triggers.safetensors", "search.parquet", "report.html")


def scan(
    *,
    victim: options.Victim = None,
    clean: options.Clean,
    limit: options.Limit = None,
    data_dir: options.DataFolder = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Write scan.json, search.parquet, triggers.safetensors and report.html there.",
        ),
    ] = None,
    model: options.Model = None,
    weights: options.Weights = None,
    mean: options.Mean = None,
    std: options.Std = None,
    shape: options.InputShape = None,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="TIME",
            parser=options.duration,
            help="Stop after this time, such as 90s or 5m; it says what it did not reach, and never calls that clean.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from what an interrupted scan left in --out, with the same result.")
    ] = False,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Clean models to compare with, as untrojan calibrate wrote them.",
            show_default="those of this package",
        ),
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    output: options.Output = options.Format.text,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """Search a classifier for a backdoor. Exit code 0: none found, 1: found, 2: error or inconclusive."""
    if resume and out is None:
        raise UsageError("--resume goes on from what an interrupted scan left in --out; name that folder")
    require_writable(out)
    classifier = load_victim(victim, model=model, weights=weights, mean=mean, std=std, shape=shape, device=device)
    data = load_fitting(classifier, clean, limit=limit, seed=seed)

    from untrojan.detection.plan import ScanSettings
    from untrojan.detection.reference import read_reference
    from untrojan.pipeline import scan as search
    from untrojan.report import ReportContent, render_html, render_json
    from untrojan.report_pictures import trigger_pictures
    from untrojan.scan_files import save_scan
    from untrojan.scan_state import ScanState, scan_key
    from untrojan.storage import write_bytes

    compared = None if reference is None else read_reference(reference)
    state = None
    if out is not None:
        key = scan_key(classifier.sha256(), data.hashes(), data.labels, seed, ScanSettings())
        state = ScanState(out, key, resume=resume)
    try:
        with progress_shown(quiet) as progress:
            report = search(
                classifier,
                data.images,
                data.labels,
                seed=seed,
                progress=progress,
                store=state,
                budget=budget,
                reference=compared,
            )
    except BaseException as error:
        if state is not None and state.folder.exists() and not isinstance(error, Exception):
            say(f"{state.folder} holds what was finished; --resume goes on from there")
        raise
    content = ReportContent(scan=report, command=command_line(), title="untrojan scan")
    page = ""
    if out is not None or output is options.Format.html:
        pictures = trigger_pictures(classifier, report, data.images, data.labels)
        page = render_html(ReportContent(scan=report, pictures=pictures, command=content.command, title=content.title))
    if out is not None:
        with staged(out, FILES) as stage:
            save_scan(stage, report)
            write_bytes(stage / "report.html", page.encode())
    if state is not None and not report.unreached:
        state.remove()  # with time left out, --resume goes on from here
    if output is options.Format.html:
        write_data(page)
    elif output is options.Format.json:
        write_data(render_json(report))
    else:
        write_report(content)
    return EXIT_CODES[report.verdict]
