"""Use a module and leave it, and the global random numbers, as they were found."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


@contextmanager
def as_found(module: nn.Module) -> Iterator[None]:
    """Inside: every submodule in evaluation mode, no parameter requires a gradient, every ``.grad`` is out of reach;
    gradients are recorded, whether they are outside or not.

    Afterwards, also after an exception or Ctrl-C: training flags, ``requires_grad``, ``.grad``, hooks (those
    registered inside are removed, those before are kept) and the global random states of torch, numpy and Python are
    as found, and so are buffers, of which a network may count its calls. Values of parameters are not saved.

    >>> layer = nn.Linear(2, 2)
    >>> with as_found(layer):
    ...     print(layer.training, layer.weight.requires_grad)
    False False
    >>> layer.training, layer.weight.requires_grad
    (True, True)
    """
    modules = [(m, m.training, hooks_of(m)) for m in module.modules()]
    parameters = [(p, p.requires_grad, p.grad, _tensor_hooks(p)) for p in module.parameters()]
    buffers = [(m, dict(m._buffers), {n: b.detach().clone() for n, b in m._buffers.items() if b is not None})
               for m, _, _ in modules]  # fmt: skip
    with rng_as_found(), torch.enable_grad():
        try:
            # The flag and not .eval(): an overridden train() may do more, and only the flag can be put back exactly.
            for submodule, _, _ in modules:
                submodule.training = False
            for parameter, _, _, _ in parameters:
                parameter.grad = None
                if parameter.requires_grad:
                    parameter.requires_grad_(False)
            yield
        finally:
            for submodule, tensors, values in buffers:
                _restore_buffers(submodule, tensors, values)
            for submodule, training, hooks in modules:
                submodule.training = training
                _restore_hooks(submodule, hooks)
            for parameter, requires_grad, grad, tensor_hooks in parameters:
                _restore_tensor_hooks(parameter, tensor_hooks)
                if parameter.requires_grad != requires_grad:
                    parameter.requires_grad_(requires_grad)
                parameter.grad = grad


@contextmanager
def rng_as_found() -> Iterator[None]:
    """Afterwards the global random states are as found: torch CPU, torch CUDA if in use, numpy, Python."""
    python, legacy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


@torch.no_grad()
def _restore_buffers(module: nn.Module, tensors: dict[str, Tensor | None], values: dict[str, Tensor]) -> None:
    """The same tensors, with the same values; nothing is written where nothing was."""
    if isinstance(module._buffers, dict):  # a ScriptModule keeps its own
        module._buffers.update(tensors)
    for name, value in values.items():
        tensor = tensors[name]
        if tensor is not None and not torch.equal(tensor, value):
            tensor.copy_(value)


def hooks_of(module: nn.Module) -> dict[str, Any]:
    """Every attribute of a module that is about hooks; the dictionaries are copied."""
    found = {name: value for name, value in vars(module).items() if name.startswith("_") and "_hook" in name}
    return {name: value.copy() if isinstance(value, dict) else value for name, value in found.items()}


def _restore_hooks(module: nn.Module, saved: dict[str, Any]) -> None:
    for name, value in saved.items():
        current = getattr(module, name)
        if isinstance(value, dict) and isinstance(current, dict):
            # In place: the handles that register_..._hook gave out refer to this very dictionary.
            current.clear()
            current.update(value)
        elif current is not value:
            setattr(module, name, value)


def _tensor_hooks(parameter: Tensor) -> list[tuple[Any, Any]]:
    current = [getattr(parameter, name, None) for name in _TENSOR_HOOKS]
    return [(hooks, None if hooks is None else hooks.copy()) for hooks in current]


def _restore_tensor_hooks(parameter: Tensor, saved: list[tuple[Any, Any]]) -> None:
    for name, (hooks, content) in zip(_TENSOR_HOOKS, saved, strict=True):
        if hooks is not None:
            hooks.clear()
            hooks.update(content)
        elif getattr(parameter, name, None) is not None:
            getattr(parameter, name).clear()
            setattr(parameter, name, None)
