"""untrojan: is there a backdoor in an image classifier, and if so, make it safe to use.

>>> import untrojan
>>> classifier = untrojan.Classifier(module)                           # doctest: +SKIP
>>> report = untrojan.scan(classifier, images, labels, seed=0)         # doctest: +SKIP
>>> guard = untrojan.repair(classifier, images, labels, report)        # doctest: +SKIP
>>> decision = guard(batch)                                            # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING

from untrojan.version import version

if TYPE_CHECKING:
    from untrojan.classifier import Classifier
    from untrojan.errors import UntrojanError
    from untrojan.evaluation import evaluate
    from untrojan.guard import Decision, Guard, load_guard, save_guard
    from untrojan.loading import load_classifier, load_victim
    from untrojan.pipeline import repair, scan
    from untrojan.records import Evaluation, GuardCard, ScanReport
    from untrojan.scan_files import load_scan, save_scan
    from untrojan.setting import Setting
    from untrojan.triggers import AdditiveTrigger, PatchTrigger, Trigger, load_trigger, save_trigger

__version__ = version()

# Looked up on first use: torch takes seconds to load, and ``untrojan --help`` does not need it.
_ROOMS = {
    "classifier": ("Classifier",),
    "errors": ("UntrojanError",),
    "evaluation": ("evaluate",),
    "guard": ("Decision", "Guard", "load_guard", "save_guard"),
    "loading": ("load_classifier", "load_victim"),
    "pipeline": ("repair", "scan"),
    "records": ("Evaluation", "GuardCard", "ScanReport"),
    "scan_files": ("load_scan", "save_scan"),
    "setting": ("Setting",),
    "triggers": ("AdditiveTrigger", "PatchTrigger", "Trigger", "load_trigger", "save_trigger"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "AdditiveTrigger",
    "Classifier",
    "Decision",
    "Evaluation",
    "Guard",
    "GuardCard",
    "PatchTrigger",
    "ScanReport",
    "Setting",
    "Trigger",
    "UntrojanError",
    "evaluate",
    "load_classifier",
    "load_guard",
    "load_scan",
    "load_trigger",
    "load_victim",
    "repair",
    "save_guard",
    "save_scan",
    "save_trigger",
    "scan",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'untrojan' has no attribute '{name}'")
    value: object = getattr(import_module(f"untrojan.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
