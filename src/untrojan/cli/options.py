"""Options that several commands share: each means the same everywhere."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from untrojan.errors import UsageError

DATA_VARIABLE = "UNTROJAN_DATA"
"""As ``untrojan.data.named`` has it, which loads torch."""
_VICTIM, _COMMON = "The classifier", "Everywhere"


class Format(StrEnum):
    """What goes to stdout."""

    text = "text"
    json = "json"
    html = "html"


class Recipe(StrEnum):
    """How a guard is made."""

    untrojan = "untrojan"
    paper = "paper"


class PlainFormat(StrEnum):
    """What goes to stdout, of a command that has no page to show."""

    text = "text"
    json = "json"


Victim = Annotated[
    Path | None,
    typer.Argument(
        metavar="VICTIM", help="Folder with victim.json; or give --model and --weights.", show_default=False
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="FACTORY",
        help="file.py:callable or package.module:callable, whose code is run; a built-in such as "
        "resnet18?width=16&classes=10; or timm:NAME, torchvision:NAME, transformers:FOLDER.",
        rich_help_panel=_VICTIM,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="safetensors, or a plain PyTorch state_dict.", rich_help_panel=_VICTIM),
]
Mean = Annotated[
    str | None,
    typer.Option(
        metavar="M,M,M",
        help="Per channel, what the model wants subtracted from its input in [0, 1], such as 0.49,0.48,0.45.",
        rich_help_panel=_VICTIM,
    ),
]
Std = Annotated[
    str | None,
    typer.Option(metavar="S,S,S", help="Per channel, what it is then divided by.", rich_help_panel=_VICTIM),
]
InputShape = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="CxHxW",
        help="Shape that the model wants, such as 3x32x32; images are converted and resized to it.",
        show_default="the data's own",
        rich_help_panel=_VICTIM,
    ),
]


def _data_folder(folder: Path | None) -> Path | None:
    """Sets by name are looked for where the environment says: the option says it for this process."""
    if folder is not None:
        if not folder.is_dir():
            raise UsageError(f"--data-dir {folder}: not a folder; expected one that holds cifar10/test.parquet, say")
        os.environ[DATA_VARIABLE] = str(folder)
    return folder


DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        callback=_data_folder,
        help=f"Where sets by name lie, such as DIR/cifar10/test.parquet; else {DATA_VARIABLE} says it.",
        show_default=False,
    ),
]
Clean = Annotated[
    str,
    typer.Option(
        metavar="DATA",
        help="Clean labelled images: a folder with one sub-folder per class, a .parquet file or folder, digits, a set "
        "by name such as cifar10 (its test split; see --data-dir), or hf:OWNER/NAME?split=test.",
        show_default=False,
    ),
]
TestData = Annotated[
    str,
    typer.Option("--test", metavar="DATA", help="Labelled images to measure on, as for --clean.", show_default=False),
]
Limit = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Draw N images, balanced over the classes.", show_default=False),
]
Seed = Annotated[
    int, typer.Option(metavar="N", min=0, max=2**32 - 1, help="Of all random choices.", rich_help_panel=_COMMON)
]
UnusedSeed = Annotated[
    int,
    typer.Option(
        "--seed", metavar="N", min=0, max=2**32 - 1, help="Taken, and of no effect here.", rich_help_panel=_COMMON
    ),
]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]", help="Where to compute.", rich_help_panel=_COMMON)]
Output = Annotated[Format, typer.Option("--format", help="What is printed on stdout.", rich_help_panel=_COMMON)]
PlainOutput = Annotated[
    PlainFormat, typer.Option("--format", help="What is printed on stdout.", rich_help_panel=_COMMON)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.", rich_help_panel=_COMMON)]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=_COMMON)]


def duration(text: str) -> float:
    """Seconds in ``90``, ``90s``, ``5m`` or ``1.5h``. Raises UsageError."""
    found = re.fullmatch(r"(\d{1,7}(?:\.\d{1,6})?)\s*([smh]?)", str(text).strip())
    if not found or float(found[1]) == 0:
        raise UsageError(f"'{text}' is not a time; expected one such as 90s, 5m or 1h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def parse_options(flag: str, pairs: Sequence[str]) -> dict[str, str]:
    """``key=value`` each, given with ``flag``; raises UsageError."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key or key in found:
            raise UsageError(f"{flag} '{pair}': expected KEY=VALUE, each key once, such as size=3")
        found[key] = value
    return found
