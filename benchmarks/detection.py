"""Scan the zoo and record every verdict: ``python benchmarks/detection.py --zoo zoo --half calibration``.

Each victim is scanned on images of its test split alone, as a user would scan it; its card is read after the verdict.
Searches are kept in ``--work`` as they come, so that an interrupted run goes on. One record per half is committed. With
``--keep`` what the record at ``--out`` says of other victims stays in it, if they are those of the cards beside the
plan; each row names the commit of the program that scanned.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import multiprocessing
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from record import commit, kept, write_record

from untrojan.data import load_data
from untrojan.detection.evidence import EVEN, TOGETHER, usual_candidates
from untrojan.detection.scanner import ScanSettings
from untrojan.errors import UsageError
from untrojan.loading import load_victim
from untrojan.pipeline import scan
from untrojan.records import ScanReport
from untrojan.scan_state import FOLDER, ScanState, scan_key
from untrojan.setting import Setting
from untrojan.victims.plan import read_plan
from untrojan.victims.recipe import splits
from untrojan.victims.zoo import Member, members

ROOT = Path(__file__).resolve().parent.parent
MEASURES = [
    f"src/untrojan/detection/{name}.py"
    for name in (
        "scanner",
        "targets",
        "pairs",
        "probes",
        "mapping",
        "comparisons",
        "pair_values",
        "evidence",
        "following",
        "inversion",
        "shares",
        "margins",
        "spill",
        "foreign",
    )
]


COST = ("seconds", "images_forward", "images_forward_backward")


def halves(plan: Path) -> dict[str, str]:
    """Name of each victim of the plan to its half."""
    return {str(recipe.name): str(recipe.part) for recipe in read_plan(plan)}


def selected(zoo: Path, plan: Path, half: str, patterns: Sequence[str]) -> list[Member]:
    """The victims of a half that match, and that have their weights, by name."""
    half_of = halves(plan)
    wanted = {m.name: m for pattern in patterns for m in members(zoo, pattern)}
    return [m for _, m in sorted(wanted.items()) if m.whole and half_of.get(m.name) == half]


def images_for(classes: int) -> int:
    """How many clean images a scan gets: a few hundred, more where there are many classes."""
    return max(500, 10 * classes)


def row(member: Member, folder: Path, seed: int, settings: ScanSettings) -> dict[str, Any]:
    """One victim's verdict beside the truth."""
    classifier = load_victim(member.folder)
    shape = member.card["input_shape"]
    data = splits(member.recipe)[1] or member.recipe.dataset
    limit = images_for(len(member.card["class_names"] or range(10)))
    images = load_data(data, input_shape=(shape[0], shape[1], shape[2]), limit=limit, seed=seed)
    key = scan_key(classifier.sha256(), images.hashes(), images.labels, seed, settings)
    own = folder / hashlib.sha256(f"{member.name} {seed}".encode()).hexdigest()[:16]
    begun = any((own / FOLDER).glob("*.safetensors"))
    try:
        state = ScanState(own, key, resume=True)
    except UsageError:  # the victim was trained anew, or the settings are others
        begun, state = False, ScanState(own, key, resume=False)
    made = describe(member, scan(classifier, images.images, images.labels, seed=seed, settings=settings, store=state))
    # What is kept is not searched again, so the cost is that of the first time; unknown if that was another program.
    first = own / f"cost-{_program()}-{key[:16]}.json"
    if not first.is_file():
        first.write_text(json.dumps({name: None if begun else made[name] for name in COST}))
    return made | json.loads(first.read_text()) | {"commit": commit()}


def _program() -> str:
    """What tells versions of the scan apart."""
    return hashlib.sha256(b"".join((ROOT / file).read_bytes() for file in MEASURES)).hexdigest()[:16]


def describe(member: Member, report: ScanReport) -> dict[str, Any]:
    """The verdict, the clearest value of each test, and the card's word on what is in the victim."""
    card = member.card
    truth: list[int] = []
    if card["attack"] not in (None, "none"):
        truth = sorted({target for _, target in Setting.parse(card["setting"]).pairs(report.victim.classes)})
    values: dict[str, dict[str, float]] = {}
    for evidence in report.evidence:
        kinds = {evidence.kind, *(evidence.together_with or evidence.kind).split(" and ")}
        law = "+".join(sorted(kinds, key=(*TOGETHER, *EVEN).index) if len(kinds) > 1 else kinds)
        key = f"{evidence.test}/{law}"
        if key not in values or evidence.ratio > math.exp(values[key]["value"]):
            values[key] = {"value": round(math.log(evidence.ratio), 4), "p_value": evidence.p_value}
    return {
        "name": member.name,
        "dataset": member.recipe.dataset,
        "classes": report.victim.classes,
        **described(card),
        "verdict": report.verdict,
        "p_value": report.p_value,
        "targets": list(report.targets),
        "true_targets": truth,
        "values": values,
        "seconds": round(report.cost.seconds, 1),
        "images_forward": report.cost.images_forward,
        "images_forward_backward": report.cost.images_forward_backward,
    }


def still_of(row: Mapping[str, Any], member: Member) -> bool:
    """Whether a row is of the network that the card describes. Weights that are not kept are made where they are
    scanned, with that processor's rounding, so such a row has rates of its own."""
    card = described(member.card)
    same = card if member.whole else {key: card[key] for key in ("attack", "setting")}
    return all(row[key] == value for key, value in same.items())


def described(card: Mapping[str, Any]) -> dict[str, Any]:
    """Of a victim's card, what stands beside the verdict; another training has another accuracy."""
    return {
        "attack": card["attack"],
        "setting": card["setting"],
        "asr": card["asr"]["value"] if card.get("asr") else None,
        "acc": card["acc"]["value"],
    }


def _row(job: tuple[Member, Path, int, ScanSettings]) -> dict[str, Any]:
    torch.set_num_threads(1)
    made = row(*job)
    print(f"{made['name']}: {made['verdict']} {made['targets'][:12]} p {made['p_value']}", flush=True)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Scan what is asked for and write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", type=Path, default=ROOT / "zoo")
    parser.add_argument("--plan", type=Path, default=ROOT / "zoo" / "plan.toml")
    parser.add_argument("--half", choices=["calibration", "reporting"], required=True)
    parser.add_argument("--only", nargs="+", default=["*"], help="patterns of names")
    parser.add_argument("--work", type=Path, required=True, help="where finished searches are kept")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--singled", type=int, help="how many single pairs are searched on, if not as many as usual")
    parser.add_argument("--keep", action="store_true", help="also keep what the record at --out has of other victims")
    options = parser.parse_args(arguments)
    chosen = selected(options.zoo, options.plan, options.half, options.only)
    if not chosen:
        parser.error(f"the {options.half} half of {options.zoo} has no such victim with its weights")
    options.work.mkdir(parents=True, exist_ok=True)
    usual = ScanSettings()
    pairs = usual.pairs if options.singled is None else replace(usual.pairs, singled=options.singled)
    settings = replace(usual, pairs=pairs)
    jobs = [(member, options.work, options.seed, settings) for member in chosen]
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        rows = pool.map(_row, jobs, chunksize=1)
    if options.keep:
        cards = {m.name: m for m in members(options.plan.parent, "*")}
        earlier = kept(options.out, "victims", rows, lambda one: one["name"])
        rows += [one for one in earlier if one["name"] in cards and still_of(one, cards[one["name"]])]
        rows.sort(key=lambda one: str(one["name"]))
    tests = sorted({key.partition("/")[0] for made in rows for key in made["values"]})
    write_record(
        options.out,
        name=options.out.stem,
        script=__file__,
        seed=options.seed,
        results={"half": options.half, "usual": {t: usual_candidates(t) for t in tests}, "victims": rows},
        measures=MEASURES,
    )


if __name__ == "__main__":
    main()
