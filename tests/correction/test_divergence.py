from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy, wasserstein_distance
from torch import Tensor

from untrojan.correction.divergence import DIVERGENCES, jensen_shannon, kullback_leibler, total_variation, wasserstein

seeds = st.integers(0, 100_000)


def shares(seed: int, bins: int = 12, least: float = 1e-4) -> Tensor:
    """A histogram of which no bin is below ``least``."""
    weights = np.random.default_rng(seed).dirichlet(np.ones(bins))
    return torch.from_numpy((weights + least) / (weights + least).sum())


@settings(deadline=None)
@given(seeds, seeds)
def test_they_are_what_scipy_says(one: int, other: int) -> None:
    p, q = shares(one), shares(other)
    assert total_variation(p, q).item() == pytest.approx(np.abs(p.numpy() - q.numpy()).sum() / 2, abs=1e-12)
    assert jensen_shannon(p, q).item() == pytest.approx(2 * jensenshannon(p.numpy(), q.numpy()) ** 2, abs=1e-12)
    assert kullback_leibler(p, q).item() == pytest.approx(entropy(p.numpy(), q.numpy()), abs=1e-12)
    places = np.arange(len(p))
    assert wasserstein(p, q).item() == pytest.approx(wasserstein_distance(places, places, p, q), abs=1e-10)
    # Concatenated channels, each of which sums to 1, do not mix.
    both = wasserstein(torch.cat([p, q]), torch.cat([q, q]))
    assert both.item() == pytest.approx(wasserstein(p, q).item(), abs=1e-10)


@settings(deadline=None)
@given(seeds, seeds)
def test_they_are_the_f_divergences_of_the_paper(one: int, other: int) -> None:
    p, q = shares(one), shares(other)
    r = p / q
    generators = {
        "tv": (r - 1).abs() / 2,
        "js": r * torch.log(2 * r / (r + 1)) + torch.log(2 / (r + 1)),
        "kl": r * torch.log(r),
    }
    assert generators.keys() | {"w1"} == DIVERGENCES.keys()
    for name, k in generators.items():
        assert DIVERGENCES[name](p, q).item() == pytest.approx((q * k).sum().item(), abs=1e-10)


def test_known_values() -> None:
    p, q = torch.tensor([0.5, 0.5, 0.0]).double(), torch.tensor([0.0, 0.5, 0.5]).double()
    assert total_variation(p, q).item() == 0.5
    assert jensen_shannon(p, q).item() == pytest.approx(math.log(2), abs=1e-4)
    one, other = torch.tensor([1.0, 0.0]).double(), torch.tensor([0.0, 1.0]).double()
    assert total_variation(one, other).item() == 1
    assert jensen_shannon(one, other).item() == pytest.approx(2 * math.log(2), abs=1e-4)
    assert kullback_leibler(one, other).item() == pytest.approx(math.log(1e6), rel=1e-4)
    assert kullback_leibler(torch.tensor([0.75, 0.25]), torch.tensor([0.5, 0.5])).item() == pytest.approx(
        0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-6
    )


@pytest.mark.parametrize("name", DIVERGENCES)
def test_equal_histograms_are_at_distance_zero_and_others_are_not(name: str) -> None:
    divergence = DIVERGENCES[name]
    for p in (shares(1), torch.tensor([1.0, 0.0, 0.0])):
        assert divergence(p, p).item() == pytest.approx(0, abs=1e-12)
    for seed in range(20):
        assert divergence(shares(seed), shares(seed + 1)) > 1e-3


@pytest.mark.parametrize("name", DIVERGENCES)
def test_channels_end_to_end_are_summed(name: str) -> None:
    divergence, parts = DIVERGENCES[name], [(shares(s, 5), shares(s + 50, 5)) for s in range(4)]
    together = divergence(torch.cat([p for p, _ in parts]), torch.cat([q for _, q in parts]))
    assert together.item() == pytest.approx(sum(divergence(p, q).item() for p, q in parts), abs=1e-12)


@pytest.mark.parametrize("name", ["tv", "js"])
def test_these_do_not_care_about_the_order(name: str) -> None:
    for seed in range(5):
        p, q = shares(seed), shares(seed + 1)
        assert DIVERGENCES[name](p, q).item() == pytest.approx(DIVERGENCES[name](q, p).item(), abs=1e-14)


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_empty_bins_are_harmless(name: str, dtype: torch.dtype) -> None:
    p = torch.tensor([0.5, 0.5, 0.0, 0.0, 1.0, 0.0], dtype=dtype, requires_grad=True)
    q = torch.tensor([0.5, 0.0, 0.5, 0.0, 1.0, -1e-9], dtype=dtype, requires_grad=True)
    distance = DIVERGENCES[name](p, q)
    distance.backward()
    assert torch.isfinite(distance)
    assert distance > 0.1
    assert torch.isfinite(p.grad).all()
    assert torch.isfinite(q.grad).all()


@pytest.mark.parametrize("name", DIVERGENCES)
def test_gradients_are_exact(name: str) -> None:
    p, q = shares(3).requires_grad_(), shares(4).requires_grad_()
    assert torch.autograd.gradcheck(DIVERGENCES[name], (p, q))
