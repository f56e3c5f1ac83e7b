"""stdout for data, stderr for everything else; both may be closed, full or of a small encoding."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from rich.console import Console

from untrojan.errors import OutputError

if TYPE_CHECKING:
    from untrojan.report import ReportContent


def write_text(text: str) -> None:
    """Print text for people; characters that the terminal does not have become question marks."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    _write(text.encode(encoding, "replace").decode(encoding))


def write_data(text: str) -> None:
    """Print JSON or HTML, in UTF-8 whatever the terminal's encoding."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8")
    _write(text)


def write_report(content: ReportContent) -> None:
    """Print a report as text: in colours and as wide as the terminal if stdout is one."""
    from untrojan.report import print_text, render_text

    if sys.stdout is None or not sys.stdout.isatty():
        write_text(render_text(content))
        return
    console = Console()
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
    if sys.stdout is None:
        raise OutputError("there is no standard output to write to; use --out DIR")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as with `| head`
        _discard()
    except OSError as error:
        _discard()
        raise OutputError(f"cannot write to standard output: {error.strerror or error}") from None


def _discard() -> None:
    """Let what is still in stdout's buffer go nowhere, or Python would fail on it again when it ends."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
