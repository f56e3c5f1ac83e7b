"""``untrojan zoo list|verify|get``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from untrojan.cli import options
from untrojan.cli.bars import progress_shown
from untrojan.cli.output import require_writable
from untrojan.cli.streams import write_data, write_text

zoo = typer.Typer(name="zoo", help="The victims for measuring: list them, measure them again, take them.")

Names = Annotated[
    str,
    typer.Argument(metavar="PATTERN", help="Victims by name, such as 'cifar10/badnet-*'.", show_default="all of them"),
]
Place = Annotated[
    Path | None,
    typer.Option("--zoo", metavar="DIR", help="Where the zoo lies; else UNTROJAN_ZOO, or the repository's."),
]


@zoo.command("list")
def list_members(
    names: Names = "*",
    place: Place = None,
    output: options.PlainOutput = options.PlainFormat.text,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """Name, attack, ACC and ASR of each victim, and whether its weights are there."""
    from untrojan.victims.zoo import find_zoo, members

    found = members(find_zoo(place), names)
    if output is options.PlainFormat.json:
        rows = [
            {"name": m.name, "weights": m.whole}
            | {key: m.card.get(key) for key in ("attack", "setting", "acc", "asr", "asr_floor")}
            | {"part": (m.card.get("recipe") or {}).get("part")}
            for m in found
        ]
        write_data(json.dumps({"victims": rows}, indent=2) + "\n")
        return 0
    width = max(len(m.name) for m in found)
    lines = [f"{'victim':{width}}  ACC   ASR   half of the zoo"]
    lines += [
        f"{m.name:{width}}  {_percent(m.card.get('acc'))}  {_percent(m.card.get('asr'))}  "
        f"{(m.card.get('recipe') or {}).get('part') or '-'}{'' if m.whole else ' (weights are made by zoo get)'}"
        for m in found
    ]
    write_text("\n".join(lines) + "\n")
    return 0


@zoo.command("verify")
def verify_members(
    names: Names = "*",
    place: Place = None,
    data_dir: options.DataFolder = None,
    device: options.Device = "auto",
    output: options.PlainOutput = options.PlainFormat.text,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """Measure victims again and compare with their cards; those without weights are made again first."""
    from untrojan.classifier import parse_device
    from untrojan.victims.zoo import MARGIN, find_zoo, members, verify

    chosen, where = members(find_zoo(place), names), parse_device(device)
    checks = []
    with progress_shown(quiet) as progress:
        for member in chosen:
            progress.start(member.name, int((member.card.get("test_data") or {}).get("images", 0)))
            checks.append(verify(member, device=where, progress=progress))
    wrong = [check for check in checks if not check.agrees]
    if output is options.PlainFormat.json:
        rows = [{"name": c.name, "agrees": c.agrees, "card": c.card, "now": c.now} for c in checks]
        write_data(json.dumps({"victims": rows}, indent=2) + "\n")
    else:
        lines = [f"{c.name}: the card says {c.card}, measured now {c.now}" for c in wrong]
        lines.append(
            f"{len(checks) - len(wrong)} of {len(checks)} victims are within {100 * MARGIN:.0f} point of their card"
        )
        write_text("\n".join(lines) + "\n")
    return 2 if wrong else 0


@zoo.command("get")
def get_members(
    names: Names,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Put them there.", show_default=False)],
    place: Place = None,
    data_dir: options.DataFolder = None,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """Take victims out of the zoo, as folders that every command reads."""
    require_writable(out)
    from untrojan.classifier import parse_device
    from untrojan.victims.zoo import find_zoo, get, members

    chosen = members(find_zoo(place), names)
    with progress_shown(quiet) as progress:
        folders = get(chosen, out, device=parse_device(device), progress=progress)
    write_text("".join(f"{folder}\n" for folder in folders))
    return 0


def _percent(rate: Any) -> str:
    return "  -  " if rate is None else f"{100 * rate['value']:5.1f}"
