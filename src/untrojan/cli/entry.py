"""The entry point: from arguments to an exit code, whatever happens on the way."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Annotated

import typer

from untrojan.cli.bench import bench
from untrojan.cli.calibrate import calibrate
from untrojan.cli.demo import demo
from untrojan.cli.doctor import doctor
from untrojan.cli.evaluate import evaluate
from untrojan.cli.options import DATA_VARIABLE
from untrojan.cli.output import ARGUMENTS, WRITTEN
from untrojan.cli.poison import poison
from untrojan.cli.predict import predict
from untrojan.cli.repair import repair
from untrojan.cli.scan import scan
from untrojan.cli.streams import close_output, say, stdout_kept, write_text
from untrojan.cli.zoo import zoo
from untrojan.errors import UntrojanError, UsageError
from untrojan.version import version

COMMANDS = (demo, scan, repair, evaluate, predict, poison, calibrate, bench, doctor)
INTERRUPTED, TERMINATED = 130, 143
# The parser's errors have no public name; they are what the public one derives from.
ParserError: type[Exception] = typer.BadParameter.__mro__[2]


def _alone_on_stdout(command: Callable[..., int]) -> Callable[..., int]:
    """The command with standard output for itself, whatever the code of a model prints."""

    @functools.wraps(command)
    def run(*arguments: object, **options: object) -> int:
        with stdout_kept():
            return command(*arguments, **options)

    return run


app = typer.Typer(
    name="untrojan",
    help="Find a backdoor in an image classifier that you did not train, and make it safe to use.",
    epilog="Exit codes: 0 done, 2 error, 3 unsupported model or data, 4 wrong usage; scan: 0 clean, 1 backdoor found.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in COMMANDS:
    app.command()(_alone_on_stdout(_command))
app.add_typer(zoo)


@app.callback(invoke_without_command=True)
def _program(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> int:
    if show_version:
        write_text(f"untrojan {version()}\n")
        raise typer.Exit(0)
    if context.invoked_subcommand is None:
        with contextlib.redirect_stdout(sys.stderr):
            print(context.get_help())
        raise typer.Exit(4)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; nothing is raised.

    arguments: without the program's name; default those of the process. Errors are one line on stderr; with ``--debug``
    or UNTROJAN_DEBUG=1 the traceback comes before it.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    debug = "--debug" in arguments or os.environ.get("UNTROJAN_DEBUG", "") not in ("", "0")
    token = ARGUMENTS.set(arguments)
    WRITTEN.set(False)
    data = os.environ.get(DATA_VARIABLE)
    try:
        with _termination_raises(), warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")
            code = _run(arguments)
    except BaseException as error:
        if debug:
            traceback.print_exc()
        code, line = explain(error)
        if line:
            say(f"untrojan: error: {line}")
    finally:
        ARGUMENTS.reset(token)
        if data is None:  # --data-dir is for this call
            os.environ.pop(DATA_VARIABLE, None)
        else:
            os.environ[DATA_VARIABLE] = data
    return code if close_output() else max(code, 2)


def _run(arguments: Sequence[str]) -> int:
    if "" in arguments:  # it would mean the current folder
        raise UsageError("an argument is empty; is a shell variable not set?")
    code = typer.main.get_command(app).main(args=list(arguments), prog_name="untrojan", standalone_mode=False)
    if code == INTERRUPTED:  # how the parser passes Ctrl-C on
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def explain(error: BaseException) -> tuple[int, str]:
    """Exit code and one line for whatever ended a command."""
    if isinstance(error, UntrojanError):
        return error.exit_code, _one_line(error)
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return INTERRUPTED, "interrupted; nothing half-written was left"
    if isinstance(error, Terminated):
        return TERMINATED, "terminated; nothing half-written was left"
    if isinstance(error, ParserError):
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "untrojan"
        text = _one_line(getattr(error, "format_message", error.__str__)())
        return 4, f"{text.rstrip('.')}; see '{command} --help'"
    if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):
        return 0, ""  # how the parser ends when the reader of its help has seen enough
    if isinstance(error, SystemExit):
        return 2, f"the model's own code ended the program, sys.exit({'' if error.code is None else error.code!r})"
    if _out_of_memory(error):
        return 2, (
            f"out of memory ({_one_line(error)[:120]}); take fewer images with --limit, close other programs, "
            "or use --device cpu if the GPU is too small"
        )
    if isinstance(error, OSError):  # no permission, a full disk, a network drive that is gone
        return 2, _one_line(f"{error.filename or 'reading or writing'}: {error.strerror or error}")
    return 2, (
        f"unexpected {type(error).__name__}: {_one_line(error)[:200]}; this is a fault of untrojan, please report it "
        "with the traceback that --debug (or UNTROJAN_DEBUG=1) shows"
    )


class Terminated(BaseException):
    """SIGTERM came, as from a scheduler whose time is up: half-written files are cleared away as after Ctrl-C."""


@contextlib.contextmanager
def _termination_raises() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
        yield
        return

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    # By name, as torch may not be loaded yet: OutOfMemoryError on a GPU, a plain RuntimeError on a CPU.
    text = str(error)
    return isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text or "not enough memory" in text
    )


def _one_line(message: object) -> str:
    return " ".join(str(message).split())
