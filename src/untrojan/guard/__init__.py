"""The guard: the inference rule around a victim, and its files."""

from untrojan.guard.files import load_card, load_guard, save_guard
from untrojan.guard.guard import MARGIN_SHARE, Decision, Guard

__all__ = ["MARGIN_SHARE", "Decision", "Guard", "load_card", "load_guard", "save_guard"]
