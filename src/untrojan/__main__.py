"""``python -m untrojan``, and the command ``untrojan``."""

import sys


def run() -> int:
    """The program, also if Ctrl-C comes while it is still being loaded."""
    try:
        from untrojan.cli import main

        return main()
    except KeyboardInterrupt:
        sys.stderr.write("untrojan: error: interrupted; nothing was begun\n")
        return 130


if __name__ == "__main__":
    sys.exit(run())
