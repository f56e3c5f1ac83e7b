"""Search the zoo's victims: ``python benchmarks/zoo_tables.py --half calibration --only 'cifar10/*' --work FOLDER``.

Their cards and search tables lie beside those of the lottery in ``--work``, and ``reference_set.py pack`` packs both.
Those of the calibration half join the reference set, as one family: they are larger networks, trained for minutes on
all images of a task. Those of the reporting half are only ever judged. An interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from halves import images_for, selected
from record import commit
from reference_set import packed_cards, table_of

from untrojan.data import load_data
from untrojan.detection.table_files import write_tables
from untrojan.loading import load_victim
from untrojan.processes import Pool
from untrojan.setting import Setting
from untrojan.victims.recipe import splits
from untrojan.victims.zoo import Member

ROOT = Path(__file__).resolve().parent.parent
FAMILY = "zoo"


def one(task: tuple[Member, str, str]) -> str:
    """Search one victim, and leave its card and table; a line for the log."""
    member, half, work = task
    torch.set_num_threads(1)
    begun = time.perf_counter()
    classifier = load_victim(member.folder)
    recipe, card = member.recipe, member.card
    classes, shape = len(card["class_names"]), card["input_shape"]
    where = splits(recipe)[1] or recipe.dataset
    images = load_data(where, input_shape=tuple(shape), limit=images_for(classes), seed=recipe.seed)
    table, doubt = table_of(classifier, images, recipe.seed)
    seconds = round(time.perf_counter() - begun, 1)
    scan = {
        "fed": "right",
        "images": len(images),
        "doubt": doubt,
        "table": None if table is None else 0,
        "seconds": seconds,
    }
    name = named(member)
    made = summary(member, half) | {"name": name, "commit": commit(), "failed": None, "scans": [scan]}
    write_tables(Path(work) / f"{name}.parquet", [] if table is None else [table])
    (Path(work) / f"{name}.json").write_text(json.dumps(made))
    return f"{name} {made['asr']} {seconds:.0f} s"


def named(member: Member) -> str:
    """The victim's name as one of a file."""
    return "zoo-" + member.name.replace("/", "-")


def summary(member: Member, half: str) -> dict[str, Any]:
    """What of a victim's card stands beside its table, as on a card of the lottery."""
    card, recipe = member.card, member.recipe
    classes = len(card["class_names"])
    pairs = [] if recipe.setting is None else Setting.parse(recipe.setting).pairs(classes)
    return {name: card[name]["value"] if card.get(name) else None for name in ("acc", "asr", "asr_floor")} | {
        "group": f"zoo-{half}",
        "family": FAMILY,
        "recipe": recipe.model_dump(),
        "classes": classes,
        "task": recipe.dataset.partition("?")[0],
        "attack": recipe.attack,
        "setting": recipe.setting,
        "targets": sorted({target for _, target in pairs}),
        "model": card["model"],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Search what matches and is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", type=Path, default=ROOT / "zoo")
    parser.add_argument("--half", choices=["calibration", "reporting"], required=True)
    parser.add_argument("--only", nargs="+", default=["*"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    known = {card["name"] for card in packed_cards()} | {path.stem for path in options.work.glob("*.json")}
    found = selected(options.zoo, options.zoo / "plan.toml", options.half, options.only)
    waiting = [(m, options.half, str(options.work)) for m in found if named(m) not in known]
    pool: Pool[tuple[Member, str, str], str] = Pool(one, jobs=options.jobs, threads=1)
    with closing(pool):
        for ended in pool.each(iter(waiting)):
            print(ended.result or f"{ended.task[0].name}: {ended.died}", flush=True)


if __name__ == "__main__":
    main()
