"""STRIP against a slow, obvious form of itself, and on a network whose backdoor is built by hand."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import entropy

from planted import planted_classifier, planted_images, planted_trigger
from untrojan.errors import DataError, UsageError
from untrojan.evaluation.evaluate import evaluate
from untrojan.guard.strip import Strip
from untrojan.setting import Setting

CLEAN, _ = planted_images(60, seed=1)
TEST, LABELS = planted_images(20, seed=2)


def strip(**options: float) -> Strip:
    return Strip(planted_classifier(), CLEAN, overlays=16, **options)


def test_the_entropy_is_that_of_each_blend_on_its_own() -> None:
    made, images = strip(alpha=0.3), TEST[::17].float() / 255
    for image, found in zip(images, made.entropy(images), strict=True):
        blends = [0.3 * image + 0.7 * overlay for overlay in made.overlays]
        answers = [made.victim(blend[None]).softmax(1)[0].double().numpy() for blend in blends]
        assert float(found) == pytest.approx(sum(map(entropy, answers)) / len(answers), abs=1e-5)


def test_triggered_images_are_flagged_and_few_clean_ones() -> None:
    made = strip()
    stamped = planted_trigger().stamp(TEST[LABELS != 3].float() / 255)
    assert made(stamped).triggered.float().mean() > 0.9
    assert 0.04 < made(TEST).triggered.float().mean() < 0.3, "15 % are meant to be"
    assert (made(stamped).score >= 0).all()
    assert (made(stamped).score <= 1).all()


@pytest.mark.parametrize("rate", [0.05, 0.15, 0.5])
def test_the_threshold_is_the_quantile_of_clean_images(rate: float) -> None:
    made = strip(false_positives=rate)
    held = torch.randperm(len(CLEAN), generator=torch.Generator().manual_seed(0))[16:]
    assert made(CLEAN[held]).triggered.float().mean() == pytest.approx(rate, abs=1.5 / len(held))


def test_it_answers_as_the_victim_does() -> None:
    classifier = planted_classifier()
    decision = Strip(classifier, CLEAN)(TEST)
    assert torch.equal(decision.labels, classifier.predict(TEST).argmax(1))
    assert torch.equal(decision.labels, decision.suspect_labels)


def test_a_decision_does_not_depend_on_the_batch() -> None:
    made = strip()
    whole, parts = made(TEST), [made(part) for part in TEST.split(7)]
    assert torch.equal(whole.triggered, torch.cat([part.triggered for part in parts]))


def test_the_same_seed_draws_the_same_overlays() -> None:
    assert torch.equal(strip(seed=4).overlays, strip(seed=4).overlays)
    assert not torch.equal(strip(seed=4).overlays, strip(seed=5).overlays)


def test_it_is_measured_as_a_guard_is() -> None:
    classifier = planted_classifier()
    made = Strip(classifier, CLEAN, overlays=16)
    result = evaluate(
        classifier, TEST, LABELS, guard=made, trigger=planted_trigger(), setting=Setting.parse("a2o:3"), batch_size=50
    )
    assert result.after is not None
    assert result.after.tpr is not None
    assert result.after.tpr.value > 0.9
    assert result.after.acc == result.before.acc, "it corrects nothing"
    assert result.counts.triggered is not None
    passed = result.cost.images_forward - 17 * (len(TEST) + result.counts.triggered)
    assert 0 <= passed <= 10, "each image once and in 16 blends, and a few that try what the network takes"


def test_the_classifier_is_left_in_its_mode() -> None:
    classifier = planted_classifier()
    classifier.train()
    Strip(classifier, CLEAN)(TEST)
    assert classifier.training


@pytest.mark.parametrize("options", [{"overlays": 0}, {"alpha": 1.0}, {"false_positives": 0.0}])
def test_settings_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="at least one overlay"):
        Strip(planted_classifier(), CLEAN, **options)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(DataError, match="at least 71 clean images, got 70"):
        Strip(planted_classifier(), CLEAN[:70])
    Strip(planted_classifier(), CLEAN[:71])
    Strip(planted_classifier(), CLEAN[:66], false_positives=0.5)
