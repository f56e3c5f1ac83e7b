"""A second view of a network: the same tensors, with activations that can be corrected.

The transformation of a neuron's activation (BNA, Eq. 4) is h(z) = max(min((z - mu) / sigma, omega), upsilon). Where a
BatchNorm follows the neuron, mu and sigma take the place of its running mean and standard deviation, and the clip acts
on its output. In a network without one, h comes after some of its layers (see ``find_sites``), from mu = 0 and sigma =
1. The network itself is never changed.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from untrojan.classifier.classifier import Classifier
from untrojan.classifier.clipped import clipped_affine
from untrojan.classifier.sites import batch_norms, is_plain, neuron_axis, neurons
from untrojan.classifier.state import as_found
from untrojan.errors import CheckpointError, UnsupportedError

PARAMETERS = ("mean", "log_std", "low", "high")


class Rows:
    """Which row of every correction each sample of the next pass uses: int64 [N], or None for row 0 throughout.

    The corrections read it during the pass, so one pass at a time has the lock.
    """

    def __init__(self) -> None:
        self.index: Tensor | None = None
        self.lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Rows], tuple[()]]:
        return Rows, ()  # a copy, or one read back, has a lock of its own


class CorrectedActivation(nn.Module):
    """h for C neurons, with R alternative sets of mean, std and bounds.

    All four are [R, C]: ``mean`` and ``log_std`` in the units of the input, ``low`` and ``high`` in those of the
    output. They start without bounds. Buffers, not parameters: whoever wants to learn them asks for their gradient.
    """

    mean: Tensor
    log_std: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, mean: Tensor, log_std: Tensor, rows: Rows, count: int):
        super().__init__()
        self.rows = rows
        mean, log_std = mean.repeat(count, 1), log_std.repeat(count, 1)
        self.register_buffer("mean", mean)
        self.register_buffer("log_std", log_std)
        self.register_buffer("low", torch.full_like(mean, -torch.inf))
        self.register_buffer("high", torch.full_like(mean, torch.inf))

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, ...] to the same."""
        index = self.rows.index
        row = slice(0, 1) if index is None else index
        scale, mean, low, high = torch.exp(-self.log_std[row]), self.mean[row], self.low[row], self.high[row]
        gamma, beta = self.affine()
        if gamma is not None:
            scale = scale * gamma
        offset = -mean * scale
        if beta is not None:
            offset = offset + beta
        return clipped_affine(x, scale, offset, low, high)

    def affine(self) -> tuple[Tensor | None, Tensor | None]:
        """What stands between standardisation and clip: gamma and beta, each [C] or None."""
        return None, None


class CorrectedBatchNorm(CorrectedActivation):
    """A BatchNorm in evaluation mode as h: mu and sigma start as its running statistics, the clip follows its gamma and
    beta. It takes the place of the layer."""

    def __init__(self, norm: _BatchNorm, rows: Rows, count: int):
        if norm.running_mean is None or norm.running_var is None:
            raise UnsupportedError("a BatchNorm without running statistics cannot be corrected")
        log_std = (norm.running_var.detach().float() + norm.eps).log().div(2)
        super().__init__(norm.running_mean.detach().float(), log_std, rows, count)
        self.norm = norm

    def affine(self) -> tuple[Tensor | None, Tensor | None]:
        return self.norm.weight, self.norm.bias


class CorrectedOutput(CorrectedActivation):
    """h after a layer, from mu = 0 and sigma = 1.

    A hook, since not everything that uses a layer calls it: nn.TransformerEncoderLayer reads its layers' weights in its
    fast path, which it does not take when one of them has a hook.
    """

    def __init__(self, layer: nn.Module, rows: Rows, count: int, device: torch.device):
        width, _ = neurons(layer) or (0, 1)
        zero = torch.zeros(width, device=next((t.device for t in layer.parameters()), device))
        super().__init__(zero, zero, rows, count)
        layer.register_forward_hook(self._after)

    def _after(self, layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        axis = neuron_axis(layer, output)
        corrected: Tensor = self(output.movedim(axis, 1))
        return corrected.movedim(1, axis)


class CorrectedClassifier(nn.Module):
    """A classifier's twin g(. | Theta): it shares every tensor of ``classifier`` and adds ``count`` rows of Theta.

    sites: names of the layers to correct, as from ``find_sites``; by default every BatchNorm with running statistics.
    Raises UnsupportedError if there is none.
    """

    def __init__(self, classifier: Classifier, count: int = 1, sites: Iterable[str] | None = None):
        super().__init__()
        self.classifier = twin(classifier)
        self.count, self.rows = count, Rows()
        self.layers: dict[str, CorrectedActivation] = {}
        module = self.classifier.module
        places = list(module.named_modules(remove_duplicate=False))
        for name in batch_norms(module) if sites is None else sites:
            layer = module.get_submodule(name)
            if isinstance(layer, _BatchNorm) and is_plain(layer):
                self.layers[name] = CorrectedBatchNorm(layer, self.rows, count)
                for place in [other for other, found in places if found is layer]:  # it may have several names
                    parent, _, attribute = place.rpartition(".")
                    setattr(module.get_submodule(parent), attribute, self.layers[name])
            else:
                self.layers[name] = CorrectedOutput(layer, self.rows, count, classifier.device)
        if not self.layers:
            raise UnsupportedError(
                "this network has no BatchNorm layer with running statistics, and no other sites are given"
            )
        self.outputs = nn.ModuleList(layer for layer in self.layers.values() if isinstance(layer, CorrectedOutput))
        self.eval()

    def forward(self, images: Tensor, rows: Tensor | None = None) -> Tensor:
        """Logits [N, K]; ``rows`` int64 [N] picks each sample's row of Theta (default: row 0)."""
        # One row needs no lock, and what is traced cannot take one.
        alone = (self.count == 1 and rows is None) or torch.compiler.is_compiling()
        with contextlib.nullcontext() if alone else self.rows.lock:
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
                # A row's range may be open, so that nothing of it is cut off; its moments are numbers.
                if bool(value.isnan().any()) or (p in ("mean", "log_std") and bool(value.isinf().any())):
                    raise CheckpointError(f"{where}: {name} {p} holds NaN or infinite values")
                getattr(layer, p).copy_(value)


def sites_of(classifier: Classifier, theta: Mapping[str, Tensor], where: str = "guard") -> list[str]:
    """Names of the layers that a Theta is for. Raises CheckpointError if they cannot be corrected.

    In a network with BatchNorm these alone, but not always all of them: some may be of use in training only.
    """
    norms = batch_norms(classifier.module)
    named = dict.fromkeys(key.rpartition("|")[0] for key in theta)
    layers = dict(classifier.module.named_modules())
    for name in named:
        if name not in (norms or layers) or neurons(layers[name]) is None:
            raise CheckpointError(f"{where}: its layers are not those of this classifier")
    return list(named)


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


def require_own_layers(classifier: Classifier, copied: Classifier, images: Tensor) -> None:
    """Raise UnsupportedError unless images pass the same layers in a copy as in the original.

    A function that a network keeps, such as a replaced ``forward`` or a lambda, is not copied but goes on to use the
    original's layers: a correction of the copy's would never be called. images: [N, C, H, W], one is enough.
    """
    if any(isinstance(layer, torch.jit.ScriptModule) for layer in classifier.modules()):
        raise UnsupportedError(
            "a TorchScript network cannot be changed layer by layer; give the network it was made of"
        )
    with as_found(classifier):
        original, other = (_passed(network, images) for network in (classifier, copied))
    if original != other:
        name = min(original ^ other)
        raise UnsupportedError(
            f"a copy of the network does not use its own layer '{name}', and a guard needs that: a function which the "
            "network keeps, such as a replaced forward or a lambda, holds on to the original's; make it a method"
        )


def _passed(classifier: Classifier, images: Tensor) -> set[str]:
    """Names of the layers that images pass."""
    passed: set[str] = set()

    def note(name: str) -> Callable[..., None]:
        return lambda *_: passed.add(name)

    hooks = [layer.register_forward_pre_hook(note(name)) for name, layer in classifier.named_modules() if name]
    try:
        with torch.no_grad():
            classifier(images)
    finally:
        for hook in hooks:
            hook.remove()
    return passed


def _copy(classifier: Classifier, known: dict[int, object]) -> Classifier:
    """A deep copy in which ``known``, by identity, stands for what is not to be copied."""
    for module in classifier.modules():  # results of an earlier pass that it keeps, which cannot be copied
        for value in vars(module).values():
            for tensor in value if isinstance(value, list | tuple) else (value,):
                if isinstance(tensor, Tensor) and not tensor.is_leaf:
                    known.setdefault(id(tensor), tensor.detach())
    try:
        copied = copy.deepcopy(classifier, memo=known)
    except (TypeError, NotImplementedError, copy.Error) as error:  # a lock, a generator, an open file
        text = " ".join(str(error).split())[:120]
        raise UnsupportedError(
            f"the network cannot be copied, and a guard needs that ({text}); take out of its modules what is no tensor "
            "and no plain value"
        ) from None
    for original, other in zip(classifier.modules(), copied.modules(), strict=True):
        other._forward_hooks = original._forward_hooks.copy()
        other._forward_pre_hooks = original._forward_pre_hooks.copy()
    return copied
