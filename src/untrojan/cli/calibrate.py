"""``untrojan calibrate``: clean models of one's own beside those of the reference set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from untrojan.cli import options
from untrojan.cli.bars import progress_shown
from untrojan.cli.output import require_writable
from untrojan.cli.streams import say, write_text
from untrojan.cli.victim import load_fitting, load_victim
from untrojan.errors import UntrojanError, UsageError

if TYPE_CHECKING:
    from untrojan.detection.table import SearchTable


def calibrate(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER...", help="What scan --out wrote for clean models, or folders of victims."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The reference file, for scan --reference.")],
    clean: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Clean images, to scan victims that have no scan yet.", show_default=False),
    ] = None,
    limit: options.Limit = None,
    data_dir: options.DataFolder = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """Add clean models of your own to the reference set: what you say is clean here counts as clean in every scan."""
    require_writable(out.parent)

    from untrojan.detection.judge import judge
    from untrojan.detection.reference import built_in
    from untrojan.storage import write_bytes

    tables: list[SearchTable] = []
    for folder in folders:
        tables += _tables(folder, clean, limit, seed, device, quiet)
    known: dict[str, SearchTable] = {}
    for table in tables:
        if (why := unfit(table)) is not None:
            say(f"{table.victim[:16]}: left out, since {why}")
        elif table.victim in known:
            say(f"{table.victim[:16]}: there twice; it counts once")
        else:
            known[table.victim] = table
    if not known:
        raise UsageError("no scan of a clean model is left to make a reference file of")
    reference = built_in()
    for table in known.values():
        ruling = judge(table, reference)
        if ruling.verdict == "backdoor":
            say(f"note: {table.victim[:16]} would be called backdoored; it counts as clean because you say so")
    extended = reference.extended(list(known.values()), "own")
    write_bytes(out, (extended.model_dump_json(indent=1) + "\n").encode())
    count, others = len(known), len(reference.models)
    write_text(f"{out}: {count} models of your own beside {others}; for untrojan scan --reference {out}\n")
    return 0


def unfit(table: SearchTable) -> str | None:
    """Why a scan tells nothing of what is usual in clean models, or None."""
    from untrojan.detection.judge import fed_wrongly, unsearchable
    from untrojan.detection.reference import UNKNOWN, spanned

    if table.unreached:
        return f"its time did not suffice for {table.unreached[0]}"
    if table.network.classes < 3:
        return "it has two classes"
    if spanned(table.network)["unknown"] > UNKNOWN:
        return "it hardly knows some of its classes"
    if failed := unsearchable(table):
        return f"no {' and no '.join(failed)} trigger was found for most classes"
    return fed_wrongly(table.network)


def _tables(
    folder: Path, clean: str | None, limit: int | None, seed: int, device: str, quiet: bool
) -> list[SearchTable]:
    from untrojan.detection.table_files import read_tables
    from untrojan.scan_files import TABLE

    if not folder.is_dir():
        raise UsageError(f"{folder}: not a folder; give what scan --out wrote, or a folder with victim.json")
    scans = sorted(folder.rglob(TABLE))
    found = [table for path in scans for table in read_tables(path)]
    places = [path.parent for path in scans]
    victims = sorted(path.parent for path in folder.rglob("victim.json"))
    victims = [victim for victim in victims if not any(place.is_relative_to(victim) for place in places)]
    if not victims and not scans:
        raise UsageError(f"{folder}: neither {TABLE} nor victim.json lies there; scan the model with --out first")
    if not victims:
        return found
    if clean is None:
        raise UsageError(f"{victims[0]} has no scan yet; give --clean DATA to scan it, or scan it with --out first")
    made = [_scanned(victim, clean, limit, seed, device, quiet) for victim in victims]
    return [*found, *(table for table in made if table is not None)]


def _scanned(victim: Path, clean: str, limit: int | None, seed: int, device: str, quiet: bool) -> SearchTable | None:
    from untrojan.detection.reference import built_in
    from untrojan.pipeline import scan

    try:
        classifier = load_victim(victim, model=None, weights=None, mean=None, std=None, shape=None, device=device)
        data = load_fitting(classifier, clean, limit=limit, seed=seed)
        with progress_shown(quiet) as progress:
            report = scan(classifier, data.images, data.labels, seed=seed, progress=progress, reference=built_in())
    except UntrojanError as error:  # one that cannot be scanned must not cost the scans of the others
        say(f"{victim}: left out, since {error}")
        return None
    if report.table is None:
        say(f"{victim}: left out, since {report.reason}")
    table: SearchTable | None = report.table
    return table
