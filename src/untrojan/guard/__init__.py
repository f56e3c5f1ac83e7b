"""The guard: the inference rule around a victim, its files, and what else can stand in its place to compare with."""

from untrojan.guard.files import AnyGuard, load_card, load_guard, save_guard
from untrojan.guard.guard import MARGIN_SHARE, Decision, Guard
from untrojan.guard.replacement import Replacement
from untrojan.guard.strip import Strip

__all__ = [
    "MARGIN_SHARE",
    "AnyGuard",
    "Decision",
    "Guard",
    "Replacement",
    "Strip",
    "load_card",
    "load_guard",
    "save_guard",
]
