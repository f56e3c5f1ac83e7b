"""The guard: the inference rule around a victim, its files, and another test-time detector to compare with."""

from untrojan.guard.files import load_card, load_guard, save_guard
from untrojan.guard.guard import MARGIN_SHARE, Decision, Guard
from untrojan.guard.strip import Strip

__all__ = ["MARGIN_SHARE", "Decision", "Guard", "Strip", "load_card", "load_guard", "save_guard"]
