"""What a report shows besides its records: triggers on images, and one neuron's distribution (the paper's Figure 1)."""

from __future__ import annotations

import torch
from torch import Tensor

from untrojan.classifier import Classifier, as_found
from untrojan.classifier.corrected import CorrectedClassifier
from untrojan.classifier.sites import captured, find_sites
from untrojan.guard.guard import Guard
from untrojan.records import ScanReport
from untrojan.report.content import NeuronHistogram, TriggerPicture
from untrojan.triggers import Trigger


def trigger_pictures(
    classifier: Classifier, report: ScanReport, images: Tensor, labels: Tensor, count: int = 6
) -> tuple[TriggerPicture, ...]:
    """Each re-estimated trigger on ``count`` clean images of its detected source classes.

    images: uint8 [N, C, H, W]; labels: int64 [N].
    """
    pictures = []
    with as_found(classifier):
        for (target, kind), trigger in sorted(report.triggers.items()):
            sources = [p.source for p in report.pairs if p.detected and p.target == target and p.kind == kind]
            index = _spread(labels, sources, count)
            shown = images[index]
            floats = classifier.as_float(shown)
            pictures.append(
                TriggerPicture(
                    target=target,
                    kind=kind,
                    size=trigger.size,
                    trigger=trigger,
                    clean=shown,
                    labels=tuple(labels[index].tolist()),
                    predictions_clean=tuple(classifier.predict(floats).argmax(1).tolist()),
                    predictions_stamped=tuple(classifier.predict(trigger.stamp(floats)).argmax(1).tolist()),
                )
            )
    return tuple(pictures)


@torch.no_grad()
def neuron_histogram(
    classifier: Classifier,
    images: Tensor,
    trigger: Trigger,
    *,
    guard: Guard | None = None,
    target: int | None = None,
    bins: int = 60,
) -> NeuronHistogram | None:
    """The neuron of the last corrected layer that the trigger shifts most: its values clean, triggered and corrected.

    images: [N, C, H, W] of the source classes; ``guard`` and ``target`` give the correction to show. None if
    the network has no layer to correct.
    """
    layers = find_sites(classifier, images)
    if not layers:
        return None
    last = next(reversed(layers))
    with as_found(classifier):
        floats = classifier.as_float(images)
        stamped = trigger.stamp(floats)
        clean = _values(classifier, layers[last], floats)
        triggered = _values(classifier, layers[last], stamped)
        shift = (triggered.mean(0) - clean.mean(0)).abs() / (clean.std(0) + triggered.std(0) + 1e-6)
        channel = int(shift.argmax())
        curves = [clean[:, channel], triggered[:, channel]]
        if guard is not None and target is not None:
            curves.append(_corrected_values(guard, last, stamped, target)[:, channel])
    everything = torch.cat(curves)
    low, high = float(everything.min()), float(everything.max())
    if not high > low:
        return None
    edges = torch.linspace(low, high, bins + 1, dtype=torch.float64)
    width = (high - low) / bins
    densities = [(torch.histc(c.double(), bins, low, high) / (len(c) * width)).tolist() for c in curves]
    return NeuronHistogram(
        layer=last,
        channel=channel,
        edges=edges.tolist(),
        clean=densities[0],
        triggered=densities[1],
        corrected=densities[2] if len(densities) > 2 else None,
    )


def _values(classifier: Classifier, layer: torch.nn.Module, images: Tensor) -> Tensor:
    """[N * positions, C] outputs of a layer."""
    with captured({"layer": layer}) as outputs:
        parts = []
        for batch in images.split(256):
            classifier(batch)
            parts.append(outputs["layer"].movedim(1, -1).flatten(0, -2).cpu())
    return torch.cat(parts)


def _corrected_values(guard: Guard, layer: str, images: Tensor, target: int) -> Tensor:
    corrected: CorrectedClassifier = guard.corrected
    row = guard.targets.tolist().index(target)
    parts = []
    with captured({"layer": corrected.layers[layer]}) as outputs:
        for batch in images.split(256):
            corrected(batch, torch.full((len(batch),), row, device=batch.device))
            parts.append(outputs["layer"].movedim(1, -1).flatten(0, -2).cpu())
    return torch.cat(parts)


def _spread(labels: Tensor, classes: list[int], count: int) -> Tensor:
    """Indices of about ``count`` images, one class after another."""
    members = [(labels == c).nonzero().flatten().tolist() for c in sorted(set(classes))]
    chosen: list[int] = []
    for depth in range(count):
        chosen += [m[depth] for m in members if depth < len(m)]
    return torch.tensor(chosen[:count], dtype=torch.int64)
