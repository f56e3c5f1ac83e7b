r"""What a trigger does to the activations of the penultimate layer, and what BNA leaves of it: Table 9 and Figure 1.

    python benchmarks/divergences.py --zoo zoo --work FOLDER --out RECORD [--figure docs/activations.png] \
        [--page docs/paper.md] [--keep]

For each neuron, the distance between its histogram on clean images of the classes that the attacker moves and that on
the same images with the attacker's trigger: in a clean network, in the victim, and in the victim with BNA, where the
clean images pass the victim and the triggered ones its twin, as the inference rule has it. Scan and correction are the
ones that a user gets and see neither these images nor the trigger.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from page import put
from record import kept, write_record
from slope import empirical
from torch import Tensor, nn

from untrojan.bench.cell import Cell, cells_of
from untrojan.bench.plan import MethodEntry, Plan
from untrojan.bench.victims import victims_of
from untrojan.bench.work import images_of, scan_cell, scan_folder
from untrojan.classifier import Classifier
from untrojan.correction.divergence import DIVERGENCES
from untrojan.correction.histogram import Bins
from untrojan.guard import load_guard, save_guard
from untrojan.loading import load_victim
from untrojan.pipeline import repair
from untrojan.scan_files import load_scan
from untrojan.setting import Setting
from untrojan.triggers import load_trigger
from untrojan.victims.files import TRIGGER
from untrojan.victims.zoo import members

MEASURES = [
    "benchmarks/slope.py",
    *(f"src/untrojan/{name}.py" for name in ("correction/bna", "correction/divergence", "classifier/corrected")),
]
WIDTH, BATCH, TEST = 0.1, 256, 4000
SHOWN = ("tv", "js", "kl")
NETWORKS = ("clean", "poisoned", "bna")
BEGIN, END = "<!-- divergences: benchmarks/divergences.py -->", "<!-- end of divergences -->"
VICTIMS = tuple(
    f"cifar10/{attack}-a2o9-s100" for attack in ("badnet", "chessboard", "single-pixel", "l0-inv", "l2-inv", "wanet")
)

Network = Callable[[Tensor], Tensor]


@torch.no_grad()
def features(network: Network, module: nn.Module, images: Tensor) -> Tensor:
    """What the last linear layer of ``module`` gets as ``network`` passes float images: float [N, neurons]."""
    last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
    seen: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0].float()))
    try:
        for batch in images.split(BATCH):
            network(batch)
    finally:
        hook.remove()
    return torch.cat(seen)


def bins_of(clean: Tensor) -> Bins:
    """The paper's: from each neuron's smallest clean activation to its largest, the outer ones half-infinite."""
    return Bins.between(clean.amin(0), clean.amax(0), WIDTH)


def by_neuron(clean: Tensor, triggered: Tensor) -> dict[str, Tensor]:
    """Each divergence of the triggered activations from the clean ones, [N, neurons] each: float64 [neurons]."""
    bins = bins_of(clean)
    pairs = [empirical(values, bins).split(bins.counts.tolist()) for values in (clean, triggered)]
    return {name: torch.stack([DIVERGENCES[name](p, q) for p, q in zip(*pairs, strict=True)]) for name in SHOWN}


def means(found: dict[str, Tensor]) -> dict[str, float]:
    """Over neurons."""
    return {name: round(float(values.mean()), 4) for name, values in found.items()}


def histograms(clean: Tensor, triggered: Tensor, neuron: int) -> dict[str, Any]:
    """Both of one neuron, for a picture: over the range of both, since what lies beyond one end would be a tower."""
    own = [values[:, neuron : neuron + 1] for values in (clean, triggered)]
    bins = bins_of(torch.cat(own))
    shares = [[round(share, 4) for share in empirical(values, bins).tolist()] for values in own]
    return {"neuron": neuron, "low": round(float(bins.low[0]), 4), "clean": shares[0], "triggered": shares[1]}


def corrected(cell: Cell, work: Path, victim: Classifier, target: int) -> tuple[Network, nn.Module] | None:
    """The victim's twin for that target, as ``untrojan scan`` and ``repair`` make it; None if it is not found.

    The guard is kept, since it is minutes of work.
    """
    scan_cell(cell, work, "cpu")
    report = load_scan(scan_folder(cell, work))
    if report.verdict != "backdoor" or target not in report.targets:
        return None
    kept = work / "guards" / cell.key
    if not (kept / "guard.json").is_file():
        defence = images_of(cell).defence
        save_guard(kept, repair(victim, defence.images, defence.labels, report, seed=cell.seed))
    guard = load_guard(kept, victim)
    row = report.targets.index(target)
    return lambda images: guard.corrected(images, torch.full((len(images),), row)), guard.corrected


def row(cell: Cell, work: Path, other: Classifier) -> dict[str, Any]:
    """One victim, all-to-one. ``histograms``: in each network, of the neuron that the trigger changes most; BNA's is
    the victim's. ``chance``: two halves of the victim's clean images, which no trigger sets apart."""
    victim, test = load_victim(cell.victim.folder), images_of(cell).test
    trigger, _ = load_trigger(cell.victim.folder / TRIGGER)
    goals = Setting.parse(str(cell.victim.setting)).target_of(test.labels, len(cell.victim.class_names or ()))
    images = victim.as_float(test.images[goals >= 0])
    stamped = trigger.stamp(images)
    activations = {
        name: (features(network, network.module, images), features(network, network.module, stamped))
        for name, network in (("clean", other), ("poisoned", victim))
    }
    twin = corrected(cell, work, victim, int(goals.max()))
    if twin is not None:
        activations["bna"] = activations["poisoned"][0], features(*twin, stamped)
    found = {name: by_neuron(*pair) for name, pair in activations.items()}
    most = {name: int(values["tv"].argmax()) for name, values in found.items()}
    most["bna"] = most["poisoned"]
    calm = activations["poisoned"][0]
    half = torch.randperm(len(calm), generator=torch.Generator().manual_seed(cell.seed)) % 2 == 0
    return {
        "name": cell.victim.name,
        "attack": cell.victim.attack,
        "images": len(images),
        "neurons": calm.shape[1],
        "divergences": {name: means(values) for name, values in found.items()},
        "chance": means(by_neuron(calm[half], calm[~half])),
        "histograms": {name: histograms(*pair, most[name]) for name, pair in activations.items()},
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each trigger, the three networks of each divergence side by side."""
    made = ["| trigger | TV: clean, poisoned, BNA | JS | KL |", "|---|---|---|---|"]
    for one in rows:
        cells = [
            ", ".join(f"{one['divergences'][n][name]:.3f}" if n in one["divergences"] else "–" for n in NETWORKS)
            for name in SHOWN
        ]
        made.append(f"| {one['attack']} | {' | '.join(cells)} |")
    return "\n".join(made)


def main() -> None:
    """Measure, record, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument(
        "--victims", nargs="+", default=VICTIMS, help="all-to-one; the figure shows the first of the record"
    )
    parser.add_argument("--clean", default="cifar10/clean-s100", help="a clean network of the same half")
    parser.add_argument("--work", type=Path, required=True, help="where finished scans and guards are kept")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--keep", action="store_true", help="also keep what the record at --out has of other victims")
    given = parser.parse_args()
    plan = Plan(
        victims=tuple(given.victims),
        seeds=(given.seed,),
        settings={"defence": 0.1, "test_limit": TEST},
        method=(MethodEntry(name="bna"),),
    )
    other = load_victim(members(given.zoo, given.clean)[0].folder)
    rows = []
    for cell in cells_of(plan, victims_of(plan, given.zoo)):
        rows.append(row(cell, given.work, other))
        print(rows[-1]["name"], rows[-1]["divergences"], flush=True)
    if given.keep:
        rows += kept(given.out, "victims", rows, lambda one: one["name"])
        place = {name: number for number, name in enumerate(VICTIMS)}
        rows.sort(key=lambda one: place.get(one["name"], len(place)))
    for one in rows[1:]:  # one victim's are enough for the picture
        one.pop("histograms", None)
    results = {"clean": given.clean, "width": WIDTH, "victims": rows}
    write_record(given.out, name=given.out.stem, script=__file__, seed=given.seed, results=results, measures=MEASURES)
    if given.figure:
        from activations_plot import draw

        draw(rows[0], WIDTH, given.figure)
    if given.page:
        put(given.page, BEGIN, END, table(rows))


if __name__ == "__main__":
    main()
