"""``untrojan bench``."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from untrojan.cli import options
from untrojan.cli.bars import progress_shown
from untrojan.cli.output import require_writable
from untrojan.cli.streams import say, write_data, write_text

if TYPE_CHECKING:
    from untrojan.bench.run import Outcome, Scanned
    from untrojan.bench.workers import Workers

TABLES = ("table.md", "table.csv", "table.json")


def bench(
    *,
    plan: Annotated[
        Path, typer.Option("--plan", metavar="FILE", help="Victims, methods and seeds, in TOML.", show_default=False)
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Write records and tables there; what an earlier run left there is not done again.",
            show_default=False,
        ),
    ],
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            metavar="N",
            min=1,
            max=4096,
            help="Cells measured at once.",
            show_default="1; with --ray the cluster's processors",
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option("--only", metavar="PATTERN", help="Only victims whose name matches, such as 'gtsrb/*'."),
    ] = None,
    zoo: Annotated[
        Path | None,
        typer.Option("--zoo", metavar="DIR", help="Where the zoo lies; else UNTROJAN_ZOO, or the repository's."),
    ] = None,
    data_dir: options.DataFolder = None,
    ray: Annotated[bool, typer.Option("--ray", help="Work on Ray, started here or at --ray-address.")] = False,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Of a Ray cluster: auto, or HOST:PORT; implies --ray.", show_default=False
        ),
    ] = None,
    device: options.Device = "auto",
    output: options.PlainOutput = options.PlainFormat.text,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """Measure victims x methods x seeds, several at once, and make tables of what they give."""
    require_writable(out)

    from untrojan.bench.cell import cells_of
    from untrojan.bench.plan import read_plan
    from untrojan.bench.run import Outcome, run, waiting_and_there
    from untrojan.bench.tables import check_table, table_of, to_csv, to_json, to_markdown
    from untrojan.bench.victims import victims_of
    from untrojan.classifier import parse_device
    from untrojan.storage import write_bytes

    wanted, place = read_plan(plan), str(parse_device(device))
    cells = cells_of(wanted, victims_of(wanted, zoo, only))
    check_table(cells, wanted.table)
    waiting, outcomes = waiting_and_there(cells, out)
    try:
        if waiting:
            with progress_shown(quiet) as progress:
                kept = f", {len(outcomes)} were there" if outcomes else ""
                progress.start(f"cells{kept}", len(waiting))
                workers = _workers(jobs, place, ray=ray or ray_address is not None, address=ray_address)
                with closing(run(waiting, out.absolute(), workers, device=place)) as ended:
                    for event in ended:
                        if not quiet:
                            say(_told(event))
                        if isinstance(event, Outcome):
                            outcomes.append(event)
                            progress.advance()
    except BaseException as error:
        if not isinstance(error, Exception):
            say(f"{len(outcomes)} of {len(cells)} cells are in {out}; the same command goes on from there")
        raise
    table = table_of(wanted, cells, {outcome.cell.key: outcome.record for outcome in outcomes})
    if only is not None and not quiet:
        say(f"the tables are of what matches --only '{only}' alone; the same command without it makes those of all")
    for name, text in zip(TABLES, (to_markdown(table), to_csv(table), to_json(table)), strict=True):
        write_bytes(out / name, text.encode())
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    if output is options.PlainFormat.json:
        write_data(to_json(table))
    else:
        write_text(
            f"{to_markdown(table)}\n{len(outcomes) - failed} of {len(outcomes)} cells in {out}, {failed} failed\n"
        )
    return 2 if failed else 0


def _workers(jobs: int | None, device: str, *, ray: bool, address: str | None) -> Workers:
    """Processes here, or Ray's."""
    if ray:
        from untrojan.bench.ray_workers import RayWorkers

        return RayWorkers(address, jobs=jobs, device=device)

    from untrojan.bench.workers import Processes

    count = jobs or 1
    return Processes(count, max(1, (os.cpu_count() or 1) // count))


def _told(event: Outcome | Scanned) -> str:
    """What was done, and what a cell gave, in a line."""
    from untrojan.bench.run import Scanned
    from untrojan.bench.tables import rates_of

    cell = event.cell
    if isinstance(event, Scanned):
        return f"{cell.victim.name}, seed {cell.seed}: scanned"
    if event.status == "failed":
        return f"{cell.name}: failed, {event.record.reason}"
    names = ("acc", "asr", "sia", "tpr", "fpr")
    rates = {name: value for name, value in rates_of(event.record).items() if name in names and value is not None}
    told = ", ".join(f"{name.upper()} {100 * value:.1f} %" for name, value in rates.items())
    return f"{cell.name}: {told}{'' if event.record.reason is None else f'; {event.record.reason}'}"
