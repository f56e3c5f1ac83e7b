"""From scores to p-values, and what a reference set spans."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, kstest

from search_tables import network, table
from untrojan.detection.reference import (
    Reference,
    ReferenceModel,
    built_in,
    read_reference,
    tail_p_value,
)
from untrojan.detection.score import SCOPES, hypotheses, largest, log_odds, scored
from untrojan.errors import CheckpointError


def test_p_values_of_left_out_values_are_uniform_whatever_the_law() -> None:
    """Conformal ones are by construction, and the fitted tail must not spoil it: a heavy and a light law."""
    lot = np.random.default_rng(0)
    for law in (lot.standard_normal, lot.standard_exponential, lambda n: lot.standard_t(5, n)):
        told = np.array([tail_p_value(np.sort(law(200)), float(law(1)[0])) for _ in range(1500)])
        assert kstest(told, "uniform").pvalue > 1e-3
        assert (told < 0.01).sum() <= binom.ppf(0.999, 1500, 0.01)


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=80), st.floats(-60, 60), st.floats(0, 20))
def test_a_higher_score_is_never_more_usual(clean: list[float], value: float, more: float) -> None:
    clean = sorted(clean)
    assert 0 < tail_p_value(clean, value + more) <= tail_p_value(clean, value) <= 1


def test_few_models_cannot_say_that_anything_is_rare() -> None:
    assert tail_p_value([0.0] * 9, 1e6) == pytest.approx(0.1)
    assert tail_p_value([], 3.0) == 1.0
    few = Reference(weights={}, limits={}, models=(ReferenceModel(family="a", classes=5, log_odds=0.0),))
    assert few.p_value(99.0) == pytest.approx(0.5)


def models(count: int = 60) -> tuple[ReferenceModel, ...]:
    lot = np.random.default_rng(1)
    drawn = [float(lot.standard_normal()) for _ in range(count)]
    return tuple(ReferenceModel(family=f"family {n % 3}", classes=10, log_odds=one) for n, one in enumerate(drawn))


def test_more_clean_models_make_their_own_scores_usual() -> None:
    weights = {"target-wise": {"joint lead": 4.0, "intercept": -3.0}}
    tables = [table(seed=seed) for seed in range(40)]
    reference = Reference(weights=weights, limits={}, models=()).extended(tables, "ours")
    assert reference.limits == {
        "classes": 10.0,
        "side": 28.0,
        "skill": pytest.approx(0.9 - 0.1 / 9, abs=0.02),
        "unknown": 0.0,
    }
    attacked = [table(seed=100 + seed, target=2) for seed in range(12)]
    score = largest(reference.scored(attacked[0]))
    more = reference.extended(attacked, "theirs")
    assert reference.p_value(score) < 0.01 < 0.03 < more.p_value(score)
    assert [one.family for one in more.models].count("theirs") == 12


def test_what_no_model_is_like_is_named() -> None:
    reference = Reference(weights={}, limits={"classes": 43.0, "side": 64.0, "skill": 0.2}, models=models())
    assert reference.outside(network(10)) == ()
    assert reference.outside(network(100)) == ("no reference model has more than 43 classes, and this one has 100",)
    large = dataclasses.replace(network(), input_shape=(3, 224, 200))
    assert "more than 64 pixels a side, and this one takes 224" in reference.outside(large)[0]
    poor = network(10, accuracy=0.2)
    assert "less than 0.2 of what guessing leaves right" in reference.outside(poor)[0]
    counts = np.array(network(10).confusion).reshape(10, 10)
    counts[3] = np.roll(counts[3], 1)
    unsure = dataclasses.replace(network(10), confusion=tuple(counts.ravel().tolist()))
    even = Reference(weights={}, limits={"unknown": 0.0}, models=models())
    assert even.outside(network(10)) == ()
    assert "less than a fifth of the images right of more than 0 of its classes" in even.outside(unsure)[0]
    assert even.outside(network(10, accuracy=0.28)) == ()
    assert even.outside(network(3, accuracy=0.28)), "guessing gives a third"


def test_a_file_holds_all_of_it(tmp_path: Path) -> None:
    reference = Reference(weights={"untargeted": {"mapping": 2.0}}, limits={"classes": 3.0}, models=models(3))
    (tmp_path / "r.json").write_text(reference.model_dump_json())
    assert read_reference(tmp_path / "r.json") == reference


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": "untrojan-reference-9"}', json.dumps({"weights": 3})])
def test_a_wrong_file_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(CheckpointError, match="not a reference set"):
        read_reference(tmp_path / "r.json")


def test_the_one_that_comes_with_the_package_spans_many_families() -> None:
    reference = built_in()
    assert len({one.family for one in reference.models}) >= 12
    assert set(reference.weights) == set(SCOPES)
    assert all(w >= 0 for own in reference.weights.values() for name, w in own.items() if name != "intercept")


def test_the_likeliest_hypothesis_comes_first_and_one_of_many_counts_less() -> None:
    weights = {scope: {"joint lead": 4.0, "intercept": -2.0} for scope in SCOPES}
    found = scored(hypotheses(table(target=6)), weights)
    assert found["target-wise"][0].hypothesis.target == 6
    assert [one.log_odds for one in found["target-wise"]] == sorted(
        (one.log_odds for one in found["target-wise"]), reverse=True
    )
    best = found["target-wise"][0]
    assert log_odds(best.hypothesis, weights["target-wise"], 1) == pytest.approx(best.log_odds + np.log(10))
