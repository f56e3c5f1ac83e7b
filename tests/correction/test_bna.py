"""BNA's objective, where its minimum is known."""

from __future__ import annotations

import pytest
import torch

from planted import planted_classifier, planted_images, planted_trigger
from untrojan.classifier.corrected import CorrectedClassifier
from untrojan.correction import BNA, Task
from untrojan.correction.bna import NoNumbersError, _Objective, blended, stamp_mixture, thinned
from untrojan.correction.divergence import DIVERGENCES
from untrojan.correction.moves import PARAMETERS, clean_activations
from untrojan.errors import UntrojanError, UsageError
from untrojan.progress import Silent
from untrojan.triggers import AdditiveTrigger, PatchTrigger


@pytest.mark.parametrize("pairing", [True, False])
def test_both_terms_are_zero_at_the_start_for_a_trigger_that_does_nothing(pairing, monkeypatch):
    """Clean images are compared with themselves: the target class's never with the sources'."""
    distances = []
    tv = DIVERGENCES["tv"]

    def recorded(wanted, got):
        distances.append(tv(wanted, got))
        return distances[-1]

    monkeypatch.setitem(DIVERGENCES, "tv", recorded)
    classifier = planted_classifier()
    images, labels = planted_images(12)
    floats = images.float() / 255
    task = Task(3, floats[labels != 3], floats[labels == 3], [AdditiveTrigger(torch.zeros(1, 8, 8))])
    method = BNA(steps=1, batch_size=len(task.sources), pairing=pairing, clean_weight=1.0)
    method.fit(classifier, task, generator=torch.Generator().manual_seed(0), progress=Silent())
    assert len(distances) == 2
    for distance in distances:
        assert float(distance.detach().abs().max()) < 1e-3


def test_epochs_take_the_place_of_steps():
    shown = []

    class Seen(Silent):
        def start(self, task, total):
            shown.append(total)

    images, labels = planted_images(12)
    floats = images.float() / 255
    task = Task(3, floats[labels != 3], floats[labels == 3], [AdditiveTrigger(torch.zeros(1, 8, 8))])
    method = BNA(**BNA.paper() | {"epochs": 2, "batch_size": 20})
    method.fit(planted_classifier(), task, generator=torch.Generator().manual_seed(0), progress=Seen())
    assert shown == [2 * 3]
    assert len(task.sources) == 48


def test_thinned_takes_every_kth_place_from_a_corner():
    maps, tokens = torch.arange(96).view(1, 1, 8, 12), torch.arange(21).view(1, 1, 21)
    assert thinned(maps, 4, (0.6, 0.9)).flatten().tolist() == [r * 12 + c for r in (1, 3, 5, 7) for c in (2, 5, 8, 11)]
    assert thinned(tokens, 2, (0.5, 0.9)).flatten().tolist() == [2, 7, 12, 17]
    for values in (maps, tokens, torch.rand(3, 4)):
        for grid, corner in ((0, (0.5, 0.5)), (2, None), (12, (0.9, 0.9))):
            assert torch.equal(thinned(values, grid, corner), values)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"attempts": 0},
        {"epochs": 0},
        {"batch_size": 1},
        {"magnitude": 0.5},
        {"tau": 0.0},
        {"bin_width": 1e-9},
        {"bin_width": -1.0},
    ],
)
def test_a_senseless_option_is_refused(wrong):
    with pytest.raises(UsageError):
        BNA(**wrong)


def test_with_their_weight_answers_come_nearer_to_those_of_the_clean_images():
    classifier = planted_classifier()
    images, labels = planted_images(24)
    floats = images.float() / 255
    task = Task(3, floats[labels != 3], floats[labels == 3], [planted_trigger()])
    losses = []
    for weight in (0.0, 1e4):
        method = BNA(steps=60, answer_weight=weight)
        theta = method.fit(classifier, task, generator=torch.Generator().manual_seed(0), progress=Silent())
        corrected = CorrectedClassifier(classifier)
        corrected.load_theta(theta)
        stamped = planted_trigger().apply(task.sources)
        with torch.no_grad():
            wanted, given = classifier(task.sources).log_softmax(1), corrected(stamped).log_softmax(1)
        losses.append(float((wanted.exp() * (wanted - given)).sum(1).mean()))
    assert losses[1] < losses[0]


def test_a_rate_that_is_too_large_is_told():
    classifier = planted_classifier()
    images, labels = planted_images(4)
    floats = images.float() / 255
    task = Task(3, floats[labels != 3], floats[labels == 3], [planted_trigger()])
    with pytest.raises(UntrojanError, match=r"diverged.* below 1e\+06"):
        BNA(steps=30, learning_rate=1e6).fit(
            classifier, task, generator=torch.Generator().manual_seed(0), progress=Silent()
        )


def in_other_units(unit):
    """The planted classifier with activations in front of its BatchNorm ``unit`` times as large: the same function."""
    classifier = planted_classifier()
    module = classifier.module
    with torch.no_grad():
        module.read.weight.mul_(unit)
        module.norm.running_mean.mul_(unit)
        module.norm.running_var.mul_(unit**2)
    module.norm.eps *= unit**2
    return classifier


@pytest.mark.parametrize(("unit", "spread", "repaired"), [(1, True, 1), (1 / 128, True, 1), (1 / 128, False, 0)])
def test_in_units_of_the_spread_it_does_not_matter_how_large_activations_are(unit, spread, repaired):
    images, labels = planted_images(24)
    floats, away = images.float() / 255, labels != 3
    classifier = in_other_units(unit)
    assert torch.allclose(classifier(floats), planted_classifier()(floats), atol=1e-4)
    task = Task(3, floats[away], floats[~away], [planted_trigger()])
    theta = BNA(steps=40, spread=spread, attempts=1).fit(
        classifier, task, generator=torch.Generator().manual_seed(0), progress=Silent()
    )
    corrected = CorrectedClassifier(classifier)
    corrected.load_theta(theta)
    answers = corrected(planted_trigger().stamp(floats[away])).argmax(1)
    assert (answers == labels[away]).float().mean() == pytest.approx(repaired, abs=0.05)


def test_a_correction_that_has_diverged_is_done_again_in_smaller_steps():
    shown = []

    class Seen(Silent):
        def start(self, task, total):
            shown.append(task)

    images, labels = planted_images(24)
    floats, away = images.float() / 255, labels != 3
    classifier = in_other_units(1 / 128)
    task = Task(3, floats[away], floats[~away], [planted_trigger()])
    theta = BNA(steps=40, spread=False).fit(
        classifier, task, generator=torch.Generator().manual_seed(0), progress=Seen()
    )
    assert shown[:2] == ["correcting target 3", "correcting target 3, in smaller steps"]
    corrected = CorrectedClassifier(classifier)
    corrected.load_theta(theta)
    answers = corrected(planted_trigger().stamp(floats[away])).argmax(1)
    assert (answers == labels[away]).float().mean() > 0.95


@pytest.mark.parametrize(
    ("ends", "best"),
    [([9.0, 5.0, 7.0], 1), ([5.0, 7.0, 9.0], 0), ([float("nan"), 9.0, 5.0], 2), ([7.0, float("nan"), 9.0], 0)],
)
def test_of_diverged_attempts_the_one_that_ends_lowest_counts(ends, best, monkeypatch):
    """Every loss begins at 1, so all of these have diverged; what is not a number is never the lowest."""
    made = []

    class Recorded(CorrectedClassifier):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            self.losses = iter([1.0, ends[len(made)]])
            made.append(self)

    class Told:
        def __init__(self, *_):
            pass

        def __call__(self, corrected):
            moved = sum(getattr(layer, name).sum() for layer in corrected.layers.values() for name in PARAMETERS)
            return moved - moved.detach() + next(corrected.losses)

    monkeypatch.setattr("untrojan.correction.bna.CorrectedClassifier", Recorded)
    monkeypatch.setattr("untrojan.correction.bna._Objective", Told)
    images, labels = planted_images(12)
    floats = images.float() / 255
    task = Task(3, floats[labels != 3], floats[labels == 3], [planted_trigger()])
    theta = BNA(steps=2).fit(planted_classifier(), task, generator=torch.Generator(), progress=Silent())
    thetas = [corrected.theta() for corrected in made]
    same = [all(torch.equal(theta[name], other[name]) for name in theta) for other in thetas]
    assert same == [number == best for number in range(3)]


def test_clean_activations_are_those_of_all_images_at_once():
    classifier = planted_classifier()
    floats = planted_images(24)[0].float() / 255
    read = classifier.module.read
    (found,) = clean_activations(classifier, {"read": read}, floats, batch_size=17).values()
    with torch.no_grad():
        values = read(classifier.normalise(floats).flatten(1)).T
    assert torch.allclose(found.low, values.amin(1))
    assert torch.allclose(found.high, values.amax(1))
    assert torch.allclose(found.std, values.std(1, correction=0), rtol=1e-5)


def test_blended_perturbations_are_mixtures_of_the_size_of_their_parts() -> None:
    generator = torch.Generator().manual_seed(0)
    deltas = torch.randn(5, 2, 3, 4, generator=generator) * torch.tensor([1.0, 2, 3, 4, 5]).view(-1, 1, 1, 1)
    alone = blended(deltas, 50, 1, generator)
    assert all(any(torch.allclose(one, delta) for delta in deltas) for one in alone)
    assert len({int((one - deltas).abs().sum((1, 2, 3)).argmin()) for one in alone}) == 5
    norms = deltas.flatten(1).norm(dim=1)
    for blend in (2, 3, 9):
        made = blended(deltas, 50, blend, generator)
        shares = torch.linalg.lstsq(deltas.flatten(1).T, made.flatten(1).T).solution.T
        assert torch.allclose(shares @ deltas.flatten(1), made.flatten(1), atol=1e-4)
        assert (shares > -1e-4).all()
        assert ((shares > 1e-4).sum(1) <= blend).all()
        assert ((shares > 1e-4).sum(1) > 1).all()
        assert torch.allclose(made.flatten(1).norm(dim=1), (shares / shares.sum(1, keepdim=True)) @ norms, rtol=1e-4)


def test_every_image_gets_one_surrogate_and_additive_ones_a_strength() -> None:
    generator, images = torch.Generator().manual_seed(1), torch.full((60, 1, 2, 2), 0.25)
    delta, mask = torch.tensor([[[0.1, 0.0], [0.0, 0.0]]]), torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    made = stamp_mixture(images, [AdditiveTrigger(delta), PatchTrigger(mask, mask)], 2.0, 2, generator)
    added, patched = made[:, 0, 0, 0] > 0.3, made[:, 0, 0, 1] == 1
    assert torch.equal(added, ~patched)
    assert 15 < int(added.sum()) < 45
    strengths = (made[added, 0, 0, 0] - 0.25) / 0.1
    assert 0.99 < float(strengths.min()) < 1.2
    assert 1.8 < float(strengths.max()) < 2.01


def test_answers_that_are_no_numbers_are_another_reason_for_smaller_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, (images, labels) = planted_classifier(), planted_images(8)
    floats, away = images.float() / 255, labels != 3
    task = Task(3, floats[away], floats[~away], [planted_trigger()])
    honest, calls = _Objective.__call__, iter(range(1000))

    def failing(self: _Objective, corrected: CorrectedClassifier) -> torch.Tensor:
        if next(calls) == 5:
            raise NoNumbersError("made up")
        return honest(self, corrected)

    monkeypatch.setattr(_Objective, "__call__", failing)
    theta = BNA(steps=40).fit(classifier, task, generator=torch.Generator().manual_seed(0), progress=Silent())
    corrected = CorrectedClassifier(classifier)
    corrected.load_theta(theta)
    answers = corrected(planted_trigger().stamp(floats[away])).argmax(1)
    assert (answers == labels[away]).float().mean() > 0.9
    assert next(calls) == 46, "five steps of the first attempt, the one that failed, and all of the second"
