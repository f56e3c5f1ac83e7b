from __future__ import annotations

import pytest
import torch
from torch import nn

from untrojan.classifier.checkpoint import check_weights, load_weights
from untrojan.errors import CheckpointError, UnsupportedError


def network(features: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(2, features), nn.BatchNorm1d(features))


def test_weights_arrive() -> None:
    source, target = network(), network()
    load_weights(target, source.state_dict(), "w.pt")
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_that_of_the_module(dtype: torch.dtype) -> None:
    source, target = network().to(dtype), network()
    load_weights(target, source.state_dict(), "w.pt")
    assert {p.dtype for p in target.parameters()} == {torch.float32}
    assert torch.equal(target[0].weight, source[0].weight.float())  # type: ignore[index, union-attr]


def test_nan_is_loaded() -> None:
    target = network()
    load_weights(target, target.state_dict() | {"0.bias": torch.full((3,), float("nan"))}, "w.pt")
    assert target[0].bias.isnan().all()  # type: ignore[index, union-attr]


def test_num_batches_tracked_may_be_missing_or_floating() -> None:
    tensors = network().state_dict()
    count = tensors.pop("1.num_batches_tracked")
    load_weights(network(), tensors, "w.pt")
    target = network()
    load_weights(target, tensors | {"1.num_batches_tracked": count.float() + 5}, "w.pt")
    assert target[1].num_batches_tracked == 5  # type: ignore[index, union-attr]


def test_a_module_whose_own_names_begin_with_the_prefix() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 2)

    source, target = nn.Linear(2, 2), Wrapped()
    load_weights(target, source.state_dict(), "w.pt")
    assert torch.equal(target.module.weight, source.weight)
    compiled = nn.ModuleDict({"_orig_mod": Wrapped()})  # as torch.compile and DataParallel name things
    load_weights(compiled, source.state_dict(), "w.pt")
    assert torch.equal(compiled.state_dict()["_orig_mod.module.weight"], source.weight)


def refused(module: nn.Module, tensors: dict[str, torch.Tensor]) -> str:
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(module, tensors, "w.pt")
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    message = str(caught.value)
    assert "\n" not in message
    assert "other --model factory or arguments?" in message
    return message


def test_missing_unexpected_and_misshapen_names_are_told() -> None:
    tensors = network(4).state_dict() | {f"extra{i}": torch.ones(1) for i in range(5)}
    del tensors["0.bias"]
    message = refused(network(), tensors)
    assert "1 missing: '0.bias'" in message
    assert "5 unexpected: 'extra0', 'extra1', 'extra2', ..." in message
    assert "5 of another shape or type: 0.weight (model [3, 2] float32, file [4, 2] float32), " in message
    assert message.count("(model ") == 3


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.bool])
def test_other_kinds_of_numbers_are_refused(dtype: torch.dtype) -> None:
    module = network()
    assert "0.bias" in refused(module, module.state_dict() | {"0.bias": torch.ones(3).to(dtype)})


def test_hostile_names_stay_on_one_line() -> None:
    module = network()
    assert refused(module, module.state_dict() | {"\x1b[2J\n" * 50: torch.ones(1)}).isprintable()


def test_shapes_are_checked_on_the_meta_device() -> None:
    with torch.device("meta"):
        module = nn.Linear(10**6, 10**6)
    check_weights(module, {"weight": torch.zeros(1).expand(10**6, 10**6), "bias": torch.zeros(10**6)}, "w.pt")
    with pytest.raises(CheckpointError, match="do not fit"):
        check_weights(module, nn.Linear(2, 2).state_dict(), "w.pt")


def test_lazy_layers_are_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="lazy"):
        load_weights(nn.Sequential(nn.LazyLinear(3)), {}, "w.pt")


def test_a_module_that_refuses_its_weights() -> None:
    class Stubborn(nn.Linear):
        def _load_from_state_dict(self, *arguments: object) -> None:
            raise RuntimeError("not\nme")

    module = Stubborn(2, 2)
    with pytest.raises(CheckpointError, match=r"refuses these weights \(not me\)"):
        load_weights(module, module.state_dict(), "w.pt")
