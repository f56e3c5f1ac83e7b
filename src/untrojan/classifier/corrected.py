"""A second view of a network: the same tensors, with each batch normalisation replaced by one that can be corrected.

The transformation of a neuron's activation (BNA, Eq. 4) is h(z) = max(min((z - mu) / sigma, omega), upsilon). Where a
BatchNorm follows the neuron, mu and sigma take the place of its running mean and standard deviation, and the clip acts
on its output. The network itself is never changed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from untrojan.classifier.classifier import Classifier
from untrojan.errors import CheckpointError, UnsupportedError

PARAMETERS = ("mean", "log_std", "low", "high")


class Rows:
    """Which row of every correction each sample of the next pass uses: int64 [N], or None for row 0 throughout."""

    def __init__(self) -> None:
        self.index: Tensor | None = None


class CorrectedBatchNorm(nn.Module):
    """A BatchNorm in evaluation mode with R alternative sets of mean, std and output bounds.

    All four are [R, C]: ``mean`` and ``log_std`` in the units of the input, ``low`` and ``high`` in those of the
    output, after gamma and beta. They start as the layer's own statistics and without bounds. Buffers, not
    parameters: whoever wants to learn them asks for their gradient.
    """

    mean: Tensor
    log_std: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, norm: _BatchNorm, rows: Rows, count: int):
        super().__init__()
        if norm.running_mean is None or norm.running_var is None:
            raise UnsupportedError("a BatchNorm without running statistics cannot be corrected")
        self.norm, self.rows = norm, rows
        mean = norm.running_mean.detach().float().repeat(count, 1)
        log_std = (norm.running_var.detach().float() + norm.eps).log().div(2).repeat(count, 1)
        self.register_buffer("mean", mean)
        self.register_buffer("log_std", log_std)
        self.register_buffer("low", torch.full_like(mean, -torch.inf))
        self.register_buffer("high", torch.full_like(mean, torch.inf))

    def forward(self, x: Tensor) -> Tensor:
        index = self.rows.index
        row = slice(0, 1) if index is None else index
        scale, mean, low, high = torch.exp(-self.log_std[row]), self.mean[row], self.low[row], self.high[row]
        if self.norm.weight is not None:
            scale = scale * self.norm.weight
        offset = -mean * scale
        if self.norm.bias is not None:
            offset = offset + self.norm.bias
        shape = (scale.shape[0], scale.shape[1]) + (1,) * (x.ndim - 2)
        y = x * scale.view(shape) + offset.view(shape)
        return torch.clamp(y, low.view(shape), high.view(shape))


class CorrectedClassifier(nn.Module):
    """A classifier's twin g(. | Theta): it shares every tensor of ``classifier`` and adds ``count`` rows of Theta.

    Raises UnsupportedError if the network has no BatchNorm with running statistics.
    """

    def __init__(self, classifier: Classifier, count: int = 1):
        super().__init__()
        self.classifier = twin(classifier)
        self.rows = Rows()
        self.layers: dict[str, CorrectedBatchNorm] = {}
        for name, norm in batch_norms(self.classifier.module).items():
            parent, _, attribute = name.rpartition(".")
            layer = CorrectedBatchNorm(norm, self.rows, count)
            setattr(self.classifier.module.get_submodule(parent), attribute, layer)
            self.layers[name] = layer
        if not self.layers:
            raise UnsupportedError(
                "this network has no BatchNorm layer with running statistics; the correction of this version needs one"
            )
        self.eval()

    def forward(self, images: Tensor, rows: Tensor | None = None) -> Tensor:
        """Logits [N, K]; ``rows`` int64 [N] picks each sample's row of Theta (default: row 0)."""
        self.rows.index = rows
        try:
            logits: Tensor = self.classifier(images)
            return logits
        finally:
            self.rows.index = None

    def train(self, mode: bool = True) -> CorrectedClassifier:
        """Stays in evaluation mode: a correction is about the statistics that the victim was given."""
        return super().train(False)

    def theta(self) -> dict[str, Tensor]:
        """All rows: ``LAYER|mean``, ``LAYER|log_std``, ``LAYER|low``, ``LAYER|high``, each float32 [R, C]."""
        return {f"{name}|{p}": getattr(layer, p).detach() for name, layer in self.layers.items() for p in PARAMETERS}

    @torch.no_grad()
    def load_theta(self, theta: Mapping[str, Tensor], where: str = "guard") -> None:
        """Take over rows saved by ``theta``; raises CheckpointError if they belong to another network."""
        own = self.theta()
        if set(own) != set(theta) or any(own[k].shape != theta[k].shape for k in own):
            raise CheckpointError(f"{where}: its layers are not those of this classifier")
        for name, layer in self.layers.items():
            for p in PARAMETERS:
                value = theta[f"{name}|{p}"].float()
                if bool(value.isnan().any()):
                    raise CheckpointError(f"{where}: {name} {p} holds NaN")
                getattr(layer, p).copy_(value)


def batch_norms(module: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorm layers (1d, 2d, 3d) with running statistics, by name, in definition order."""
    return {
        name: layer
        for name, layer in module.named_modules()
        if name and isinstance(layer, _BatchNorm) and layer.running_mean is not None
    }


@contextmanager
def captured(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Inside, the output of each layer in the last pass, by name; the hooks are gone afterwards."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
            outputs[name] = output

        return hook

    handles = [layer.register_forward_hook(keep(name)) for name, layer in layers.items()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def twin(classifier: Classifier, *, own_parameters: bool = False) -> Classifier:
    """A copy of the module tree over the same tensors: modes and layers can differ, values cannot.

    own_parameters: wrap the tensors in parameters of the copy's own, so that moving it to another device or freezing
    it leaves the original as it is. Hooks are carried over as they are: a counter on the original counts here too.
    """
    shared: dict[int, object] = {}
    for parameter in classifier.parameters():
        shared[id(parameter)] = nn.Parameter(parameter.data, requires_grad=False) if own_parameters else parameter
    shared.update((id(buffer), buffer) for buffer in classifier.buffers())
    return _copy(classifier, shared)


def independent(classifier: Classifier) -> Classifier:
    """A copy with values of its own, whose floating-point parameters can be trained. Hooks are carried over, as by
    ``twin``."""
    own: dict[int, object] = {}
    for parameter in classifier.parameters():
        own[id(parameter)] = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.is_floating_point())
    return _copy(classifier, own)


def _copy(classifier: Classifier, known: dict[int, object]) -> Classifier:
    """A deep copy in which ``known``, by identity, stands for what is not to be copied."""
    copied = copy.deepcopy(classifier, memo=known)
    for original, other in zip(classifier.modules(), copied.modules(), strict=True):
        other._forward_hooks = original._forward_hooks.copy()
        other._forward_pre_hooks = original._forward_pre_hooks.copy()
    return copied
