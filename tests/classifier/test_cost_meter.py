from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from untrojan.classifier.cost import CostMeter
from untrojan.classifier.state import as_found


def test_passes_are_counted_by_whether_a_gradient_is_wanted() -> None:
    module = nn.Linear(2, 2)
    with CostMeter(module) as meter:
        with torch.no_grad():
            module(torch.ones(5, 2))
        module(torch.ones(3, 2))
        with as_found(module):
            module(torch.ones(7, 2))
            module(torch.ones(11, 2, requires_grad=True)).sum().backward()
    cost = meter.cost()
    assert (cost.images_forward, cost.images_forward_backward) == (12, 14)


def test_keyword_arguments_and_other_outputs() -> None:
    class Odd(nn.Module):
        def forward(self, *, images: torch.Tensor, as_tuple: bool = False) -> object:
            return (images,) if as_tuple else images

    module = Odd()
    with CostMeter(module) as meter:
        module(images=torch.ones(4, 2))
        module(images=torch.ones(4, 2), as_tuple=True)
    assert meter.images_forward == 4


def test_seconds_are_those_inside() -> None:
    meter = CostMeter(nn.Linear(2, 2))
    assert meter.seconds == 0
    with meter:
        time.sleep(0.02)
        assert meter.seconds >= 0.02
    inside = meter.seconds
    time.sleep(0.02)
    assert meter.seconds == inside == meter.cost().seconds


def test_hooks_are_gone_after_an_error_too() -> None:
    module = nn.Linear(2, 2)
    meter = CostMeter(module)
    with pytest.raises(ValueError), meter:
        raise ValueError
    assert not module._forward_hooks
    module(torch.ones(5, 2))
    assert meter.images_forward == 0


def test_entering_again_goes_on_and_nesting_counts_once() -> None:
    module = nn.Linear(2, 2).requires_grad_(False)
    meter = CostMeter(module)
    for _ in range(2):
        with meter:
            with meter:
                module(torch.ones(5, 2))
            module(torch.ones(1, 2))
    assert meter.images_forward == 12
    assert not module._forward_hooks


def test_meters_are_independent() -> None:
    module = nn.Linear(2, 2).requires_grad_(False)
    with CostMeter(module) as outer:
        module(torch.ones(1, 2))
        with CostMeter(module) as inner:
            module(torch.ones(2, 2))
        module(torch.ones(4, 2))
    assert (outer.images_forward, inner.images_forward) == (7, 2)


def test_as_found_inside_keeps_the_meter() -> None:
    module = nn.Linear(2, 2)
    with CostMeter(module) as meter:
        with as_found(module):
            module(torch.ones(2, 2))
        with torch.no_grad():
            module(torch.ones(3, 2))
    assert meter.images_forward == 5
