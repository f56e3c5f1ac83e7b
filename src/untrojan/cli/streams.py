"""stdout for data, stderr for everything else; both may be closed, full or of a small encoding."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, TextIO

from rich.console import Console

from untrojan.cli.output import WRITTEN
from untrojan.errors import OutputError

if TYPE_CHECKING:
    from untrojan.report import ReportContent


STDOUT, STDERR = 1, 2
"""Descriptors of the process."""

_KEPT: ContextVar[tuple[TextIO | None] | None] = ContextVar("_KEPT", default=None)
"""Standard output while it is kept for untrojan alone."""


@contextlib.contextmanager
def stdout_kept() -> Iterator[None]:
    """Inside, what a model's own code prints goes to stderr, also what it or its libraries write without Python:
    standard output carries data alone."""
    with _own_descriptor(sys.stdout) as stdout:
        token = _KEPT.set((stdout,))
        try:
            with contextlib.redirect_stdout(sys.stderr):
                yield
        finally:
            _KEPT.reset(token)


@contextlib.contextmanager
def _own_descriptor(stdout: TextIO | None) -> Iterator[TextIO | None]:
    """Standard output under a descriptor of our own, while the process's is that of stderr; or as it is, where it is no
    descriptor of the process (in a notebook, say) or stderr is closed."""
    try:
        usual = stdout is not None and stdout.fileno() == STDOUT
        os.fstat(STDERR)
    except (OSError, ValueError, AttributeError):
        usual = False
    if stdout is None or not usual:
        yield stdout
        return
    stdout.flush()
    own = open(os.dup(STDOUT), "w", encoding=stdout.encoding, errors=stdout.errors)  # noqa: SIM115 - closed below
    os.dup2(STDERR, STDOUT)
    try:
        yield own
    finally:
        with contextlib.suppress(OSError):
            own.flush()
        os.dup2(own.fileno(), STDOUT)
        with contextlib.suppress(OSError):
            own.close()


def _stdout() -> TextIO | None:
    kept = _KEPT.get()
    return sys.stdout if kept is None else kept[0]


def write_text(text: str) -> None:
    """Print text for people; characters that the terminal does not have become question marks."""
    encoding = getattr(_stdout(), "encoding", None) or "utf-8"
    _write(text.encode(encoding, "replace").decode(encoding))


def write_data(text: str) -> None:
    """Print JSON or HTML, in UTF-8 whatever the terminal's encoding."""
    stdout = _stdout()
    if isinstance(stdout, io.TextIOWrapper):
        stdout.reconfigure(encoding="utf-8")
    _write(text)


def write_report(content: ReportContent) -> None:
    """Print a report as text: in colours and as wide as the terminal if stdout is one."""
    from untrojan.report import print_text, render_text

    stdout = _stdout()
    if stdout is None or not stdout.isatty():
        write_text(render_text(content))
        return
    console = Console(file=stdout)
    with console.capture() as capture:
        print_text(content, console)
    write_text(capture.get())


def say(line: str) -> None:
    """A line on stderr; if that is closed, there is nobody to tell."""
    if sys.stderr is None:
        return
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    try:
        print(line.encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        sys.stderr = None


def close_output() -> bool:
    """Flush stdout while an error can still be told; whether everything arrived, or nobody wanted more."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard()
    except OSError as error:
        _discard()
        say(f"untrojan: error: cannot write to standard output: {error.strerror or error}")
        return False
    return True


def _write(text: str) -> None:
    stdout = _stdout()
    if stdout is None:
        if WRITTEN.get():
            return
        raise OutputError("there is no standard output to write to; use --out DIR")
    try:
        stdout.write(text)
        stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as with `| head`
        _discard()
    except OSError as error:
        _discard()
        raise OutputError(f"cannot write to standard output: {error.strerror or error}") from None


def _discard() -> None:
    """Let what is still in stdout's buffer go nowhere, or Python would fail on it again when it ends."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), (_stdout() or sys.stdout).fileno())
