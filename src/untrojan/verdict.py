"""Whether a classifier and its clean images allow a verdict at all."""

from __future__ import annotations

import torch
from torch import Tensor

from untrojan.classifier import Classifier
from untrojan.detection.pair_wise import FEWEST
from untrojan.errors import DataError, UnsupportedError
from untrojan.storage import all_finite

ENOUGH = 5
"""Images of a class. A trigger for fewer is small by chance: with two of each class, two of six clean networks of
digits were called backdoored by an earlier scan, with five none."""


def no_better_than_guessing(right: Tensor, classes: int) -> str | None:
    """What to say if hardly more of the images are right (bool [N]) than by guessing among the classes, or None."""
    accuracy = float(right.float().mean())
    if accuracy >= 1 / classes + 0.1:
        return None
    return (
        f"the classifier gets only {accuracy:.0%} of the clean images right; check the order of the classes, "
        "--mean and --std, and --input"
    )


def doubts(
    classifier: Classifier, images: Tensor, labels: Tensor, fewest: int = 3
) -> tuple[str | None, Tensor, Tensor]:
    """Why no verdict can be given, or None; which images to invert on, bool [N]; what the classifier says of all.

    fewest: how many classes there have to be.

    Raises DataError for labels that are no classes, UnsupportedError for probabilities in place of logits.
    """
    none = torch.zeros(len(images), dtype=torch.bool)
    if not all_finite(classifier.state()):
        return (
            "the classifier's weights hold NaN or infinite values, so nothing that it answers can be trusted",
            none,
            labels,
        )
    logits = classifier.predict(images)
    if not bool(torch.isfinite(logits).all()):
        return "the classifier answers clean images with NaN or infinite values", none, labels
    classes = logits.shape[1]
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise DataError(f"labels must lie in 0..{classes - 1}, got {int(labels.min())}..{int(labels.max())}")
    if classes < fewest:
        return f"with {classes} classes there are too few class pairs to tell which one is anomalous", none, labels
    scarce = int((torch.bincount(labels, minlength=classes) < ENOUGH).sum())
    if 2 * scarce > classes:
        return (
            f"of {scarce} of the {classes} classes there are fewer than {ENOUGH} images; give at least "
            f"{ENOUGH * classes} clean ones, a few hundred are better",
            none,
            labels,
        )
    answers = logits.argmax(1)
    right = answers == labels
    if (guessing := no_better_than_guessing(right, classes)) is not None:
        return guessing, none, answers
    if float(logits.min()) >= 0 and float(logits.max()) <= 1:
        raise UnsupportedError(
            "all answers of the network lie in [0, 1], as probabilities do, and logits are needed: leave out its last "
            "softmax or sigmoid, or return the logarithm of its probabilities"
        )
    counts = torch.stack([(right & (labels == c)).sum() for c in range(classes)])
    # A class of which nearly nothing is right is still a possible source: then its images serve as they are.
    return None, right | (counts < FEWEST)[labels], answers
