"""untrojan: is there a backdoor in an image classifier, and if so, make it safe to use.

>>> import untrojan
>>> classifier = untrojan.Classifier(module)                           # doctest: +SKIP
>>> report = untrojan.scan(classifier, images, labels, seed=0)         # doctest: +SKIP
>>> guard = untrojan.repair(classifier, images, labels, report)        # doctest: +SKIP
>>> decision = guard(batch)                                            # doctest: +SKIP
"""

from untrojan.classifier import Classifier, load_classifier
from untrojan.errors import UntrojanError
from untrojan.evaluation import evaluate
from untrojan.guard import Decision, Guard, load_guard, save_guard
from untrojan.pipeline import repair, scan
from untrojan.records import Evaluation, GuardCard, ScanReport
from untrojan.scan_files import load_scan, save_scan
from untrojan.setting import Setting
from untrojan.triggers import AdditiveTrigger, PatchTrigger, Trigger, load_trigger, save_trigger
from untrojan.version import version

__version__ = version()

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
    "repair",
    "save_guard",
    "save_scan",
    "save_trigger",
    "scan",
]
