"""The work itself: scan a victim, make it safe by a method, measure. Ground truth enters in the measuring alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from untrojan.bench.cell import Cell, CellCost, CellImages, CellRecord, described, write_record
from untrojan.bench.machine import commit, this_machine, versions
from untrojan.bench.methods import Given, Shield
from untrojan.classifier import Classifier
from untrojan.data import ImageSet, balanced_sample, load_data, split_defence
from untrojan.detection.plan import ScanSettings
from untrojan.detection.surrogates import SurrogateSettings
from untrojan.errors import CheckpointError, DataError, InconclusiveError, UntrojanError, UsageError
from untrojan.evaluation.evaluate import evaluate
from untrojan.intervals import wilson
from untrojan.loading import load_victim
from untrojan.pipeline import scan
from untrojan.records import After, Cost, Evaluation, Rate, ScanReport
from untrojan.scan_files import load_scan, save_scan
from untrojan.scan_state import ScanState, scan_key
from untrojan.setting import Setting
from untrojan.stand_ins import StandIns
from untrojan.storage import read_text, write_bytes
from untrojan.triggers import load_trigger
from untrojan.victims.files import TRIGGER

SCANS, STATE = "scans", "bench.json"


@dataclass(frozen=True)
class Images:
    """A victim's test split in its parts, of which no image is in two."""

    defence: ImageSet
    scan: ImageSet
    test: ImageSet
    left_out: int


def scan_cell(cell: Cell, out: Path, device: str) -> None:
    """Scan a cell's victim into ``scans/KEY``, or go on with that; nothing is done if it is there and still fits.

    Beside the scan, ``bench.json`` says what it is of, and whether it ran through in one go: only then its cost is all
    that it cost.
    """
    classifier, images = load_victim(cell.victim.folder, device=device), images_of(cell).scan
    folder = scan_folder(cell, out)
    key = scan_key(classifier.sha256(), images.hashes(), images.labels, cell.seed, ScanSettings())
    if _state(folder).get("key") == key and _scan(folder) is not None:
        return
    try:
        store = ScanState(folder, key, resume=True)
    except UsageError:  # the images are others than they were
        store = ScanState(folder, key, resume=False)
    report = scan(classifier, images.images, images.labels, seed=cell.seed, store=store)
    save_scan(folder, report)
    write_bytes(folder / STATE, json.dumps({"key": key, "whole": not store.resumed}).encode())
    store.remove()


def scan_folder(cell: Cell, out: Path) -> Path:
    """Where a cell's scan is, which it shares with others."""
    return out / SCANS / cell.scan_key


def measure_cell(cell: Cell, out: Path, device: str) -> CellRecord:
    """Measure a cell whose scan is there, if it needs one, and write its record. Raises whatever goes wrong."""
    classifier, images = load_victim(cell.victim.folder, device=device), images_of(cell)
    report = None
    if cell.method.needs_scan:
        report = load_scan(scan_folder(cell, out))
    shield, cost, reason = _shield(cell, classifier, images, report)
    result = _measured(cell, classifier, images, shield)
    if cell.method.needs_scan and shield is None:
        result = without_guard(result)
    whole = report is not None and _state(scan_folder(cell, out)).get("whole") is True
    record = CellRecord(
        status="done",
        reason=reason,
        victim_sha256=classifier.sha256(),
        verdict=None if report is None else report.verdict,
        targets=() if report is None else report.targets,
        found=None if report is None else report.verdict == "backdoor",
        guarded=shield is not None,
        images=CellImages(
            defence=len(images.defence),
            scan=None if report is None else len(images.scan),
            test=len(images.test),
            left_out=images.left_out,
        ),
        evaluation=result,
        cost=CellCost(scan=report.cost if report is not None and whole else None, repair=cost, evaluate=result.cost),
        machine=this_machine(),
        versions=versions(),
        commit=commit(),
        **described(cell),
    )
    write_record(out, record)
    return record


def images_of(cell: Cell) -> Images:
    """The parts of the victim's test split, drawn by the cell's seed alone, so that all methods have the same."""
    whole, hashes = _whole(cell.data, cell.victim.shape, cell.victim.class_names)
    asked = cell.settings.defence
    share = asked if isinstance(asked, float) else asked / len(whole)
    if not 0 < share < 1:
        raise DataError(f"{whole.where}: the defence is to get {asked} images, and there are {len(whole)}; take fewer")
    mine, rest = split_defence(whole.labels, share, seed=cell.seed)
    defence = whole.select(mine)
    # A set may hold an image twice: what the defence has seen is no test.
    seen = {hashes[index] for index in mine.tolist()}
    new = rest[[hashes[index] not in seen for index in rest.tolist()]]
    test = whole.select(new)
    if len(test) == 0:
        raise DataError(f"{whole.where}: the defence has seen all images; leave some to measure on")
    classes = len(cell.victim.class_names or defence.classes_present())
    limit = cell.settings.scan_images or max(500, 10 * classes)
    few = defence.select(balanced_sample(defence.labels, limit, cell.seed))
    if cell.test_limit is not None:
        test = test.select(balanced_sample(test.labels, cell.test_limit, cell.seed))
    return Images(defence, few, test, len(rest) - len(new))


@lru_cache(maxsize=2)
def _whole(spec: str, shape: tuple[int, int, int], names: tuple[str, ...] | None) -> tuple[ImageSet, tuple[str, ...]]:
    """Decoded and hashed once for all cells of a process that use the same images."""
    images = load_data(spec, input_shape=shape, class_names=names)
    return images, images.hashes()


@lru_cache(maxsize=1)
def _stand_ins(scan_key: str) -> dict[SurrogateSettings, StandIns]:
    """What the cells of one scan share, to be filled by them; a process has its cells victim by victim."""
    return {}


def _shield(
    cell: Cell, classifier: Classifier, images: Images, report: ScanReport | None
) -> tuple[Shield | None, Cost | None, str | None]:
    """What the method makes, its cost, and why it made nothing."""
    if report is not None and report.verdict != "backdoor":
        return None, None, f"not found: the scan says {report.verdict} ({report.reason})"
    known = {} if report is None else _stand_ins(cell.scan_key)
    given = Given(classifier, images.defence.images, images.defence.labels, report, cell.seed, known)
    try:
        shield, cost = cell.method.guard(given)
    except InconclusiveError as error:
        # What a user would be told, who is then left with the victim: an outcome, no failure of the measurement.
        return None, None, f"no guard: {error}"
    return shield, cost, None


def _measured(cell: Cell, classifier: Classifier, images: Images, shield: Shield | None) -> Evaluation:
    """The rates on images that the defence has not seen, with the true trigger."""
    trigger, setting = None, None
    if cell.victim.setting is not None:
        trigger, _ = load_trigger(cell.victim.folder / TRIGGER)
        setting = Setting.parse(cell.victim.setting)
    return evaluate(
        classifier,
        images.test.images,
        images.test.labels,
        guard=shield,
        trigger=trigger,
        setting=setting,
        left_out=images.left_out,
        seed=cell.seed,
    )


def without_guard(result: Evaluation) -> Evaluation:
    """The rates of a victim that got no guard: after as before, and nothing flagged."""
    before, counts = result.before, result.counts

    def none_of(count: int | None) -> Rate | None:
        return None if count is None else wilson(0, count)

    after = After(
        acc=before.acc,
        asr=before.asr,
        sia=before.sia,
        tpr=none_of(counts.triggered),
        tpr_of_successful=none_of(counts.successful),
        fpr=none_of(counts.target_clean),
        fpr_all=none_of(counts.clean),
    )
    return result.model_copy(update={"after": after})


def _state(folder: Path) -> dict[str, object]:
    """What ``bench.json`` says; nothing if it cannot be read."""
    try:
        found = json.loads(read_text(folder / STATE))
    except (CheckpointError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _scan(folder: Path) -> ScanReport | None:
    try:
        return load_scan(folder)
    except UntrojanError:
        return None
