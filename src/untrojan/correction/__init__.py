"""Repairs. A new method is one file and one line here.

Corrections take a classifier and surrogate triggers to one row of Theta per target; tuning methods, which BNA is
compared with, take it and clean images to another network.
"""

from untrojan.correction.anp import ANP
from untrojan.correction.argd import ARGD
from untrojan.correction.base import Correction, Task
from untrojan.correction.bna import BNA
from untrojan.correction.fine_pruning import FinePruning
from untrojan.correction.fine_tuning import FineTuning
from untrojan.correction.ibau import IBAU
from untrojan.correction.mmac import MMAC
from untrojan.correction.nad import NAD
from untrojan.correction.tuning import Lesson, Repaired, Tuning
from untrojan.correction.unlearning import Unlearning

CORRECTIONS: dict[str, type[Correction]] = {"bna": BNA}
TUNINGS: dict[str, type[Tuning]] = {
    "ft": FineTuning,
    "fp": FinePruning,
    "nc": Unlearning,
    "nad": NAD,
    "i-bau": IBAU,
    "anp": ANP,
    "argd": ARGD,
    "mmac": MMAC,
}

__all__ = ["BNA", "CORRECTIONS", "TUNINGS", "Correction", "Lesson", "Repaired", "Task", "Tuning"]
