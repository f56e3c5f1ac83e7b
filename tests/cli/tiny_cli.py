"""Tiny images, and records about a tiny victim, for the tests of the command line."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from untrojan.classifier import Classifier
from untrojan.classifier.corrected import CorrectedClassifier
from untrojan.data import ImageSet, image_hashes
from untrojan.guard import Guard
from untrojan.identity import victim_info
from untrojan.records import Cost, GuardCard, PairScore, ScanReport
from untrojan.victims.making import Victim

COST = Cost(seconds=1.0, images_forward=10, images_forward_backward=20)


def stripes(count: int = 48, seed: int = 0) -> ImageSet:
    """Grey 8x8 images of three classes, by the place of a bright row."""
    labels = torch.arange(count) % 3
    noise = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 80, (count, 1, 8, 8), generator=noise, dtype=torch.uint8)
    images[torch.arange(count), 0, 2 * labels + 1] = 250
    return ImageSet(images, labels, ("a", "b", "c"), "stripes")


def write_folder(root: Path, images: ImageSet) -> Path:
    """One sub-folder per class with PNG files."""
    for number, (image, label) in enumerate(zip(images.images, images.labels.tolist(), strict=True)):
        folder = root / "abc"[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(folder / f"{number}.png")
    return root


def report_of(
    classifier: Classifier, victim: Victim, verdict: str, images: Tensor | None = None, target: int = 1
) -> ScanReport:
    """What a scan of this victim could say."""
    images = stripes().images if images is None else images
    classes = classifier.predict(images[:1]).shape[1]
    found = verdict == "backdoor"
    kind = "patch" if victim.trigger is None else victim.trigger.kind
    report = ScanReport(
        verdict=verdict,  # type: ignore[arg-type]
        reason="made up for a test",
        targets=(target,) if found else (),
        pairs=tuple(
            PairScore(source=s, target=t, kind=kind, size=3.5, score=9.0, detected=found and t == target)
            for s in range(classes)
            for t in range(classes)
            if s != t
        ),
        cost=COST,
        victim=victim_info(classifier, images),
        images=len(images),
        seed=0,
        settings={},
        version="0",
    )
    return report.with_triggers({(target, kind): victim.trigger} if found and victim.trigger is not None else {})


def guard_of(classifier: Classifier, used: Tensor, target: int = 1) -> Guard:
    """A guard that lets nothing through to the target: every such image is corrected to nonsense, so mostly flagged."""
    theta = CorrectedClassifier(classifier).theta()
    guard = Guard(
        classifier, (target,), {name: value + (3.0 if "mean" in name else 0.0) for name, value in theta.items()}
    )
    guard.card = GuardCard(
        victim=victim_info(classifier, used),
        method="made up",
        targets=(target,),
        sources={target: (0, 2)},
        settings={},
        images_sha256=image_hashes(used),
        cost=COST,
        seed=0,
        version="0",
    )
    return guard
