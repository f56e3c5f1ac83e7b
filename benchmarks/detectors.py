"""The scan beside other papers' detectors, on the same victims and images in one run.

    python benchmarks/detectors.py --zoo zoo --half reporting --only PATTERN --out benchmarks/records/detectors.json

Neural Cleanse and MM-BD have the thresholds of their papers, the scan its own; the cards are read after the verdicts.
Images are counted by a hook at the classifier.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from halves import images_for, selected
from record import write_record

from untrojan.classifier import Classifier
from untrojan.classifier.cost import CostMeter
from untrojan.data import load_data
from untrojan.detection.detectors import Detection, detectors
from untrojan.loading import load_victim
from untrojan.pipeline import scan
from untrojan.setting import Setting
from untrojan.victims.recipe import splits
from untrojan.victims.zoo import Member

ROOT = Path(__file__).resolve().parent.parent
MEASURES = [
    f"src/untrojan/detection/{name}.py"
    for name in ("plan", "search", "features", "score", "judge", "inversion", "margins", "neural_cleanse", "max_margin")
]


def scanned(classifier: Classifier, images: torch.Tensor, labels: torch.Tensor, seed: int) -> Detection:
    """The scan's answer in the words of the others."""
    report = scan(classifier, images, labels, seed=seed)
    p_value = 1.0 if report.p_value is None else report.p_value
    return Detection((), -math.log(max(p_value, 1e-300)), report.verdict == "backdoor", report.targets)


def measured(member: Member, methods: dict[str, Callable[..., Detection]], seed: int) -> dict[str, Any]:
    """What each detector says of one victim, and what it spent."""
    classifier = load_victim(member.folder)
    shape = member.card["input_shape"]
    data = splits(member.recipe)[1] or member.recipe.dataset
    limit = images_for(len(member.card["class_names"] or range(10)))
    loaded = load_data(data, input_shape=(shape[0], shape[1], shape[2]), limit=limit, seed=seed)
    answers: dict[str, Any] = {}
    for name, method in methods.items():
        images = loaded.images if name == "untrojan" else classifier.as_float(loaded.images)
        with CostMeter(classifier) as meter:
            found = method(classifier, images, loaded.labels, seed)
        cost = meter.cost()
        answers[name] = {
            "flagged": found.flagged,
            "targets": list(found.targets),
            "score": found.score,
            "seconds": round(cost.seconds, 1),
            "images_forward": cost.images_forward,
            "images_forward_backward": cost.images_forward_backward,
        }
    card = member.card
    attacked = card["attack"] not in (None, "none")
    pairs = Setting.parse(card["setting"]).pairs(len(card["class_names"] or range(10))) if attacked else []
    return {
        "name": member.name,
        "attack": card["attack"],
        "setting": card["setting"],
        "asr": card["asr"]["value"] if attacked else None,
        "true_targets": sorted({target for _, target in pairs}),
        "answers": answers,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all detectors on what is asked for and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, default=ROOT / "zoo")
    parser.add_argument("--plan", type=Path, default=ROOT / "zoo" / "plan.toml")
    parser.add_argument("--half", choices=["calibration", "reporting"], required=True)
    parser.add_argument("--only", nargs="+", default=["*"], help="patterns of names")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    chosen = selected(options.zoo, options.plan, options.half, options.only)
    methods = {"untrojan": scanned, **detectors()}
    rows = []
    for member in chosen:
        rows.append(measured(member, methods, options.seed))
        print(rows[-1]["name"], {n: (a["flagged"], a["targets"]) for n, a in rows[-1]["answers"].items()}, flush=True)
    write_record(
        options.out,
        name=options.out.stem,
        script=__file__,
        seed=options.seed,
        results={"half": options.half, "victims": rows},
        measures=MEASURES,
    )


if __name__ == "__main__":
    main()
