"""The folder that --out names: checked before the work, filled after it, never left half-written."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import signal
import tempfile
import threading
from collections.abc import Collection, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path

from untrojan.errors import OutputError

ARGUMENTS: ContextVar[Sequence[str]] = ContextVar("ARGUMENTS", default=())
"""What the user typed after the program's name."""
WRITTEN: ContextVar[bool] = ContextVar("WRITTEN", default=False)
"""Whether this command has filled a folder: then it does not matter if nobody reads its standard output."""


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
    not write them, so that ``out`` never mixes two runs. Raises OutputError; if the block or the move fails, ``out`` is
    as it was, and Ctrl-C waits for the end of the move.
    """
    made = _make(out)
    stage: Path | None = None
    try:
        stage = Path(tempfile.mkdtemp(prefix=".untrojan-", dir=out))
        yield stage
        with _signals_wait():
            _move(stage, out, names)
            made = []
        WRITTEN.set(True)
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


def _move(stage: Path, out: Path, names: Collection[str]) -> None:
    """Move what a stage has of these names to ``out``, in place of what is there; or nothing, if something fails."""
    for name in names:
        if (out / name).is_dir() and not (out / name).is_symlink() and (stage / name).is_file():
            raise IsADirectoryError(errno.EISDIR, f"{name} is a folder there, and not this program's")
    earlier = stage / "earlier"
    earlier.mkdir()
    moved: list[tuple[Path, Path]] = []
    try:
        for name in names:
            for start, end in ((out / name, earlier / name), (stage / name, out / name)):
                if os.path.lexists(start):
                    os.replace(start, end)
                    moved.append((start, end))
    except BaseException:
        for start, end in reversed(moved):
            os.replace(end, start)
        raise


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM wait until the block has ended. Only the main thread is ever interrupted by them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda n, _: came.append(n)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    if came:
        signal.raise_signal(came[0])


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
