"""How long work tells what it is doing; the command line shows it as bars, a library user hears nothing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Something that is told of work: ``start`` a stage of ``total`` units, then ``advance``; ``note`` how it goes."""

    def start(self, description: str, total: int) -> None: ...

    def advance(self, count: int = 1) -> None: ...

    def note(self, text: str) -> None: ...


class Silent:
    """Tells nobody."""

    def start(self, description: str, total: int) -> None:
        """Ignored."""

    def advance(self, count: int = 1) -> None:
        """Ignored."""

    def note(self, text: str) -> None:
        """Ignored."""
