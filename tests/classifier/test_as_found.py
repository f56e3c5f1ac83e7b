from __future__ import annotations

import contextlib
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from untrojan.classifier.state import as_found, rng_as_found


def network() -> nn.Module:
    """Mixed modes, a frozen parameter, gradients, hooks of several kinds."""
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Sequential(nn.Dropout(), nn.Linear(3, 2)))
    module(torch.ones(4, 2)).sum().backward()
    module[1].eval()  # type: ignore[index, operator]
    module[0].weight.requires_grad_(False)  # type: ignore[index, union-attr, operator]
    module[0].register_forward_hook(lambda *_: None)  # type: ignore[index, union-attr]
    module[2].register_forward_pre_hook(lambda *_: None, with_kwargs=True)  # type: ignore[index, union-attr]
    module[1].register_full_backward_hook(lambda *_: None)  # type: ignore[index, union-attr]
    module[1].weight.register_hook(lambda grad: grad)  # type: ignore[index, union-attr]
    return module


def hooks(holder: object, names: list[str]) -> dict[str, Any]:
    found = {name: getattr(holder, name, None) for name in names}
    return {name: dict(value) if isinstance(value, dict) else value for name, value in found.items()}


def description(module: nn.Module) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name, m in module.named_modules():
        told[name] = (m.training, hooks(m, [n for n in vars(m) if "hook" in n]))
    for name, p in module.named_parameters():
        tensor_hooks = hooks(p, ["_backward_hooks", "_post_accumulate_grad_hooks"])
        told[f"p {name}"] = (p.requires_grad, id(p.grad), None if p.grad is None else p.grad.tolist(), tensor_hooks)
    return told


def disturb(module: nn.Module) -> None:
    """Change everything that a method could change."""
    module.train()
    module[1].track_running_stats = True  # type: ignore[index, union-attr]
    for m in module.modules():
        m.register_forward_hook(lambda *_: None, always_call=True)
        m.register_forward_hook(lambda *_: None, with_kwargs=True, prepend=True)
        m.register_forward_pre_hook(lambda *_: None)
        m.register_full_backward_hook(lambda *_: None)
        m.register_full_backward_pre_hook(lambda *_: None)
        m.register_state_dict_post_hook(lambda *_: None)
    disturb_parameters(module)
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)


def disturb_parameters(module: nn.Module) -> None:
    for p in module.parameters():
        p.requires_grad_(True)
        p.register_hook(lambda grad: grad * float("nan"))
        p.register_post_accumulate_grad_hook(lambda q: q.grad.zero_())  # type: ignore[union-attr]
        p.grad = torch.ones_like(p)


def disturb_and_raise(module: nn.Module, error: type[BaseException] | None) -> None:
    before = description(module)
    with as_found(module):
        disturb(module)
        assert description(module) != before
        if error is not None:
            raise error


class Stop(BaseException):
    pass


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt, Stop])
def test_everything_is_as_found(error: type[BaseException] | None) -> None:
    module = network()
    before = description(module)
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    with contextlib.nullcontext() if error is None else pytest.raises(error):
        disturb_and_raise(module, error)
    assert description(module) == before
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), str(np.random.get_state())) == states[1:]


def test_inside_it_is_evaluated_and_frozen() -> None:
    module = network()
    with as_found(module):
        assert not any(m.training for m in module.modules())
        assert not any(p.requires_grad for p in module.parameters())
        images = torch.ones(4, 2, requires_grad=True)
        module(images).sum().backward()
        assert images.grad is not None
        assert all(p.grad is None for p in module.parameters())


def test_gradients_are_out_of_reach() -> None:
    module = network()
    wanted = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    assert wanted
    with as_found(module):
        module.requires_grad_(True)
        module(torch.ones(4, 2)).sum().backward()
        module.zero_grad(set_to_none=False)
    assert all(torch.equal(p.grad, wanted[n]) for n, p in module.named_parameters() if p.grad is not None)


def test_handles_of_hooks_still_work() -> None:
    module, calls = nn.Linear(2, 2), []
    handle = module.register_forward_hook(lambda *_: calls.append("before"))
    with as_found(module):
        inner = module.register_forward_hook(lambda *_: calls.append("inside"))
        module(torch.ones(1, 2))
    module(torch.ones(1, 2))
    assert calls == ["before", "inside", "before"]
    inner.remove()
    handle.remove()
    module(torch.ones(1, 2))
    assert len(calls) == 3


def test_parameters_take_hooks_again() -> None:
    module, calls = nn.Linear(2, 2), []
    with as_found(module):
        disturb_parameters(module)
    module.weight.register_hook(lambda _: calls.append("gradient"))
    module.weight.register_post_accumulate_grad_hook(lambda _: calls.append("accumulated"))
    module(torch.ones(1, 2)).sum().backward()
    assert calls == ["gradient", "accumulated"]


def test_a_hook_removed_inside_is_back() -> None:
    module, calls = nn.Linear(2, 2), []
    handle = module.register_forward_hook(lambda *_: calls.append(1))
    with as_found(module):
        handle.remove()
    module(torch.ones(1, 2))
    assert calls == [1]


def test_an_overridden_train_is_not_called() -> None:
    class Merging(nn.Linear):
        def train(self, mode: bool = True) -> Merging:
            raise AssertionError("train() was called")

    module = nn.Sequential()
    module.append(Merging.__new__(Merging))
    nn.Linear.__init__(module[0], 2, 2)  # type: ignore[arg-type]
    with as_found(module):
        assert not module[0].training
    assert module[0].training


def test_nesting() -> None:
    module = network()
    before = description(module)
    with as_found(module), as_found(module[2]):  # type: ignore[index, arg-type]
        disturb(module)
    assert description(module) == before


def test_random_states_alone() -> None:
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    with rng_as_found():
        torch.rand(100)
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_random_state() -> None:
    torch.cuda.init()
    torch.cuda.manual_seed_all(1)
    wanted = torch.rand(3, device="cuda")
    torch.cuda.manual_seed_all(1)
    with rng_as_found():
        torch.rand(100, device="cuda")
    assert torch.equal(torch.rand(3, device="cuda"), wanted)


class Counting(nn.Module):
    """Counts its calls in one buffer in place, and in another anew."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.BatchNorm1d(2)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("again", torch.zeros(()))
        self.register_buffer("none", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.again = self.again + 1
        return self.inner(x)


def test_buffers_are_as_found_in_value_and_identity() -> None:
    module = Counting()
    before = {name: (id(b), b.clone()) for name, b in module.named_buffers()}
    with as_found(module):
        module(torch.ones(3, 2))
        module.inner.running_mean.add_(1.0)  # type: ignore[operator, union-attr]
    after = dict(module.named_buffers())
    assert after.keys() == before.keys()
    assert all(id(after[name]) == place for name, (place, _) in before.items())
    assert all(torch.equal(after[name], value) for name, (_, value) in before.items())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_network_is_as_found() -> None:
    module = torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train())
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with as_found(module):
        assert not module.training
        module.train()
        module(torch.ones(3, 2))
    assert module.training
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())
