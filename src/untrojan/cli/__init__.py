"""The command line: one file per command, and what they share."""

from untrojan.cli.entry import main

__all__ = ["main"]
