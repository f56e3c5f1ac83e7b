"""Corrections: classifier and surrogate triggers to one row of Theta per target. A new one is one file and one line."""

from untrojan.correction.base import Correction, Task
from untrojan.correction.bna import BNA

CORRECTIONS: dict[str, type[Correction]] = {"bna": BNA}

__all__ = ["BNA", "CORRECTIONS", "Correction", "Task"]
