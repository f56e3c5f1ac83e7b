"""Theorem 3.1: two derivations and a simulation agree, and its conditions are examined."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from untrojan.errors import UsageError
from untrojan.theory import (
    Problem,
    between,
    learnt_problem,
    margins,
    reversal,
    sia,
    sia_between,
    simulated_sia,
    source_accuracy,
)


def drawn(seed: int, sigma_b: float = 0.7) -> Problem:
    """Any classifier at all, attacked or not."""
    generator = np.random.default_rng(seed)
    nodes, inputs = 5, 7
    return Problem(
        weights=generator.standard_normal((nodes, inputs)),
        readout=generator.standard_normal(nodes),
        gamma=generator.standard_normal(nodes),
        beta=generator.standard_normal(nodes),
        mean=generator.standard_normal(nodes),
        variance=generator.uniform(0.2, 3.0, nodes),
        mu=generator.standard_normal(inputs),
        shift=generator.standard_normal(inputs),
        sigma=1.3,
        sigma_b=sigma_b,
    )


def learnt(sigma_b: float) -> Problem:
    return learnt_problem(inputs=20, nodes=40, sigma=0.5, sigma_b=sigma_b, poisoned=0.2, strength=4.0, seed=0)


@given(st.integers(0, 10_000), st.floats(0.1, 5.0))
@settings(max_examples=50, deadline=None)
def test_the_reversal_gives_triggered_images_the_activations_of_clean_ones(seed: int, sigma_b: float) -> None:
    problem = drawn(seed, sigma_b)
    mean, variance = reversal(problem)
    centre = problem.weights @ (problem.shift - problem.mu)
    lengths = np.linalg.norm(problem.weights, axis=1)
    clean = (-(problem.weights @ problem.mu) - problem.mean) / np.sqrt(problem.variance)
    assert np.allclose((centre - mean) / np.sqrt(variance), clean)
    assert np.allclose(sigma_b * lengths / np.sqrt(variance), problem.sigma * lengths / np.sqrt(problem.variance))


@given(st.integers(0, 10_000), st.floats(0.1, 5.0), st.floats(0.0, 1.0))
@settings(max_examples=100, deadline=None)
def test_between_the_ends_the_probit_of_sia_is_a_straight_line(seed: int, sigma_b: float, alpha: float) -> None:
    problem = drawn(seed, sigma_b)
    accuracy, asr = source_accuracy(problem), 1 - sia(problem, 1.0)
    if 1e-9 < accuracy < 1 - 1e-9 and 1e-9 < asr < 1 - 1e-9:
        assert sia(problem, alpha) == pytest.approx(sia_between(accuracy, asr, alpha), abs=1e-6)


@given(st.integers(0, 10_000), st.floats(0.1, 5.0))
@settings(max_examples=100, deadline=None)
def test_sia_falls_exactly_if_accuracy_and_asr_exceed_one_together(seed: int, sigma_b: float) -> None:
    problem = drawn(seed, sigma_b)  # sigma_b on both sides of sigma
    accuracy, asr = source_accuracy(problem), 1 - sia(problem, 1.0)
    curve = np.diff([sia(problem, alpha) for alpha in np.linspace(0, 1, 21)])
    if abs(accuracy + asr - 1) > 1e-6:
        assert (curve <= 1e-12).all() == (accuracy + asr > 1)


@pytest.mark.parametrize("sigma_b", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.6, 1.0])
def test_a_simulation_agrees_within_its_interval(sigma_b: float, alpha: float) -> None:
    problem = learnt(sigma_b)
    rate = simulated_sia(problem, alpha, samples=20_000, seed=3)
    slack = rate.high - rate.low  # twice the half-width: one of twelve intervals may miss
    assert abs(rate.value - sia(problem, alpha)) < slack


def test_the_learnt_classifier_is_attacked() -> None:
    problem = learnt(0.5)
    assert source_accuracy(problem) > 0.9
    assert 1 - sia(problem, 1.0) > 0.9
    assert sia(problem, 0.0) == pytest.approx(source_accuracy(problem))


def test_the_ends_of_the_transition() -> None:
    problem = drawn(1)
    assert np.allclose(between(problem, 1.0), (problem.mean, problem.variance))
    assert np.allclose(between(problem, 0.0), reversal(problem))


def test_the_sign_of_the_margin_is_the_class() -> None:
    problem = learnt(0.5)
    assert margins(problem, -problem.mu[None])[0] > 0 > margins(problem, problem.mu[None])[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma": 0.0}, "positive"),
        ({"variance": np.zeros(5)}, "positive"),
        ({"readout": np.ones(4)}, "readout must have one value for each of 5 nodes"),
        ({"mu": np.ones(5)}, "mu must have one value for each of 7 inputs"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(drawn(0), **change)


def test_a_simulation_without_samples_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one"):
        simulated_sia(drawn(0), 0.5, samples=0, seed=0)
