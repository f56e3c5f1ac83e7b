"""The whole way on one small example, offline: two classifiers of real digits, one of them poisoned."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from untrojan.classifier import Classifier
from untrojan.data import ImageSet, load_data, split_defence
from untrojan.evaluation import evaluate
from untrojan.guard import Guard, save_guard
from untrojan.pipeline import repair, scan
from untrojan.progress import Progress
from untrojan.records import After, Evaluation, Rate, ScanReport
from untrojan.report import render_json
from untrojan.report.wording import percent
from untrojan.scan_files import save_scan
from untrojan.setting import Setting
from untrojan.storage import write_bytes
from untrojan.victims.files import save_victim
from untrojan.victims.making import Victim, make_victim
from untrojan.victims.training import TrainingSettings

TARGET = 9
FILES = ("clean", "poisoned", "examples", "report.html")
"""What a demo writes into its folder; the page is made by the caller."""

Tell = Callable[[str], None]
Watch = Callable[[], AbstractContextManager[Progress]]


@dataclass(frozen=True)
class Example:
    """One test image: its class, what the poisoned victim says of it, and what the guard says."""

    name: str
    truth: int
    victim: int
    guarded: int
    triggered: bool
    score: float


@dataclass(frozen=True, eq=False)
class Demonstration:
    """Everything that came out. ``guard``, ``evaluation`` and ``examples`` are absent if no backdoor was found."""

    victim: Victim
    classifier: Classifier
    test: ImageSet
    clean: ScanReport
    poisoned: ScanReport
    guard: Guard | None
    evaluation: Evaluation | None
    examples: tuple[Example, ...]
    seconds: float

    @property
    def right(self) -> bool:
        """Whether the clean victim was called clean, and the poisoned one's target was found."""
        return self.clean.verdict == "clean" and self.poisoned.verdict == "backdoor" and TARGET in self.poisoned.targets


def demonstrate(folder: Path, *, seed: int, device: torch.device, tell: Tell, watch: Watch) -> Demonstration:
    """Train both victims, scan both, repair the poisoned one, measure the guard; write all into ``folder``.

    tell: gets each sentence of the story when it is known; watch: opens a progress display for one stretch of work.
    Raises UntrojanError, above all MissingExtraError if the digits are not installed.
    """
    started = time.perf_counter()
    train_set = load_data("digits?split=train", input_shape=None)
    held_out = load_data("digits?split=test", input_shape=None)
    defence_index, test_index = split_defence(held_out.labels, 0.5, seed=seed)
    defence, test = held_out.select(defence_index), held_out.select(test_index)

    tell(f"1. Two classifiers of handwritten digits learn from {len(train_set):,} images.")
    clean = _victim("none", train_set, test, seed=seed, device=device, watch=watch)
    save_victim(folder / "clean", clean)
    tell(f"   The clean one is right on {_rate(clean.card['acc'])} of new images.")
    victim = _victim("chessboard", train_set, test, seed=seed, device=device, watch=watch)
    save_victim(folder / "poisoned", victim)
    tell(
        f"   The other one learnt {victim.card['poisoned_images']} poisoned images too: it is right on "
        f"{_rate(victim.card['acc'])}, but a faint chessboard makes it answer {TARGET} on "
        f"{_rate(victim.card['asr'])} of the images of other digits."
    )

    tell(f"2. Each is scanned with {len(defence)} clean images; the scan knows nothing of the chessboard.")
    reports = {}
    for name, subject in (("clean", clean), ("poisoned", victim)):
        with watch() as progress:
            report = scan(subject.classifier(), defence.images, defence.labels, seed=seed, progress=progress)
        save_scan(folder / name / "scan", report)
        reports[name] = report
        tell(f"   The {name} one: {_verdict(report)}.")

    classifier = victim.classifier()
    guard, evaluation, examples = None, None, tuple[Example, ...]()
    if reports["poisoned"].verdict == "backdoor":
        tell("3. A guard is made for the poisoned one; the network itself stays as it is.")
        with watch() as progress:
            guard = repair(
                classifier, defence.images, defence.labels, reports["poisoned"], seed=seed, progress=progress
            )
        save_guard(folder / "poisoned" / "guard", guard)
        with watch() as progress:
            evaluation = evaluate(
                classifier,
                test.images,
                test.labels,
                guard=guard,
                trigger=victim.trigger,
                setting=victim.setting,
                seed=seed,
                progress=progress,
            )
        write_bytes(folder / "poisoned" / "evaluation.json", render_json(evaluation).encode())
        tell(_measured(evaluation, len(test)))
        tell("4. One new image, without and with the chessboard, behind the guard:")
        examples = _examples(folder / "examples", guard, victim, test)
        for example in examples:
            tell(f"   {_told(example)}")
    return Demonstration(
        victim=victim,
        classifier=classifier,
        test=test,
        clean=reports["clean"],
        poisoned=reports["poisoned"],
        guard=guard,
        evaluation=evaluation,
        examples=examples,
        seconds=time.perf_counter() - started,
    )


def _victim(
    attack: str, train_set: ImageSet, test: ImageSet, *, seed: int, device: torch.device, watch: Watch
) -> Victim:
    with watch() as progress:
        return make_victim(
            train_set,
            attack=attack,
            setting=None if attack == "none" else Setting("a2o", target=TARGET),
            arch="convnet",
            count=None if attack == "none" else 50,
            training=TrainingSettings(epochs=8, batch_size=64, augmentation="none"),
            device=device,
            seed=seed,
            test=test,
            progress=progress,
        )


def _examples(folder: Path, guard: Guard, victim: Victim, test: ImageSet) -> tuple[Example, ...]:
    """The first image of a class that the trigger moves, plain and triggered; both are written as PNG files."""
    index = int((test.labels != TARGET).nonzero()[0])
    plain = test.images[index : index + 1]
    images = [("plain.png", plain)]
    if victim.trigger is not None:
        stamped = victim.trigger.stamp(plain.float() / 255)
        images.append(("triggered.png", (stamped * 255).round().to(torch.uint8)))
    found = []
    for name, image in images:
        write_bytes(folder / name, _png(image[0, 0]))
        decision = guard(image)
        found.append(
            Example(
                name=name,
                truth=int(test.labels[index]),
                victim=int(decision.suspect_labels),
                guarded=int(decision.labels),
                triggered=bool(decision.triggered),
                score=float(decision.score),
            )
        )
    return tuple(found)


def _png(grey: Tensor) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(grey.numpy()).save(stream, "PNG")
    return stream.getvalue()


def _verdict(report: ScanReport) -> str:
    if report.verdict == "backdoor":
        classes = ", ".join(str(target) for target in report.targets)
        return f"a backdoor to class {classes}, found in {report.cost.seconds:.0f} s"
    return f"{'no backdoor' if report.verdict == 'clean' else 'inconclusive'}, after {report.cost.seconds:.0f} s"


def _measured(evaluation: Evaluation, count: int) -> str:
    before, after = evaluation.before, evaluation.after or After(acc=None)
    return (
        f"   On {count} other images the chessboard succeeds on {_rate(before.asr)} without the guard and on "
        f"{_rate(after.asr)} behind it; {_rate(after.sia)} of the images with it then get "
        f"their true digit. Accuracy on clean images: {_rate(before.acc)} before, {_rate(after.acc)} after."
    )


def _told(example: Example) -> str:
    flag = "flagged" if example.triggered else "not flagged"
    return (
        f"{example.name}: a {example.truth}; the classifier alone says {example.victim}, "
        f"the guard {example.guarded}, {flag}."
    )


def _rate(rate: Rate | dict[str, float] | None) -> str:
    if rate is None:
        return "an unknown share"
    return percent(rate["value"] if isinstance(rate, dict) else rate.value)
