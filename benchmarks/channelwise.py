r"""BNA's channels jointly or one after another: ``python benchmarks/channelwise.py --zoo zoo ... --out RECORD``.

The authors' published script optimises one channel at a time, 10 epochs each. This is a plain version of that scheme
(mean, standard deviation and both bounds of one channel under Adam, on the total variation of that channel's
histograms, layer by layer; unlike that script it lets gradients reach mean and deviation), beside BNA, which learns all
channels at once. All get the same victim, images and single stand-in, the scan's own trigger, and the paper's inference
rule; the true trigger enters in the evaluation alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from halves import selected
from page import put
from record import write_record
from torch import Tensor

from untrojan.classifier import Classifier, as_found
from untrojan.classifier.corrected import PARAMETERS, CorrectedClassifier
from untrojan.classifier.cost import CostMeter
from untrojan.classifier.sites import captured, require_sites
from untrojan.correction import BNA, Task
from untrojan.correction.divergence import total_variation
from untrojan.correction.histogram import Bins, soft_histogram
from untrojan.correction.moves import clean_activations, start_clip
from untrojan.data import load_data
from untrojan.data.images import image_hashes
from untrojan.evaluation.evaluate import evaluate
from untrojan.guard import Guard
from untrojan.loading import load_victim
from untrojan.pipeline import scan
from untrojan.progress import Silent
from untrojan.setting import Setting
from untrojan.triggers import load_trigger
from untrojan.victims.recipe import splits
from untrojan.victims.zoo import Member

ROOT = Path(__file__).resolve().parent.parent
MEASURES = [f"src/untrojan/{name}.py" for name in ("correction/bna", "correction/histogram", "classifier/corrected")]
EPOCHS, BATCH, RATE, WIDTH, TAU = 10, 32, 0.01, 0.1, 150.0
IMAGES = 500
BEGIN, END = "<!-- channelwise: benchmarks/channelwise.py -->", "<!-- end of channelwise -->"


def channel_by_channel(classifier: Classifier, task: Task, generator: torch.Generator) -> dict[str, Tensor]:
    """One row of Theta: every channel for itself, those of earlier layers already corrected."""
    layers = require_sites(classifier, task.sources)
    clean = clean_activations(classifier, layers, torch.cat([task.sources, task.own]))
    corrected = CorrectedClassifier(classifier, sites=layers)
    start_clip(corrected, clean)
    stamped = task.surrogates[0].stamp(task.sources)
    for name, layer in corrected.layers.items():
        own = [getattr(layer, p).requires_grad_(True) for p in PARAMETERS]
        for channel in range(layer.mean.shape[1]):
            low, high = (bound[channel : channel + 1] for bound in (clean[name].low, clean[name].high))
            bins = Bins.between(low, high, WIDTH)
            optimiser = torch.optim.Adam(own, lr=RATE)
            for _ in range(EPOCHS):
                order = torch.randperm(len(stamped), generator=generator)
                for index in order.split(BATCH):
                    with torch.no_grad(), captured({name: layers[name]}) as clean:
                        classifier(task.sources[index])
                    with captured({name: layer}) as seen:
                        corrected(stamped[index])
                    wanted, got = (
                        soft_histogram(values[name][:, channel : channel + 1], bins, TAU) for values in (clean, seen)
                    )
                    gradients = torch.autograd.grad(total_variation(wanted, got), own)
                    for parameter, gradient in zip(own, gradients, strict=True):
                        parameter.grad = gradient
                    optimiser.step()
        for parameter in own:
            parameter.requires_grad_(False)
    return corrected.theta()


def jointly(**options: Any) -> Callable[[Classifier, Task, torch.Generator], dict[str, Tensor]]:
    """BNA with these options."""
    return lambda c, task, generator: BNA(**options).fit(c, task, generator=generator, progress=Silent())


SCHEMES = {
    "one channel after another": channel_by_channel,
    "jointly, the paper's recipe": jointly(**BNA.paper()),
    "jointly, the default": jointly(),
}


def rows(member: Member, seed: int) -> list[dict[str, Any]]:
    """What each scheme makes of one victim; nothing if the scan does not find its backdoor."""
    classifier = load_victim(member.folder)
    shape = tuple(member.card["input_shape"])
    where = str(splits(member.recipe)[1] or member.recipe.dataset)
    defence = load_data(where, input_shape=shape, limit=IMAGES, seed=seed)
    report = scan(classifier, defence.images, defence.labels, seed=seed)
    test = load_data(where, input_shape=shape)
    known = set(image_hashes(defence.images))
    new = torch.tensor([h not in known for h in test.hashes()])
    trigger, _ = load_trigger(member.folder / "trigger.safetensors")
    setting = Setting.parse(member.card["setting"])
    made = []
    for (target, _), stand_in in sorted(report.triggers.items())[:1]:
        among = torch.isin(defence.labels, torch.tensor(report.sources(target)))
        floats = classifier.as_float(defence.images)
        task = Task(target, floats[among], floats[defence.labels == target], [stand_in])
        for scheme, fit in SCHEMES.items():
            with as_found(classifier), CostMeter(classifier) as meter:
                theta = fit(classifier, task, torch.Generator().manual_seed(seed))
            guard = Guard(classifier, [target], theta)
            result = evaluate(
                classifier, test.images[new], test.labels[new], guard=guard, trigger=trigger, setting=setting
            )
            cost = meter.cost()
            made.append(
                {
                    "name": member.name,
                    "scheme": scheme,
                    "neurons": sum(t.shape[1] for n, t in theta.items() if n.endswith("|mean")),
                    "seconds": round(cost.seconds, 1),
                    "images": cost.images_forward_backward,
                    "rates": json.loads(result.model_dump_json(include={"before", "after"})),
                }
            )
            print(made[-1]["name"], scheme, made[-1]["seconds"], result.after.asr, result.after.sia, flush=True)
    return made


def table(found: list[dict[str, Any]]) -> str:
    """A line for each scheme: means over victims."""
    made = ["| scheme | victims | ACC | ASR | SIA | seconds | images forward + backward |", "|---" * 7 + "|"]
    for scheme in dict.fromkeys(one["scheme"] for one in found):
        own = [one for one in found if one["scheme"] == scheme]
        rates = (statistics.mean(100 * one["rates"]["after"][n]["value"] for one in own) for n in ("acc", "asr", "sia"))
        shown = " | ".join(f"{rate:.1f}" for rate in rates)
        seconds, images = (statistics.mean(one[n] for one in own) for n in ("seconds", "images"))
        made.append(f"| {scheme} | {len(own)} | {shown} | {seconds:,.0f} | {images:,.0f} |")
    return "\n".join(made)


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--plan", type=Path, default=ROOT / "zoo" / "plan.toml")
    parser.add_argument("--half", choices=["calibration", "reporting"], default="reporting")
    parser.add_argument("--only", nargs="+", required=True, help="patterns of names")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--page", type=Path)
    given = parser.parse_args()
    found = [
        row for member in selected(given.zoo, given.plan, given.half, given.only) for row in rows(member, given.seed)
    ]
    results = {"epochs": EPOCHS, "victims": found}
    write_record(given.out, name=given.out.stem, script=__file__, seed=given.seed, results=results, measures=MEASURES)
    if given.page:
        put(given.page, BEGIN, END, table(found))


if __name__ == "__main__":
    main()
