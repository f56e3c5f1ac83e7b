r"""What a guard does on the zoo's attacked victims, beside STRIP: ``python benchmarks/repairs.py --zoo zoo ...``.

    python benchmarks/repairs.py --zoo zoo --half reporting --only 'cifar10/*-a2o9-s100' --work FOLDER --out RECORD \
        [--page docs/repair.md]

Scan, repair and evaluate as a user would; the true trigger enters in the evaluation alone. STRIP has its paper's 64
overlays and its threshold at 15 % on the same defence images. A victim that the scan calls clean gets no guard, and its
row says so.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from page import put
from record import write_record

from detection import images_for, selected
from untrojan.data import load_data
from untrojan.data.images import image_hashes
from untrojan.detection.scanner import ScanSettings
from untrojan.evaluation.evaluate import evaluate
from untrojan.guard import Strip
from untrojan.loading import load_victim
from untrojan.pipeline import repair, scan
from untrojan.records import Evaluation
from untrojan.scan_state import ScanState, scan_key
from untrojan.setting import Setting
from untrojan.triggers import load_trigger
from untrojan.victims.files import WEIGHTS
from untrojan.victims.recipe import splits
from untrojan.victims.zoo import Member

ROOT = Path(__file__).resolve().parent.parent
MEASURES = [
    *(f"src/untrojan/detection/{name}.py" for name in ("scanner", "pairs", "evidence", "surrogates")),
    *(f"src/untrojan/{name}.py" for name in ("correction/bna", "guard/guard", "guard/strip", "evaluation/evaluate")),
]
BEGIN, END = "<!-- repairs: benchmarks/repairs.py -->", "<!-- end of the repairs -->"
DEFENCE, TESTED, STRIPPED = 1000, 4000, 1000
"""Clean images for the guard, test images for the guard, and of these for STRIP, which costs 65 passes of each."""


def rates(result: Evaluation) -> dict[str, Any]:
    """Every rate with its interval, before and after."""
    return json.loads(result.model_dump_json(include={"before", "after", "counts", "cost"}))


def row(member: Member, work: Path, seed: int) -> dict[str, Any]:
    """One victim: the scan's verdict, and what guard and STRIP do."""
    classifier = load_victim(member.folder)
    shape = tuple(member.card["input_shape"])
    where = str(splits(member.recipe)[1] or member.recipe.dataset)
    few = load_data(where, input_shape=shape, limit=images_for(len(member.card["class_names"])), seed=seed)
    key = scan_key(classifier.sha256(), few.hashes(), few.labels, seed, ScanSettings())
    folder = work / hashlib.sha256(f"{member.name} {seed}".encode()).hexdigest()[:16]
    report = scan(classifier, few.images, few.labels, seed=seed, store=ScanState(folder, key, resume=folder.exists()))
    made = {"name": member.name, "attack": member.card["attack"], "verdict": report.verdict, "targets": report.targets}
    if report.verdict != "backdoor":
        return made
    defence = load_data(where, input_shape=shape, limit=DEFENCE, seed=seed)
    guard = repair(classifier, defence.images, defence.labels, report, seed=seed)
    cost = guard.require_card().cost
    test = load_data(where, input_shape=shape, limit=TESTED + DEFENCE, seed=seed + 1)
    known = set(image_hashes(defence.images)) | set(few.hashes())
    new = torch.tensor([h not in known for h in test.hashes()])
    images, labels = test.images[new][:TESTED], test.labels[new][:TESTED]
    trigger, _ = load_trigger(member.folder / "trigger.safetensors")
    truth = {"trigger": trigger, "setting": Setting.parse(member.card["setting"]), "seed": seed}
    strip = Strip(classifier, defence.images, seed=seed)
    return made | {
        "repair": {"seconds": round(cost.seconds, 1), "images_forward_backward": cost.images_forward_backward},
        "guard": rates(evaluate(classifier, images, labels, guard=guard, **truth)),
        "strip": rates(evaluate(classifier, images[:STRIPPED], labels[:STRIPPED], guard=strip, **truth)),
    }


def percent(rate: dict[str, float] | None) -> str:
    """A rate in percent."""
    return "–" if rate is None else f"{100 * rate['value']:.1f}"


def table(rows: list[dict[str, Any]]) -> str:
    """A line for each victim."""
    made = [
        "| victim | targets found | ACC | ASR (floor) | SIA (ceiling) | TPR of successful, FPR | STRIP's TPR, FPR | "
        "images forward + backward |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        if "guard" not in one:
            made.append(f"| {one['name']} | {one['verdict']} | – | – | – | – | – | – |")
            continue
        before, after, strip = one["guard"]["before"], one["guard"]["after"], one["strip"]["after"]
        cells = (
            one["name"],
            ", ".join(map(str, one["targets"])),
            f"{percent(before['acc'])} → {percent(after['acc'])}",
            f"{percent(before['asr'])} → {percent(after['asr'])} ({percent(before['asr_floor'])})",
            f"{percent(before['sia'])} → {percent(after['sia'])} ({percent(before['sia_ceiling'])})",
            f"{percent(after['tpr_of_successful'])}, {percent(after['fpr'])}",
            f"{percent(strip['tpr_of_successful'])}, {percent(strip['fpr'])}",
            f"{one['repair']['images_forward_backward']:,}",
        )
        made.append(f"| {' | '.join(cells)} |")
    return "\n".join(made)


def main() -> None:
    """Measure and record; a row that is done is kept in ``--work``, so that an interrupted run goes on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--plan", type=Path, default=ROOT / "zoo" / "plan.toml")
    parser.add_argument("--half", choices=["calibration", "reporting"], required=True)
    parser.add_argument("--only", nargs="+", required=True, help="patterns of names")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    program = "".join(hashlib.sha256((ROOT / file).read_bytes()).hexdigest() for file in MEASURES)
    rows = []
    for member in selected(given.zoo, given.plan, given.half, given.only):
        key = f"{program} {member.name} {given.seed}".encode() + (member.folder / WEIGHTS).read_bytes()
        kept = given.work / f"repair-{hashlib.sha256(key).hexdigest()[:16]}.json"
        if not kept.is_file():
            kept.write_text(json.dumps(row(member, given.work, given.seed)))
        rows.append(json.loads(kept.read_text()))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    results = {"half": given.half, "victims": rows}
    write_record(given.out, name=given.out.stem, script=__file__, seed=given.seed, results=results, measures=MEASURES)
    if given.page:
        put(given.page, BEGIN, END, table(rows))


if __name__ == "__main__":
    main()
