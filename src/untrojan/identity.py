"""Which classifier a record is about."""

from __future__ import annotations

from torch import Tensor

from untrojan.classifier import Classifier
from untrojan.errors import UsageError
from untrojan.records import VictimInfo


def victim_info(classifier: Classifier, images: Tensor) -> VictimInfo:
    """Hash, classes and input shape, from the classifier and images [N, C, H, W] of the kind that it takes."""
    own = classifier.sha256()  # before any pass: a network may count its calls in a buffer
    classes, names = classifier.predict(images[:1]).shape[1], classifier.class_names
    if names is not None and len(names) != classes:
        raise UsageError(f"the classifier has {len(names)} class names, and its network returns {classes} logits")
    shape = images.shape[1:]
    return VictimInfo(
        sha256=own,
        classes=classes,
        class_names=names,
        input_shape=(shape[0], shape[1], shape[2]),
    )
