"""What a victim can do on clean and stamped test images."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from untrojan.classifier import Classifier
from untrojan.data import ImageSet
from untrojan.evaluation.metrics import agreement
from untrojan.intervals import wilson
from untrojan.progress import Progress, Silent
from untrojan.records import Rate
from untrojan.setting import Setting
from untrojan.triggers import Trigger

BATCH = 256


def measure(
    classifier: Classifier,
    test: ImageSet,
    trigger: Trigger | None,
    setting: Setting | None,
    classes: int,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """ACC, ASR and its floor as {value, low, high}, None where it does not apply."""
    progress = progress or Silent()
    batches = [test.images[i : i + BATCH] for i in range(0, len(test), BATCH)]
    clean = []
    for batch in batches:
        clean.append(classifier.predict(batch).argmax(1).cpu())
        progress.advance(len(batch))
    predictions = torch.cat(clean)
    rates: dict[str, Rate | None] = {"acc": wilson(*agreement(predictions, test.labels))}
    if trigger is not None and setting is not None:
        goals = setting.target_of(test.labels, classes)
        moved = goals >= 0
        reached = torch.cat([stamped_predictions(classifier, trigger, b) for b in batches])[moved]
        rates["asr"] = wilson(*agreement(reached, goals[moved]))
        rates["asr_floor"] = wilson(*agreement(predictions[moved], goals[moved]))
    return {name: None if rate is None else rate.model_dump() for name, rate in rates.items()}


def stamped_predictions(classifier: Classifier, trigger: Trigger, images: Tensor) -> Tensor:
    """Labels that the classifier gives stamped images: int64 [N], on the CPU."""
    return classifier.predict(trigger.stamp(classifier.as_float(images))).argmax(1).cpu()
