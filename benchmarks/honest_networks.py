r"""What a trigger hides of the images that carry it: how often honest networks still name their class.

    python benchmarks/honest_networks.py --zoo zoo --out benchmarks/records/honest_networks.json --page docs/paper.md

The ceiling of SIA is the victim's accuracy on the images without the trigger. A trigger that covers a part of the
object cannot leave that much to anybody. Networks of the same data set that were never poisoned say how much: they are
shown the images on which ``untrojan bench`` measures, once clean and once with the attacker's trigger.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from methods import PAPERS, group
from page import put
from record import write_record

from untrojan.bench.cell import Cell, cells_of
from untrojan.bench.plan import MethodEntry, Plan
from untrojan.bench.statistics import mean_over_victims
from untrojan.bench.victims import victims_of
from untrojan.bench.work import images_of
from untrojan.classifier import Classifier
from untrojan.loading import load_victim
from untrojan.setting import Setting
from untrojan.triggers import load_trigger
from untrojan.victims.files import TRIGGER
from untrojan.victims.zoo import members

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "benchmarks" / "records"
MEASURES = ["src/untrojan/bench/work.py", "src/untrojan/triggers/base.py"]
BEGIN, END = "<!-- honest networks: benchmarks/honest_networks.py -->", "<!-- end of the honest networks -->"
TEST = 4000
VICTIMS = (
    *(f"cifar10/{attack}-a2o9-s10[0-2]" for attack in (*PAPERS, "blended", "wasserstein")),
    *(f"cifar10/{attack}-a2a-s100" for attack in PAPERS),
    *(f"gtsrb/{attack}-a2o0-s100" for attack in ("badnet", "chessboard", "l0-inv", "l2-inv", "wanet")),
)
CLEAN = "clean-s10*"
"""The honest networks of a victim's data set and half."""


def row(cell: Cell, honest: dict[str, Classifier]) -> dict[str, Any]:
    """One victim's trigger: in percent, of the images that the attacker moves, how many each network gets right."""
    test = images_of(cell).test
    trigger, _ = load_trigger(cell.victim.folder / TRIGGER)
    moved = Setting.parse(str(cell.victim.setting)).target_of(test.labels, len(cell.victim.class_names or ())) >= 0
    labels = test.labels[moved]
    networks = []
    for name, network in honest.items():
        images = network.as_float(test.images[moved])
        right = {
            shown: round(100 * float((network.predict(seen).argmax(1) == labels).float().mean()), 2)
            for shown, seen in (("clean", images), ("triggered", trigger.stamp(images)))
        }
        networks.append({"name": name} | right)
    return {
        "name": cell.victim.name,
        "group": f"{cell.victim.name.partition('/')[0]}/{group(cell.victim.name)}",
        "images": len(labels),
        "networks": networks,
        "lost": round(statistics.mean(one["clean"] - one["triggered"] for one in networks), 2),
    }


def under_the_ceiling() -> dict[str, float]:
    """By victim, or by data set and attack where the record holds means: BNA's SIA under its ceiling, in points."""
    found = {}
    for one in json.loads((RECORDS / "methods.json").read_text(encoding="utf-8"))["results"]["cells"]:
        if one["method"] == "bna":
            found[one["victim"]] = _apart(one["rates"]["before"]["sia_ceiling"], one["rates"]["sia"])
    for one in json.loads((RECORDS / "table3.json").read_text(encoding="utf-8"))["results"]["table"]["entries"]:
        if one["row"] == ["bna"] and one["rates"]["sia"]:
            found["/".join(one["column"])] = _apart(one["rates"]["sia_ceiling"], one["rates"]["sia"])
    return found


def _apart(ceiling: dict[str, float], reached: dict[str, float]) -> float:
    return 100 * (ceiling["value"] - reached["value"])


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each attack: its victims, what its triggers cost honest networks, and what BNA lacks beside that."""
    missed = under_the_ceiling()
    made = [
        "| attack | victims | honest networks lose | BNA is under the ceiling by | the difference |",
        "|---" * 5 + "|",
    ]
    groups = {name: [one for one in rows if one["group"] == name] for name in dict.fromkeys(o["group"] for o in rows)}
    for setting, name in (("a2o9", "all-to-one"), ("a2a", "all-to-all")):
        groups[f"*the paper's, {name}*"] = [
            one for one in rows if one["group"] in {f"cifar10/{attack}-{setting}" for attack in PAPERS}
        ]
    for name, own in groups.items():
        lost = {one["name"]: one["lost"] for one in own}
        lacking = {one["name"]: missed[_key(one)] for one in own if _key(one) in missed}
        beyond = {victim: points - lost[victim] for victim, points in lacking.items()}
        cells = [_interval(values) for values in (lost, lacking, beyond)]
        made.append(f"| {name} | {len(own)} | {' | '.join(cells)} |")
    return "\n".join(made)


def _key(one: dict[str, Any]) -> str:
    """Of ``under_the_ceiling``."""
    name: str = one["name"]
    return "/".join(one["group"].split("-a2")[:1]) if name.startswith("gtsrb/") else name


def _interval(values: dict[str, float]) -> str:
    """The mean over victims with its 95 % interval."""
    mean = mean_over_victims({name: [value] for name, value in values.items()}, bounds=None)
    if mean is None:
        return "–"
    return f"{mean.value:.1f}" + ("" if mean.low is None else f" [{mean.low:.1f}, {mean.high:.1f}]")


def main() -> None:
    """Measure, record, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--victims", nargs="+", default=VICTIMS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    plan = Plan(
        victims=tuple(given.victims),
        settings={"defence": 0.1, "test_limit": TEST},
        method=(MethodEntry(name="none"),),
    )
    honest: dict[str, dict[str, Classifier]] = {}
    rows = []
    for cell in cells_of(plan, victims_of(plan, given.zoo)):
        data = cell.victim.name.partition("/")[0]
        if data not in honest:
            honest[data] = {one.name: load_victim(one.folder) for one in members(given.zoo, f"{data}/{CLEAN}")}
        rows.append(row(cell, honest[data]))
        print(rows[-1]["name"], rows[-1]["lost"], flush=True)
    write_record(given.out, name=given.out.stem, script=__file__, seed=0, results={"victims": rows}, measures=MEASURES)
    if given.page:
        put(given.page, BEGIN, END, table(rows))


if __name__ == "__main__":
    main()
