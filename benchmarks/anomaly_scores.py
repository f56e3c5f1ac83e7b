r"""The paper's anomaly score of every class pair, by trigger: Figures 4 (all-to-one) and 5 (all-to-all).

    python benchmarks/anomaly_scores.py --zoo zoo --out RECORD [--figure docs/anomaly_scores.png] [--page docs/paper.md]

The smallest trigger from each class into each other, a patch for BadNet and an additive one for the others, as the
paper has it; the statistic is 1 / size, and the score its distance from the median in MADs. The search is the scan's
own for pairs, but every pair goes through both of its stages, so that none is favoured.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from halves import images_for
from page import put
from record import write_record
from scipy.stats import mannwhitneyu

from untrojan.classifier import as_found
from untrojan.data import load_data
from untrojan.detection.anomaly import anomaly_scores
from untrojan.detection.found import Clean, Results
from untrojan.detection.margins import log_margins
from untrojan.detection.pair_wise import search_pairs
from untrojan.detection.plan import FAMILIES, PairWise
from untrojan.detection.shares import Searches
from untrojan.loading import load_victim
from untrojan.progress import Silent
from untrojan.setting import Setting
from untrojan.victims.recipe import splits
from untrojan.victims.zoo import Member, members

ROOT = Path(__file__).resolve().parent.parent
MEASURES = [f"src/untrojan/detection/{name}.py" for name in ("anomaly", "plan", "inversion", "pair_wise", "shares")]
BEGIN, END = "<!-- anomaly scores: benchmarks/anomaly_scores.py -->", "<!-- end of anomaly scores -->"
ATTACKS = ("badnet", "chessboard", "single-pixel", "l0-inv", "l2-inv", "wanet")
VICTIMS = tuple(f"cifar10/{attack}-{setting}-s100" for setting in ("a2o9", "a2a") for attack in ATTACKS)
THRESHOLD, OF_WANET = 7.0, 3.0
"""The paper's, the second for WaNet alone."""


def smallest(member: Member, seed: int) -> list[list[float | None]]:
    """The size of each pair's trigger, a row for each source; None where there is none, as on the diagonal."""
    classifier = load_victim(member.folder)
    shape, kind = member.card["input_shape"], kind_for(member.card["attack"])
    classes = len(member.card["class_names"])
    where = splits(member.recipe)[1] or member.recipe.dataset
    data = load_data(where, input_shape=tuple(shape), limit=images_for(classes), seed=seed)
    with as_found(classifier):
        images = classifier.as_float(data.images)
        answers = classifier.predict(images).argmax(1)
        right = answers == data.labels
        images, labels, answers = images[right], data.labels[right], answers[right]
        sources = {s: images[labels == s] for s in labels.unique().tolist()}
        clean = Clean(images, labels, answers, classes, log_margins(classifier, sources, classes))
        searches, results = Searches(classifier, seed=seed, progress=Silent()), Results()
        plan = PairWise(refined=classes * (classes - 1))
        search_pairs(searches, {kind: FAMILIES[kind]()}, clean, results, plan)
    sizes: list[list[float | None]] = [[None] * classes for _ in range(classes)]
    for (source, target), inversion in (results.pairs(kind, 0) | results.pairs(kind, 1)).items():
        sizes[source][target] = None if inversion.size is None else round(inversion.size, 3)
    return sizes


def kind_for(attack: str) -> str:
    """Which triggers the paper's detection inverts."""
    return "patch" if attack == "badnet" else "additive"


def scores_of(sizes: Sequence[Sequence[float | None]]) -> list[list[float | None]]:
    """The score of each pair among all of them; None on the diagonal. A pair without a trigger has the statistic 0."""
    off = [(s, t) for s in range(len(sizes)) for t in range(len(sizes)) if s != t]
    statistics = [0.0 if (size := sizes[s][t]) is None else 1 / max(size, 1e-9) for s, t in off]
    scores: list[list[float | None]] = [[None] * len(sizes) for _ in sizes]
    for (s, t), score in zip(off, anomaly_scores(statistics).tolist(), strict=True):
        scores[s][t] = round(score, 3)
    return scores


def parted(victim: dict[str, Any]) -> tuple[list[float], list[float]]:
    """The scores of the attacker's pairs and of the others; positive for small triggers."""
    scores = victim["scores"]
    own = set(Setting.parse(victim["setting"]).pairs(len(scores)))
    off = [(s, t) for s in range(len(scores)) for t in range(len(scores)) if s != t]
    both = [[scores[s][t] for s, t in off if ((s, t) in own) == wanted] for wanted in (True, False)]
    return both[0], both[1]


def threshold_for(attack: str) -> float:
    """Above which the paper calls a pair attacked."""
    return OF_WANET if attack == "wanet" else THRESHOLD


def row(member: Member, seed: int) -> dict[str, Any]:
    """One victim."""
    sizes = smallest(member, seed)
    return {
        "name": member.name,
        "attack": member.card["attack"],
        "setting": member.card["setting"],
        "kind": kind_for(member.card["attack"]),
        "sizes": sizes,
        "scores": scores_of(sizes),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each victim: pairs above the paper's threshold, and how well the score tells the attacker's apart."""
    made = [
        "| trigger | setting | threshold | attacker's pairs above it | others above it | AUC |",
        "|---|---|---|---|---|---|",
    ]
    for one in rows:
        own, others = parted(one)
        limit = threshold_for(one["attack"])
        above = [f"{sum(score > limit for score in scores)} of {len(scores)}" for scores in (own, others)]
        area = mannwhitneyu(own, others).statistic / (len(own) * len(others))
        setting = one["setting"].partition(":")[0]
        made.append(f"| {one['attack']} | {setting} | {limit:g} | {' | '.join(above)} | {area:.2f} |")
    return "\n".join(made)


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """A column for each trigger, a line for each setting."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    attacks = list(dict.fromkeys(one["attack"] for one in rows))
    settings = list(dict.fromkeys(one["setting"].partition(":")[0] for one in rows))
    size = (2.1 * len(attacks), 2.2 * len(settings) + 0.5)
    figure, axes = plt.subplots(len(settings), len(attacks), figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.set_visible(False)
    for one in rows:
        axis = axes[settings.index(one["setting"].partition(":")[0]), attacks.index(one["attack"])]
        axis.set_visible(True)
        own, others = (np.abs(scores) for scores in parted(one))  # as the paper has them
        edges = np.linspace(0, max(*own, *others, threshold_for(one["attack"])) * 1.02, 31)
        labels = ("other pairs", "the attacker's pairs")
        axis.hist([others, own], edges, stacked=True, color=["0.6", "tab:red"], label=labels)
        axis.axvline(threshold_for(one["attack"]), color="0.2", linewidth=0.8, linestyle="--")
        axis.set_title(f"{one['attack']}, {one['setting']}", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.yaxis.get_major_locator().set_params(integer=True)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, fontsize=8, frameon=False, loc="lower right", ncols=2)
    figure.supxlabel("anomaly score, |1/size - median| / MAD (dashed: the paper's threshold)", fontsize=8)
    figure.supylabel("class pairs", fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    """Search, record, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--victims", nargs="+", default=VICTIMS, help="those without weights are left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--drawn", action="store_true", help="figure and page from the record in --out")
    given = parser.parse_args()
    if given.drawn:
        rows = json.loads(given.out.read_text())["results"]["victims"]
    else:
        there = {member.name: member for member in members(given.zoo) if member.whole}
        rows = []
        for name in given.victims:
            if name in there:
                rows.append(row(there[name], given.seed))
                print(table(rows).splitlines()[-1], flush=True)
        write_record(
            given.out,
            name=given.out.stem,
            script=__file__,
            seed=given.seed,
            results={"victims": rows},
            measures=MEASURES,
        )
    if given.figure:
        draw(rows, given.figure)
    if given.page:
        put(given.page, BEGIN, END, table(rows))


if __name__ == "__main__":
    main()
