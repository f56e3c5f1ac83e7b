"""Where a network's activations can be corrected, and what they are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd

from untrojan.classifier.classifier import Classifier
from untrojan.classifier.state import as_found
from untrojan.errors import UnsupportedError

_PROBES = 3
"""Images of the pass that finds the sites: a size that no number of tokens is taken for."""


def batch_norms(module: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorm layers (1d, 2d, 3d) with running statistics, by name, in definition order, subclasses included."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if name and isinstance(layer, _BatchNorm) and layer.running_mean is not None
    }


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer is a BatchNorm with running statistics that does nothing else.

    A subclass may do more in its forward, such as an activation (timm's BatchNormAct2d).
    """
    plain = isinstance(layer, nn.SyncBatchNorm) or type(layer).forward is _BatchNorm.forward
    return isinstance(layer, _BatchNorm) and layer.running_mean is not None and plain


def find_sites(classifier: Classifier, images: Tensor) -> dict[str, nn.Module]:
    """The layers whose neurons are corrected, by name: every BatchNorm with running statistics that a pass calls.

    In a network without one: the convolutions, linear layers and other normalisations that a pass calls exactly once
    (a layer that is used in two places has two distributions, and the weights of one that is never called, as in
    nn.MultiheadAttention, have none), in the order of the pass. The last convolution or linear layer is left out: its
    outputs are the logits. So are linear layers that widen (query, key and value in one, the first of an MLP), unless
    there is nothing else: what they say comes together in the layer that follows, and they are most of the neurons.
    images: at least one, [N, C, H, W]; the classifier is as found afterwards. Empty if there is no such layer: see
    ``require_sites``.
    """
    layers = {name: layer for name, layer in classifier.module.named_modules() if name and neurons(layer) is not None}
    calls: list[tuple[str, object]] = []

    def noting(name: str) -> Callable[[nn.Module, object, object], None]:
        return lambda _layer, _inputs, output: calls.append((name, output))

    with as_found(classifier), torch.no_grad():
        probes = classifier.arranged(classifier.as_float(images[:1]).expand(_PROBES, -1, -1, -1))
        for name, layer in layers.items():
            layer.register_forward_hook(noting(name))
        classifier(probes)
    called = {name for name, _ in calls}
    norms = {name: layer for name, layer in batch_norms(classifier.module).items() if name in called}
    if norms:
        return dict(norms)
    weighted = [name for name, _ in calls if isinstance(layers[name], _ConvNd | nn.Linear)]
    times = Counter(name for name, _ in calls)
    found = {
        name: layers[name]
        for name, output in calls
        if times[name] == 1 and name not in weighted[-1:] and _fits(layers[name], output)
    }
    return {name: layer for name, layer in found.items() if not _widens(layer)} or found


def require_sites(classifier: Classifier, images: Tensor) -> dict[str, nn.Module]:
    """``find_sites``; raises UnsupportedError if there is none."""
    found = find_sites(classifier, images)
    if not found:
        raise UnsupportedError(
            "this network has no layer to correct: neither a BatchNorm with running statistics nor, before its last "
            "layer, a convolution, linear layer or normalisation that is called once and gives one tensor [images, ...]"
        )
    return found


def neurons(layer: nn.Module) -> tuple[int, int] | None:
    """How many neurons the outputs of a layer have, and in which dimension; None for other kinds of layers."""
    if isinstance(layer, _ConvNd):
        return layer.out_channels, 1
    if isinstance(layer, _NormBase):
        return layer.num_features, 1
    if isinstance(layer, nn.GroupNorm):
        return layer.num_channels, 1
    if isinstance(layer, nn.Linear):
        return layer.out_features, -1
    if isinstance(layer, nn.LayerNorm | nn.RMSNorm):
        return layer.normalized_shape[0], -len(layer.normalized_shape)
    return None


def neuron_axis(layer: nn.Module, output: Tensor) -> int:
    """The dimension of a layer's output that counts its neurons; 1 for kinds of layers that ``neurons`` does not know.

    A normalisation may be written for tokens and turned to channels by its subclass; then that is 1, too.
    """
    count, axis = neurons(layer) or (0, 1)
    return axis if output.shape[axis] == count else 1


@contextmanager
def captured(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Inside, the output of each layer in the last pass, by name, with its neurons in dimension 1: [N, C, ...].

    The hooks are gone afterwards.
    """
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            outputs[name] = output.movedim(neuron_axis(layer, output), 1)

        return hook

    handles = [layer.register_forward_hook(keep(name)) for name, layer in layers.items()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _widens(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) and layer.out_features > layer.in_features


def _fits(layer: nn.Module, output: object) -> bool:
    """Whether an output of the pass is one float tensor [images, ...] with the neurons where they can be found."""
    count, _ = neurons(layer) or (0, 1)
    return (
        isinstance(output, Tensor)
        and output.is_floating_point()
        and output.ndim >= 2
        and len(output) == _PROBES
        and output.shape[neuron_axis(layer, output)] == count
    )
