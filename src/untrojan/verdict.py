"""Whether a verdict can be given at all, and the one that a search's findings allow, in words."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from untrojan.classifier import Classifier
from untrojan.detection.anomaly import FEW, MANY
from untrojan.detection.evidence import corrected
from untrojan.detection.pairs import FEWEST
from untrojan.detection.scanner import Findings, ScanSettings, targets_of
from untrojan.errors import DataError, UnsupportedError
from untrojan.records import Evidence
from untrojan.storage import all_finite

Verdict = Literal["backdoor", "clean", "inconclusive"]

ENOUGH = 5
"""Images of a class. A trigger for fewer is small by chance: with two of each class, two of six honest networks of
digits were called backdoored, with five none."""


POOR, SURE = 0.5, 1e-4
"""Below what share of right answers a classifier is too poor to be compared with those that the null was fitted to, and
the p-value that counts all the same. Of six honest networks of ten TinyImageNet classes that get a quarter of their
images right, one had a p-value of .0014. Those of more than ``MANY`` classes have a null to which poor ones belong."""

SCATTERED = 4
"""From so many sources on, with single pairs alone odd, one that is sent to several targets is enough to doubt them
all: an attack has few sources, or a trigger for all classes that is odd. The calibration half's attacked victims that
are found by pairs alone have one source."""


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


def verdict_on(found: Findings, settings: ScanSettings, classes: int, accuracy: float) -> tuple[Verdict, str]:
    """The verdict and its reason in words; classes: how many there are; accuracy: of the classifier on the images."""
    targets = targets_of(found.pairs)
    torn = _torn(found, settings, classes)
    clearest = (
        f"the clearest of {len(found.evidence)} findings is {_words(found.evidence[0], classes)}"
        if found.evidence
        else ""
    )
    if SURE <= found.p_value < settings.alpha and accuracy < POOR and classes <= MANY:
        return "inconclusive", (
            f"{clearest}, but the classifier gets only {accuracy:.0%} of the clean images right, and honest ones that "
            "are as poor look as odd at times; a trained one can be told better"
        )
    if found.p_value < settings.alpha and torn:
        named = ", ".join(f"{source} to {' and '.join(map(str, into))}" for source, into in torn.items())
        return "inconclusive", (
            f"{clearest}, but what is odd fits no attack: one trigger does not send class {named}, and no trigger for "
            "all classes is odd; a network that has learnt its classes unevenly looks like this"
        )
    if found.p_value < settings.alpha and targets:
        detected = sum(p.detected for p in found.pairs)
        into = f"target class{'es' if len(targets) > 1 else ''} {', '.join(map(str, targets))}"
        return "backdoor", f"{detected} class pairs into {into} have an anomalously small trigger; {clearest}"
    if found.p_value < settings.alpha:
        return "inconclusive", f"{clearest}, but the class pairs that it moves could not be told"
    if found.unreached:
        return "inconclusive", f"nothing was found in the time allowed, which did not suffice for {found.unreached[0]}"
    if found.unsearchable:
        return "inconclusive", f"for most classes no {' and no '.join(found.unsearchable)} trigger was found at all"
    few = f"; with {classes} classes, single pairs of them are too few to be compared" if classes < FEW else ""
    return (
        "clean",
        f"no trigger is smaller than honest classifiers have them{few}; {clearest}" if clearest else "no trigger",
    )


def _torn(found: Findings, settings: ScanSettings, classes: int) -> dict[int, list[int]]:
    """The sources that are sent to several targets each, if single pairs alone are odd and it is no chance find.

    A trigger sends each class to one other. That of an all-to-one or all-to-all attack is odd as one for all classes as
    well, and then a chance find beside it changes nothing. One of few sources may have a chance find beside it, but not
    where two sources have several targets, or one has among ``SCATTERED`` sources.
    """
    alone = [e for e in found.evidence if e.test not in ("pair", "single")]
    if any(corrected(e.p_value, classes > MANY) < settings.alpha for e in alone):
        return {}
    into: dict[int, set[int]] = {}
    for pair in found.pairs:
        if pair.detected:
            into.setdefault(pair.source, set()).add(pair.target)
    several = {source: sorted(targets) for source, targets in sorted(into.items()) if len(targets) > 1}
    return several if len(several) > 1 or len(into) >= SCATTERED else {}


COMPARED_WITH = {
    "mixed": "those into one class",
    "target": "those into other classes",
    "source": "those from other classes",
    "pair": "its classes let expect",
}
"""What a trigger's size is compared with, by test; docs/detection.md has it in full."""


INSIDE = "for what it changes inside the network"


def _words(evidence: Evidence, classes: int) -> str:
    start = "all classes" if evidence.source is None else f"class {evidence.source}"
    end = "any other" if evidence.target is None else str(evidence.target)
    if evidence.test == "margin":
        return f"the margin that class {evidence.target} can reach, {evidence.ratio:.1f} times as large as others'"
    if evidence.test == "single":
        return (
            f"the {evidence.kinds} trigger from {start} to {end}, which is {evidence.ratio:.1f} times as odd as other "
            f"pairs', for its size{' and' if evidence.foreign is None else ','} for sparing images of other classes"
            + ("" if evidence.foreign is None else f" and {INSIDE}")
        )
    trigger = "trigger" if evidence.together_with is None else "triggers"
    if evidence.test == "mixed" and classes <= MANY:  # with more, where it sends each class is not looked at
        return (
            f"the {evidence.kinds} {trigger} from {start} to {end}, {evidence.ratio:.1f} times as odd as those into "
            "one class, for the size and for sending each class to one of its own"
        )
    compared = COMPARED_WITH[evidence.test]
    times = f"{evidence.ratio:.1f} times as small as {compared}"
    if evidence.test == "target" and evidence.foreign is not None:
        times = f"{evidence.ratio:.1f} times as odd as {compared}, for the size and {INSIDE}"
    return f"the {evidence.kinds} {trigger} from {start} to {end}, {times}"
