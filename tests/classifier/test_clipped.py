from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from untrojan.classifier.clipped import clipped_affine


def plain(x: Tensor, scale: Tensor, offset: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The definition, left to autograd."""
    scale, offset, low, high = (t.view(*t.shape, *(1,) * (x.ndim - 2)) for t in (scale, offset, low, high))
    return torch.clamp(x * scale + offset, low, high)


def example(shape: tuple[int, ...], rows: int, seed: int = 0, reach: float = 0.8) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    draws = [torch.randn(rows, shape[1], dtype=torch.float64, generator=g) for _ in range(2)]
    width = reach * torch.rand(2, rows, shape[1], dtype=torch.float64, generator=g)
    x = torch.randn(shape, dtype=torch.float64, generator=g)
    return [x, draws[0], draws[1], draws[1] - width[0], draws[1] + width[1]]


@given(
    images=st.integers(1, 4),
    channels=st.integers(1, 3),
    sides=st.sampled_from([(), (3,), (2, 3)]),
    seed=st.integers(0, 99),
)
def test_it_and_its_gradient_are_those_of_the_definition(
    images: int, channels: int, sides: tuple[int, ...], seed: int
) -> None:
    for rows in {1, images}:
        values = example((images, channels, *sides), rows, seed)
        weights = torch.randn(values[0].shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        leaves = [v.requires_grad_() for v in values]
        got, wanted = clipped_affine(*leaves), plain(*leaves)
        assert torch.equal(got, wanted)
        for own, other in zip(
            torch.autograd.grad((got * weights).sum(), leaves),
            torch.autograd.grad((wanted * weights).sum(), leaves),
            strict=True,
        ):
            assert own.shape == other.shape
            assert torch.allclose(own, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_without_gradient_the_answer_is_the_same_and_the_input_stays(layout: torch.memory_format) -> None:
    x, *others = example((3, 4, 5, 2), 1)
    x = x.contiguous(memory_format=layout)
    before = x.clone()
    with torch.no_grad():
        got = clipped_affine(x, *others)
    assert torch.equal(got, plain(x, *others))
    assert torch.equal(x, before)
    assert got.is_contiguous(memory_format=layout)


def test_a_bound_that_nothing_reaches_gets_exactly_no_gradient() -> None:
    """Adam's step does not depend on how large a gradient is, so what rounding leaves would move it."""
    x, scale, offset, low, high = (t.float() for t in example((64, 5, 7, 7), 1))
    low, high = low.fill_(-1e3).requires_grad_(), high.requires_grad_()
    clipped_affine(x, scale, offset, low, high).square().sum().backward()
    assert not low.grad.any()
    assert high.grad.all()


def test_bounds_may_be_infinite() -> None:
    x, scale, offset, *_ = example((4, 3, 2), 1)
    none = [torch.full((1, 3), sign * torch.inf, dtype=torch.float64).requires_grad_() for sign in (-1, 1)]
    x.requires_grad_()
    answer = clipped_affine(x, scale, offset, *none)
    assert torch.equal(answer, x * scale[..., None] + offset[..., None])
    answer.sum().backward()
    assert torch.equal(x.grad, scale[..., None].expand_as(x))
    assert not any(bound.grad.any() for bound in none)


def test_where_the_bounds_have_crossed_the_upper_one_counts() -> None:
    x, scale, offset, low, high = example((4, 3), 1)
    leaves = [x, scale, offset, high.requires_grad_(), low.requires_grad_()]  # the higher one as the lower bound
    got = clipped_affine(*leaves)
    assert torch.equal(got, plain(*leaves))
    assert torch.equal(got, low.expand_as(got))
    got.sum().backward()
    assert torch.equal(low.grad, torch.full_like(low, 4.0))


def test_a_second_derivative_is_refused_not_wrong() -> None:
    values = [v.requires_grad_() for v in example((2, 3), 1)]
    (gradient,) = torch.autograd.grad(clipped_affine(*values).square().sum(), values[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
