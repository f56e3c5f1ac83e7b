from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from oracles.histogram import dense_histogram
from untrojan.correction.histogram import Bins, soft_histogram
from untrojan.errors import ShapeError, UsageError

TAUS = [10.0, 20.0, 50.0, 100.0, 150.0, 500.0]
WIDTHS = [0.02, 0.05, 0.1, 0.25, 0.5]
GRID = pytest.mark.parametrize(("tau", "width"), [(tau, width) for tau in TAUS for width in WIDTHS])
LAYOUTS = {
    "contiguous": lambda v: v.contiguous(),
    "channels_last": lambda v: v.contiguous(memory_format=torch.channels_last),
    "flat": lambda v: v[:, :, 0, 0],
    "sequence": lambda v: v.flatten(2),
    "strided": lambda v: v[::2, :, :, 1:],
    "channels_last, strided": lambda v: v.contiguous(memory_format=torch.channels_last)[:, :, 1::2, ::2],
    "one position": lambda v: v[:, :, :1, :1],
}
LOW, HIGH = torch.tensor([-1.5, 0.3, 2.0, -3.0, 0.0]), torch.tensor([1.5, 0.3, 2.0, 0.5, 0.0])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def example(width: float, dtype: torch.dtype = torch.float64, images: int = 6) -> tuple[Tensor, Bins]:
    """Values inside, outside and far outside of bins of very different number: about 3/width, 1, 2, 3.5/width, 1."""
    bins = Bins.between(LOW.to(dtype), HIGH.to(dtype) + torch.tensor([0, 0, 1.5 * width, 0, 0], dtype=dtype), width)
    assert bins.counts.tolist()[1:3] == [1, 2]
    noise = torch.randn(images, 5, 3, 4, generator=generator(), dtype=torch.float64)
    values = noise * 1.5 + bins.low.double()[None, :, None, None] + 0.5
    values[0, :, 0, 0] = 1e6
    values[1, :, 0, 0] = -1e6
    values[2, :, 0, 0] = bins.low.double()
    return values.to(dtype), bins


def dense(values: Tensor, bins: Bins, tau: float) -> Tensor:
    return dense_histogram(values, bins.low, bins.counts, bins.width, tau)


def of_channel(histogram: Tensor, bins: Bins, channel: int) -> Tensor:
    return histogram[int(bins.starts[channel]) :][: int(bins.counts[channel])]


@GRID
def test_it_is_the_dense_histogram(tau: float, width: float) -> None:
    values, bins = example(width)
    for name, layout in LAYOUTS.items():
        laid = layout(values)
        difference = soft_histogram(laid, bins, tau) - dense(laid, bins, tau)
        assert difference.abs().max() <= 1e-6, name


@GRID
def test_its_gradient_is_the_dense_one(tau: float, width: float) -> None:
    values, bins = example(width)
    weights = torch.randn(bins.total, generator=generator(1), dtype=values.dtype)
    for name, layout in LAYOUTS.items():
        own, wanted = (layout(values).detach().requires_grad_() for _ in range(2))
        (soft_histogram(own, bins, tau) * weights).sum().backward()
        (dense(wanted, bins, tau) * weights).sum().backward()
        assert own.grad.shape == own.shape
        assert (own.grad - wanted.grad).abs().max() <= 1e-5 * wanted.grad.abs().max(), name
        assert wanted.grad[:, 0].abs().max() > 0
        for channel in (1, 4):
            assert not own.grad[:, channel].any(), "one bin is constant"


@GRID
def test_shares_of_a_channel_add_up_to_one(tau: float, width: float) -> None:
    values, bins = example(width)
    histogram = soft_histogram(values, bins, tau)
    for channel in range(5):
        assert of_channel(histogram, bins, channel).sum().item() == pytest.approx(1, abs=1e-12)
    assert of_channel(histogram, bins, 1).tolist() == [1.0]


@GRID
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "flat"])
def test_single_precision_is_right_to_1e_5(tau: float, width: float, layout: str) -> None:
    values, bins = example(width, torch.float32, images=64)
    laid = LAYOUTS[layout](values)
    histogram = soft_histogram(laid, bins, tau)
    assert histogram.dtype == torch.float32
    exact = dense(laid.double(), Bins(bins.low.double(), bins.counts, width), tau)
    assert (histogram - exact).abs().max() <= 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("tau", "width"), [(5.0, 0.1), (10.0, 0.1), (2.0, 1.0), (150.0, 0.1)])
def test_gradcheck(tau: float, width: float, layout: str) -> None:
    """With at most 12 bins ``reach`` covers every edge at the first three, at the last nothing is left to cut off."""
    bins = Bins(torch.tensor([-0.5, 0.0, 0.2]).double(), torch.tensor([12, 1, 2]), width)
    noise = torch.rand(3, 3, 2, 2, generator=generator(), dtype=torch.float64)
    values = LAYOUTS[layout](noise * 14 * width - 0.5 - width).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: soft_histogram(v, bins, tau), values, eps=1e-7, atol=1e-5)


def test_a_second_derivative_is_refused_not_wrong() -> None:
    values, bins = example(0.1)
    values.requires_grad_()
    (gradient,) = torch.autograd.grad(soft_histogram(values, bins, 150.0).square().sum(), values, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_infinite_values_fall_into_the_outer_bins_and_get_no_gradient() -> None:
    bins = Bins(torch.tensor([0.0]), torch.tensor([4]), 0.5)
    values = torch.tensor([[torch.inf], [-torch.inf], [torch.inf], [1e30]], requires_grad=True)
    histogram = soft_histogram(values, bins, 20.0)
    assert histogram.tolist() == [0.25, 0, 0, 0.75]
    histogram[0].backward()
    assert not values.grad.any()


def test_values_are_left_as_they_are() -> None:
    values, bins = example(0.1)
    before, version = values.clone(), values._version
    soft_histogram(values.requires_grad_(), bins, 150.0).sum().backward()
    assert torch.equal(values, before)
    assert values._version == version


shapes = {"images": st.integers(1, 5), "seed": st.integers(0, 10_000)}
sharpness = {"tau": st.floats(1, 1000), "width": st.floats(0.01, 2)}


def random_example(images: int, seed: int, width: float) -> tuple[Tensor, Bins]:
    g = generator(seed)
    counts = torch.randint(1, 20, (3,), generator=g)
    low = torch.randn(3, generator=g, dtype=torch.float64)
    inside = torch.rand(images, 3, 4, generator=g, dtype=torch.float64) * 1.5 - 0.25
    return low[:, None] + inside * (counts * width)[:, None], Bins(low, counts, width)


@settings(deadline=None, max_examples=60)
@given(**shapes, **sharpness)
def test_any_bins_and_values_agree_with_the_dense_form(images: int, seed: int, tau: float, width: float) -> None:
    values, bins = random_example(images, seed, width)
    assert (soft_histogram(values, bins, tau) - dense(values, bins, tau)).abs().max() <= 1e-6


@settings(deadline=None, max_examples=30)
@given(**shapes, **sharpness)
def test_the_order_of_images_does_not_matter(images: int, seed: int, tau: float, width: float) -> None:
    values, bins = random_example(images, seed, width)
    mixed = values[torch.randperm(images, generator=generator(seed))]
    assert torch.allclose(soft_histogram(mixed, bins, tau), soft_histogram(values, bins, tau), rtol=0, atol=1e-12)
    repeated = soft_histogram(torch.cat([values, values]), bins, tau)
    assert torch.allclose(repeated, soft_histogram(values, bins, tau), rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(**shapes, **sharpness)
def test_values_one_bin_further_right_are_found_there(images: int, seed: int, tau: float, width: float) -> None:
    values, bins = random_example(images, seed, width)
    before, after = soft_histogram(values, bins, tau), soft_histogram(values + width, bins, tau)
    for channel, count in enumerate(bins.counts.tolist()):
        old, new = of_channel(before, bins, channel), of_channel(after, bins, channel)
        assert torch.allclose(new.cumsum(0)[1:-1], old.cumsum(0)[:-2], rtol=0, atol=2e-6), count


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), width=st.floats(0.01, 2))
def test_a_sharp_histogram_is_a_hard_one(seed: int, width: float) -> None:
    values, bins = random_example(4, seed, width)
    middles = ((values - bins.low[:, None]) / width).floor() + 0.5
    histogram = soft_histogram(bins.low[:, None] + middles * width, bins, 100 / width)
    for channel, count in enumerate(bins.counts.tolist()):
        edges = torch.tensor([-torch.inf, *range(1, count), torch.inf], dtype=torch.float64)
        hard = torch.histogram(middles[:, channel].clamp(-1e9, 1e9), bins=edges.clamp(-1e10, 1e10)).hist
        assert torch.allclose(of_channel(histogram, bins, channel), hard / hard.sum(), atol=1e-9)


def test_bins_cover_the_range() -> None:
    low, high = torch.tensor([0.0, 1.0, -1.0, 0.0, 2.0]), torch.tensor([1.0, 1.05, 1.01, 0.0, 1.0])
    bins = Bins.between(low, high, 0.1)
    assert bins.counts.tolist() == [10, 1, 21, 1, 1]
    assert bins.counts.dtype == torch.int64
    assert bins.starts.tolist() == [0, 10, 11, 32, 33]
    assert bins.total == 34
    assert torch.equal(bins.low, low)


def test_exploding_activations_get_a_bounded_number_of_bins() -> None:
    bins = Bins.between(torch.tensor([0.0, 0.0]), torch.tensor([1e30, 1.0]), 0.1, most=50)
    assert bins.counts.tolist() == [50, 10]
    values = torch.tensor([[4.95, 0.5], [1e29, 0.5]]).double()
    assert of_channel(soft_histogram(values, bins, 150.0), bins, 0)[-1].item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("width", [0.0, -0.1, float("nan"), float("inf")])
def test_widths_that_are_none(width: float) -> None:
    with pytest.raises(UsageError, match="the bin width must be positive"):
        Bins.between(torch.zeros(1), torch.ones(1), width)


def test_values_that_do_not_fit() -> None:
    bins = Bins.between(torch.zeros(3), torch.ones(3), 0.1)
    for shape in [(3,), (2, 4), (2, 2, 3), (0, 3), (2, 3, 0)]:
        with pytest.raises(ShapeError, match=r"expected values \[N, 3, \.\.\.\]"):
            soft_histogram(torch.zeros(shape), bins, 150.0)
    for tau in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="tau must be positive"):
            soft_histogram(torch.zeros(2, 3), bins, tau)
