"""Train and search the networks of the reference set: ``python benchmarks/reference_set.py make --work FOLDER``.

Each network of ``lottery.py`` is trained on the train split, measured and searched on images of the test split, and
left as a card and its search tables in ``--work``; weights are not kept, since the lot makes them again. A run that was
interrupted goes on: a network whose card is there or packed is not made again, unless its lot has changed since.
``pack`` puts cards and tables into two files of ``benchmarks/reference``, which are committed; the tables are of raw
searches and know no verdict.

Some clean networks are searched once more with wrong preprocessing, as a user may feed one by mistake (``fed``).
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from lottery import GROUPS, STATISTICS, draw
from record import commit

from untrojan.classifier import Classifier
from untrojan.classifier.folding import folded
from untrojan.classifier.state import as_found
from untrojan.data import ImageSet, load_data
from untrojan.detection.describe import describe
from untrojan.detection.plan import SearchPlan
from untrojan.detection.search import search
from untrojan.detection.shares import Searches
from untrojan.detection.table import SearchTable
from untrojan.detection.table_files import read_tables, write_tables
from untrojan.errors import UntrojanError
from untrojan.processes import Pool
from untrojan.progress import Silent
from untrojan.setting import Setting
from untrojan.verdict import doubts
from untrojan.victims.making import Victim
from untrojan.victims.recipe import Recipe, make, splits

ROOT = Path(__file__).resolve().parent
PACKED = ROOT / "reference"
MISFED = 0.25
"""Share of the clean networks that are searched with wrong preprocessing as well."""


def images_for(recipe: Recipe, classes: int, seed: int, few: bool) -> ImageSet:
    """The clean images of a scan: a few hundred of the test split."""
    shape = tuple(map(int, str(recipe.input).split("x")))
    limit = max(200 if few else 500, 10 * classes)
    where = splits(recipe)[1] or recipe.dataset
    return load_data(where, input_shape=(shape[0], shape[1], shape[2]), limit=limit, seed=seed)


def table_of(classifier: Classifier, images: ImageSet, seed: int) -> tuple[SearchTable | None, str | None]:
    """What the searches find, or why none can be made."""
    floats = images.images.float() / 255
    with as_found(classifier):
        doubt, known, answers = doubts(classifier, floats, images.labels, fewest=2)
        if doubt is not None:
            return None, doubt
        classes = int(classifier.predict(floats[:2]).shape[1])
        network = describe(classifier, floats, images.labels, classes, seed)
        searches = Searches(classifier, seed=seed, progress=Silent())
        with folded(classifier, floats):
            made = search(searches, network, floats[known], images.labels[known], answers[known], SearchPlan())
    return made.table, None


def wrongly_fed(
    victim: Victim, recipe: Recipe, images: ImageSet, lot: random.Random
) -> tuple[str, Classifier, ImageSet]:
    """One of the mistakes that a user can make with this network, the classifier and the images as they then are."""
    own, channels = victim.card["mean"], images.images.shape[1]
    dataset = recipe.dataset.partition("?")[0]
    mean, std = STATISTICS[dataset]
    ways: dict[str, tuple[Sequence[float] | None, Sequence[float] | None]] = {
        "no normalisation": (None, None),
        "normalised to -1..1": ([0.5], [0.5]),
        "normalised by statistics": (
            mean[:channels] if channels == len(mean) else mean[:1],
            std[:channels] if channels == len(std) else std[:1],
        ),
        "values of 0..255": ([0.0], [1 / 255]),
    }
    right = (
        "no normalisation" if own is None else "normalised to -1..1" if own[0] == 0.5 else "normalised by statistics"
    )
    names = [name for name in ways if name != right] + (["channels in reverse"] if channels == 3 else [])
    name = lot.choice([*names, "another size"])
    if name in ways:
        return name, Classifier(victim.module, mean=ways[name][0], std=ways[name][1]), images
    pixels = images.images
    if name == "channels in reverse":
        pixels = pixels.flip(1)
    else:  # seen at another size before it came to this one
        small = torch.nn.functional.interpolate(pixels.float(), scale_factor=0.5, mode="area")
        pixels = torch.nn.functional.interpolate(small, pixels.shape[2:], mode="nearest").round().to(torch.uint8)
    return name, victim.classifier(), ImageSet(pixels, images.labels, images.class_names, images.where)


def one(task: tuple[str, int, str]) -> str:
    """Train, search and leave one network's card and tables; a line for the log."""
    group, number, work = task
    torch.set_num_threads(1)
    family, recipe = draw(group, number)
    started = time.perf_counter()
    lot = random.Random(f"scan {group} {number}")
    card: dict[str, Any] = {
        "name": recipe.name,
        "group": group,
        "family": family,
        "recipe": recipe.model_dump(),
        "commit": commit(),
        "failed": None,
    }
    tables: list[SearchTable] = []
    scans: list[dict[str, Any]] = []
    try:
        victim = make(recipe, device=torch.device("cpu"), watch=False)
        trained = time.perf_counter()
        classes = len(victim.card["class_names"])
        images = images_for(recipe, classes, number, lot.random() < 0.2)
        fed = [("right", victim.classifier(), images)]
        if not GROUPS[group].attacked and lot.random() < MISFED:
            fed.append(wrongly_fed(victim, recipe, images, lot))
        for name, classifier, shown in fed:
            begun = time.perf_counter()
            table, doubt = table_of(classifier, shown, number)
            scans.append(
                {
                    "fed": name,
                    "images": len(shown),
                    "doubt": doubt,
                    "table": None if table is None else len(tables),
                    "seconds": round(time.perf_counter() - begun, 1),
                }
            )
            tables += [] if table is None else [table]
        card |= described(victim, recipe, classes) | {"train_seconds": round(trained - started, 1)}
    except UntrojanError as error:
        card["failed"] = str(error)
    card["scans"] = scans
    write_tables(Path(work) / f"{recipe.name}.parquet", tables)
    (Path(work) / f"{recipe.name}.json").write_text(json.dumps(card))
    rates = " ".join(f"{name} {card[name]:.2f}" for name in ("acc", "asr") if card.get(name) is not None)
    spent = f"{card.get('train_seconds', 0):.0f} + {sum(s['seconds'] for s in scans):.0f} s"
    return (
        f"{recipe.name} {family} {recipe.dataset[:40]} {recipe.input} {recipe.attack} {recipe.setting} {rates} {spent}"
    )


def described(victim: Victim, recipe: Recipe, classes: int) -> dict[str, Any]:
    """What of a victim's card stands beside its tables."""
    rates = {
        name: victim.card[name]["value"] if victim.card.get(name) else None for name in ("acc", "asr", "asr_floor")
    }
    pairs: Sequence[tuple[int, int]] = ()
    if recipe.setting is not None:
        pairs = Setting.parse(recipe.setting).pairs(classes)
    return rates | {
        "classes": classes,
        "task": recipe.dataset.partition("?")[0],
        "attack": recipe.attack,
        "setting": recipe.setting,
        "targets": sorted({target for _, target in pairs}),
        "model": victim.card["model"],
    }


def waiting(work: Path, count: int, groups: Sequence[str] = tuple(GROUPS)) -> Iterator[tuple[str, int, str]]:
    """The networks whose card is neither in ``work`` nor packed yet, of all groups in turn."""
    known = {card["name"] for card in [*packed_cards(), *cards_of(work)]}
    for number in range(count):
        for group in groups:
            if f"{group}-{number:04d}" not in known:
                yield group, number, str(work)


def drawn(card: dict[str, Any]) -> bool:
    """Whether a card is of a network as the lottery draws it now, or of a victim of the zoo."""
    if card["group"] not in GROUPS:
        return True
    family, recipe = draw(card["group"], int(card["name"].rpartition("-")[2]))
    return bool(card["family"] == family and Recipe(**card["recipe"]) == recipe)


def cards_of(work: Path) -> list[dict[str, Any]]:
    """The cards in a folder, those of the lottery as it is now."""
    return [card for path in sorted(work.glob("*.json")) if drawn(card := json.loads(path.read_text()))]


def run(work: Path, count: int, jobs: int, groups: Sequence[str] = tuple(GROUPS)) -> None:
    """Make what is waiting."""
    work.mkdir(parents=True, exist_ok=True)
    pool: Pool[tuple[str, int, str], str] = Pool(one, jobs=jobs, threads=1)
    with closing(pool):
        for ended in pool.each(waiting(work, count, groups)):
            print(ended.result or f"{ended.task[:2]}: {ended.died}", flush=True)


def pack(work: Path) -> None:
    """All cards and tables of ``work``, and those that are packed already, into two files."""
    cards: list[dict[str, Any]] = []
    tables: list[SearchTable] = []
    before, kept = packed()
    known = {card["name"] for card in before}
    found = [(card, kept) for card in before]
    for card in cards_of(work):
        if card["name"] not in known and card["failed"] is None:
            found.append((card, read_tables(work / f"{card['name']}.parquet")))
    for card, source in found:
        for scan in card["scans"]:
            if scan["table"] is not None:
                tables.append(source[scan["table"]])
                scan["table"] = len(tables) - 1
        cards.append(card)
    PACKED.mkdir(exist_ok=True)
    write_tables(PACKED / "tables.parquet", tables)
    lines = ",\n".join(json.dumps(card, sort_keys=True) for card in cards)
    (PACKED / "cards.json").write_text(f"[\n{lines}\n]\n")
    print(f"{len(cards)} networks, {len(tables)} tables, {(PACKED / 'tables.parquet').stat().st_size / 1e6:.1f} MB")


def packed_cards() -> list[dict[str, Any]]:
    """The committed cards, those of the lottery as it is now."""
    path = PACKED / "cards.json"
    return [card for card in json.loads(path.read_text()) if drawn(card)] if path.is_file() else []


def packed() -> tuple[list[dict[str, Any]], list[SearchTable]]:
    """The committed cards, and the tables that their ``scans`` number."""
    cards = packed_cards()
    return cards, read_tables(PACKED / "tables.parquet") if cards else []


def main(arguments: Sequence[str] | None = None) -> None:
    """Make or pack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("do", choices=["make", "pack"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--count", type=int, default=400, help="networks of each group")
    parser.add_argument("--groups", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    if options.do == "make":
        run(options.work, options.count, options.jobs, options.groups)
    else:
        pack(options.work)


if __name__ == "__main__":
    main()
