"""``untrojan demo``."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from untrojan.cli import options
from untrojan.cli.bars import progress_shown
from untrojan.cli.output import command_line, require_writable, staged
from untrojan.cli.streams import write_data, write_text
from untrojan.errors import OutputError

if TYPE_CHECKING:
    from untrojan.demo import Demonstration

WRITTEN, SCHEMA = "demo.json", "untrojan-demo-files-1"
"""Which files a demo wrote, so that the next one replaces these and nothing else."""


def demo(
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Write everything there.")] = Path(
        "untrojan-demo"
    ),
    seed: options.Seed = 0,
    device: options.Device = "auto",
    output: options.Output = options.Format.text,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """See it work in two minutes, offline: poison a small classifier of digits, find the backdoor, disarm it."""
    require_writable(out)

    from untrojan.classifier import parse_device
    from untrojan.cli.page import full_content
    from untrojan.demo import FILES, demonstrate
    from untrojan.report import render_html
    from untrojan.storage import write_bytes

    _require_own(out, FILES)
    place = parse_device(device)

    def tell(sentence: str) -> None:
        if output is options.Format.text:
            write_text(f"{sentence}\n")

    with staged(out, (*FILES, WRITTEN)) as stage:
        result = demonstrate(stage, seed=seed, device=place, tell=tell, watch=lambda: progress_shown(quiet))
        page = render_html(
            full_content(
                result.classifier,
                result.test,
                evaluation=result.evaluation,
                scan=result.poisoned,
                guard=result.guard,
                trigger=result.victim.trigger,
                setting=result.victim.setting,
                pictures=True,
                command=command_line(),
                title="untrojan demo: the poisoned classifier",
            )
        )
        write_bytes(stage / "report.html", page.encode())
        write_bytes(stage / WRITTEN, json.dumps({"schema": SCHEMA, "files": _files(stage)}, indent=2).encode())
    if output is options.Format.html:
        write_data(page)
    elif output is options.Format.json:
        write_data(json.dumps(_summary(result, out), indent=2) + "\n")
    else:
        write_text(_end(result, out))
    return 0 if result.right else 2


def _require_own(out: Path, names: Collection[str]) -> None:
    """Raise OutputError unless the folder is empty or an earlier demo's, and what a demo replaces there (``names``)
    holds nothing else."""
    if not out.is_dir() or not any(out.iterdir()):
        return
    try:
        card = json.loads((out / WRITTEN).read_bytes())
        own = set(card["files"]) if card["schema"] == SCHEMA else None
    except (OSError, ValueError, TypeError, KeyError):
        own = None
    if own is None:
        raise OutputError(f"{out} holds something else than a demo; choose an empty or a new folder with --out")
    added = [name for name in _files(out) if name not in own and name.partition("/")[0] in names]
    if added:
        raise OutputError(
            f"{out} holds {added[0]}, which no demo wrote and which this one would remove; move it away, or "
            "choose another --out"
        )


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def _summary(result: Demonstration, out: Path) -> dict[str, object]:
    records = {"clean": result.clean, "poisoned": result.poisoned, "evaluation": result.evaluation}
    return {
        "schema": "untrojan-demo-1",
        "right": result.right,
        "seconds": round(result.seconds, 3),
        **{n: None if r is None else r.model_dump(mode="json", by_alias=True) for n, r in records.items()},
        "examples": [dataclasses.asdict(example) for example in result.examples],
        "folder": str(out),
        "report": str(out / "report.html"),
    }


def _end(result: Demonstration, out: Path) -> str:
    lines = [] if result.right else ["Not what it should be: a verdict is wrong for this seed."]
    lines.append(f"Done in {result.seconds:.0f} s. The report, with pictures of the trigger: {out / 'report.html'}")
    if result.guard is not None:
        folder, examples = shlex.quote(str(out / "poisoned")), shlex.quote(str(out / "examples"))
        lines.append(f"Try it yourself: untrojan predict {folder} --guard {folder}/guard {examples}")
    return "\n".join([*lines, ""])
