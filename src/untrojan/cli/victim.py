"""From the options that name a victim and data to objects that fit each other."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from untrojan.errors import (
    CheckpointError,
    DataError,
    GuardMismatchError,
    ShapeError,
    UnsupportedError,
    UsageError,
)

if TYPE_CHECKING:
    from torch import Tensor

    from untrojan.classifier import Classifier
    from untrojan.data import ImageSet
    from untrojan.records import ScanReport, VictimInfo
    from untrojan.setting import Setting
    from untrojan.triggers import Trigger

Shape = tuple[int, int, int]


def load_victim(
    folder: Path | None,
    *,
    model: str | None,
    weights: Path | None,
    mean: str | None,
    std: str | None,
    shape: str | None,
    device: str,
) -> Classifier:
    """The classifier that the options name; raises UsageError if they do not name exactly one."""
    others = {"--model": model, "--weights": weights, "--mean": mean, "--std": std, "--input": shape}
    given = [name for name, value in others.items() if value is not None]
    if folder is not None and given:
        raise UsageError(
            f"a victim's folder says all about it, so {given[0]} cannot go with VICTIM; give one or the other"
        )
    if folder is None and model is None:
        missing = f"{given[0]} needs --model" if given else "no victim was given"
        raise UsageError(f"{missing}; give a folder with victim.json, or --model FACTORY --weights FILE")
    means, stds, wanted = numbers("--mean", mean), numbers("--std", std), parse_shape(shape)

    from untrojan.classifier import parse_device
    from untrojan.loading import load_classifier, load_victim

    place = parse_device(device)
    if folder is not None:
        return load_victim(folder, device=place)
    return load_classifier(
        str(model),
        weights,
        mean=means,
        std=stds,
        input_shape=wanted,
        device=place,
    )


def load_fitting(
    classifier: Classifier, spec: str, *, limit: int | None, seed: int, known: VictimInfo | None = None
) -> ImageSet:
    """Labelled images whose shape and labels suit the classifier.

    known: what a scan or a guard says of the victim, whose shape and class names are used where the classifier does not
    say any; a classifier without class names then takes over the data's, if there are as many as it has classes. Raises
    DataError, UnsupportedError, UsageError.
    """
    from untrojan.data import load_data

    images = load_data(
        spec,
        input_shape=wanted_shape(classifier) or (None if known is None else known.input_shape),
        limit=limit,
        seed=seed,
        class_names=classifier.class_names or (None if known is None else known.class_names),
    )
    if len(images):
        classes = answers(classifier, images.images[:1]).shape[1]
        images.require_labels(classes)
        if images.by_order and images.class_names is not None and len(images.class_names) != classes:
            raise DataError(
                f"{images.where}: {len(images.class_names)} sub-folders for a network of {classes} classes, so that "
                "their order does not tell which is which; name them by the classes' numbers"
            )
        if known is not None:
            require_classes(known, classes, "what was made of this victim")
        if classifier.class_names is None and images.class_names is not None and len(images.class_names) == classes:
            classifier.class_names = images.class_names
    return images


def wanted_shape(classifier: Classifier) -> Shape | None:
    """(C, H, W) that the classifier wants its images in; None if it does not say."""
    shape = classifier.input_shape
    return None if shape is None else (shape[0], shape[1], shape[2])


def answers(classifier: Classifier, images: Tensor) -> Tensor:
    """Logits [N, K] of a few images; what a network raises on images that it is not made for is UnsupportedError."""
    came = "x".join(map(str, images.shape[1:]))
    advice = "say which shape the model wants with --input CxHxW, such as 3x32x32"
    try:
        logits = classifier.predict(images)
    except ShapeError as error:
        raise ShapeError(f"{error}; {advice}") from None
    except (UnsupportedError, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError" or "memory" in str(error):
            raise
        text = " ".join(str(error).split())[:160]
        raise UnsupportedError(
            f"the model cannot classify an image of shape {came} ({type(error).__name__}: {text}); {advice}"
        ) from error
    classes = logits.shape[1]
    if classes < 2:
        raise UnsupportedError(
            f"the model returns {classes} logit per image; a classifier of 2 or more classes is needed"
        )
    names = classifier.class_names
    if names is not None and len(names) != classes:
        raise CheckpointError(f"the victim names {len(names)} classes, and its network returns {classes} logits")
    return logits


def require_classes(known: VictimInfo, classes: int, what: str) -> None:
    """Raise CheckpointError if a scan or a guard says another number of classes than the network answers with."""
    if known.classes != classes:
        raise CheckpointError(
            f"{what} says {known.classes} classes, and the network returns {classes} logits; its file was changed"
        )


def require_shape(known: VictimInfo, images: Tensor, what: str) -> None:
    """Raise GuardMismatchError if images are of another shape than those that a scan or a guard was made with.

    The same image in another size is another image: it would not be recognised as one that the guard was made with.
    """
    made, came = ("x".join(map(str, shape)) for shape in (known.input_shape, images.shape[1:]))
    if made != came:
        raise GuardMismatchError(
            f"{what} was made with images of shape {made}, and these are {came}; give --input {made}"
        )


def load_scan_of(classifier: Classifier, folder: Path) -> ScanReport:
    """The scan in a folder; raises GuardMismatchError if it is about another classifier."""
    from untrojan.scan_files import load_scan

    report, own = load_scan(folder), classifier.sha256()
    if report.victim.sha256 != own:
        raise GuardMismatchError(
            f"{folder}: this scan is about the classifier {report.victim.sha256[:12]}…, and this is {own[:12]}…; "
            "scan this one, with the same --mean and --std"
        )
    return report


def read_trigger(path: Path, classifier: Classifier, images: Tensor) -> tuple[Trigger, Setting]:
    """A trigger file that suits a classifier and its images [N, C, H, W]; raises CheckpointError or ShapeError."""
    from untrojan.triggers import load_trigger

    try:
        trigger, setting = load_trigger(path)
        setting.pairs(answers(classifier, images[:1]).shape[1])
    except UsageError as error:
        raise CheckpointError(f"{path}: {error}") from None
    trigger.stamp(images[:1].float() / 255)
    return trigger, setting


def numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Comma-separated numbers; raises UsageError naming the option."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(math.isfinite(v) for v in values):
        raise UsageError(f"{option} '{text}': expected numbers separated by commas, such as 0.49,0.48,0.45")
    return values


def parse_shape(text: str | None) -> Shape | None:
    """``CxHxW``; raises UsageError."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})x([0-9]{1,5})", text.strip().lower())
    if found is None or "0" in (found[1].lstrip("0") or "0", found[2].lstrip("0") or "0", found[3].lstrip("0") or "0"):
        raise UsageError(f"--input '{text}': expected CxHxW with positive numbers, such as 1x28x28")
    return int(found[1]), int(found[2]), int(found[3])
