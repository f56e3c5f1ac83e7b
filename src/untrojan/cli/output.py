"""The folder that --out names: checked before the work, filled after it, never left half-written."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path

from untrojan.errors import OutputError

ARGUMENTS: ContextVar[Sequence[str]] = ContextVar("ARGUMENTS", default=())
"""What the user typed after the program's name."""


def require_writable(out: Path | None) -> None:
    """Raise OutputError if ``out`` could not be made or written to; nothing is left behind. None is fine."""
    if out is None:
        return
    place = out.absolute()
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise OutputError(f"cannot write to {out}: {place} is not a folder; choose another --out")
    try:
        with tempfile.TemporaryFile(dir=place):
            return
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {error.strerror or error}; choose another --out") from None


@contextlib.contextmanager
def staged(out: Path, names: Collection[str]) -> Iterator[Path]:
    """A hidden folder to write into, whose content moves to ``out`` together when the block ends without an error.

    names: the files and folders that this command writes; those of an earlier run are removed, also if this one does
    not write them, so that ``out`` never mixes two runs. Raises OutputError; if the block fails, ``out`` is as it was.
    """
    made = _make(out)
    stage: Path | None = None
    try:
        stage = Path(tempfile.mkdtemp(prefix=".untrojan-", dir=out))
        yield stage
        earlier = stage / "earlier"
        earlier.mkdir()
        for name in names:
            if os.path.lexists(out / name):
                os.replace(out / name, earlier / name)
            if os.path.lexists(stage / name):
                os.replace(stage / name, out / name)
        made = []
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {error.strerror or error}; choose another --out") from None
    except OutputError as error:
        raise OutputError(str(error).replace(f"{stage}{os.sep}", f"{out}{os.sep}")) from None
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()


def command_line() -> str:
    """The command as it was typed, for the report."""
    return shlex.join(["untrojan", *ARGUMENTS.get()])


def _make(out: Path) -> list[Path]:
    """Make a folder with its parents; those that were made, the innermost first."""
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {out}: {error.strerror or error}; choose another --out") from None
    return missing
