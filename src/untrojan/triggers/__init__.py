"""Triggers: what an attacker stamps on an image, true or estimated, and their file.

Attacks make them, detection estimates them, correction and evaluation stamp them. A new kind is a file here and a
place in ``TRIGGER_KINDS`` (``files.py``).
"""

from untrojan.triggers.additive import AdditiveTrigger
from untrojan.triggers.base import Trigger, to_grid
from untrojan.triggers.blend import BlendTrigger
from untrojan.triggers.files import FORMAT, TRIGGER_KINDS, load_trigger, save_trigger, trigger_from_tensors
from untrojan.triggers.generator import InputAwareTrigger, Painter, WassersteinTrigger
from untrojan.triggers.patch import PatchTrigger
from untrojan.triggers.warp import WarpTrigger

__all__ = [
    "FORMAT",
    "TRIGGER_KINDS",
    "AdditiveTrigger",
    "BlendTrigger",
    "InputAwareTrigger",
    "Painter",
    "PatchTrigger",
    "Trigger",
    "WarpTrigger",
    "WassersteinTrigger",
    "load_trigger",
    "save_trigger",
    "to_grid",
    "trigger_from_tensors",
]
