"""The tuning methods, on the hand-built backdoor and in their parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from planted import planted_classifier, planted_images, planted_trigger
from untrojan.classifier import Classifier, as_found
from untrojan.classifier.corrected import independent
from untrojan.correction import TUNINGS
from untrojan.correction.anp import scaled_layers
from untrojan.correction.argd import relations
from untrojan.correction.attention import attention, stages
from untrojan.correction.fine_pruning import last_convolution
from untrojan.correction.ibau import IBAU, inner_loss
from untrojan.correction.tuning import held_back, shifted
from untrojan.errors import DataError, UnsupportedError, UsageError
from untrojan.pipeline import tune
from untrojan.progress import Silent


class Small(nn.Module):
    """Two convolutions and a head on grey 8x8 images; ``norm`` False leaves BatchNorm out."""

    def __init__(self, norm: bool = True):
        super().__init__()
        torch.manual_seed(5)
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.second = nn.Conv2d(4, 6, 3, padding=1, stride=2)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        return self.head(self.second(x).relu().mean((2, 3)))


def images_and_labels(per_class: int = 12):
    images, labels = planted_images(per_class)
    return images.float() / 255, labels


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_images_held_back_are_of_every_class_and_not_trained_on():
    images, labels = images_and_labels()
    lesson = held_back(images, labels, {}, generator())
    assert len(lesson.held_images) == round(0.2 * len(images))
    assert set(lesson.held_labels.tolist()) == set(range(5))
    mine = {tuple(x.flatten().tolist()) for x in lesson.images}
    assert not mine & {tuple(x.flatten().tolist()) for x in lesson.held_images}
    assert len(lesson.images) + len(lesson.held_images) == len(images)


def test_too_few_images_are_refused():
    images, labels = images_and_labels()
    with pytest.raises(DataError, match="at least 10"):
        held_back(images[:9], labels[:9], {}, generator())


def test_shifts_move_the_image_over_zeros():
    images = torch.rand(40, 2, 16, 16, generator=generator(1)) + 0.1
    moved = shifted(images, 4, generator(2))
    found = set()
    for before, after in zip(images, moved, strict=True):
        padded = nn.functional.pad(before, [2] * 4)
        places = [(r, c) for r in range(5) for c in range(5) if torch.equal(padded[:, r : r + 16, c : c + 16], after)]
        assert len(places) == 1, "an eighth of the side at most, whatever is asked for"
        found.update(places)
    assert len(found) > 10
    assert torch.equal(shifted(images, 0, generator()), images)


def test_attention_is_a_unit_map_and_forgets_sign_and_scale():
    features = torch.randn(3, 4, 5, 6, generator=generator(3))
    maps = attention(features)
    assert maps.shape == (3, 30)
    assert torch.allclose(maps.norm(dim=1), torch.ones(3))
    assert torch.allclose(maps, attention(-3 * features), atol=1e-6)
    one = (features[0] ** 2).sum(0).flatten()
    assert torch.allclose(maps[0], one / one.norm(), atol=1e-6)


def test_stages_end_where_the_map_shrinks():
    classifier = Classifier(Small()).eval()
    assert stages(classifier, torch.rand(2, 1, 8, 8)) == ("norm", "second")
    with pytest.raises(UnsupportedError, match="no feature maps"):
        stages(planted_classifier(), torch.rand(2, 1, 8, 8))


def test_relations_of_equal_maps_are_no_distance_and_scale_does_not_matter():
    a, b = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 4, 4)
    edges, centre = relations([a, a, b])
    assert edges.shape == (2, 3, 3)
    assert centre.shape == (2, 16)
    assert torch.allclose(edges[:, 0, 1], torch.zeros(2), atol=1e-4)
    assert torch.allclose(edges, edges.transpose(1, 2))
    assert torch.allclose(edges.mean((1, 2)), torch.ones(2))
    assert torch.allclose(edges, relations([2 * a, 5 * a, b])[0], atol=1e-4)


def test_the_convolution_pruned_is_the_one_that_runs_last():
    classifier = Classifier(Small()).eval()
    images, _ = images_and_labels()
    layer, activity = last_convolution(classifier, images)
    assert layer is classifier.module.second
    with torch.no_grad():
        expected = classifier.module.second(classifier.module.norm(classifier.module.first(images)).relu()).relu().sum(
            (0, 2, 3)
        ) / len(images)
    assert torch.allclose(activity, expected, rtol=1e-4)
    with pytest.raises(UnsupportedError, match="convolution"):
        last_convolution(planted_classifier(), images)


def test_channels_that_nothing_uses_are_pruned_and_stay_so():
    classifier = Classifier(Small()).eval().requires_grad_(False)
    with torch.no_grad():
        classifier.module.second.bias[2] = -100.0  # silent: its loss costs nothing
    images, labels = images_and_labels()
    made = TUNINGS["fp"](epochs=2, tolerance=0.0).fit(
        classifier, images, labels, generator=generator(), progress=Silent()
    )
    assert float(made.weights["second.weight"][2].abs().max()) == 0
    assert float(made.weights["second.bias"][2]) == 0


def test_layers_that_can_be_masked():
    assert list(scaled_layers(Small())) == ["norm"]
    assert list(scaled_layers(Small(norm=False))) == ["first", "second"]
    with pytest.raises(UnsupportedError):
        scaled_layers(nn.Sequential(nn.Linear(4, 2)))


def test_the_hypergradient_is_the_derivative_through_the_inner_steps():
    """Against autograd through an inner descent that has converged: a linear network, so that it does."""
    images, labels = torch.rand(12, 1, 4, 4, generator=generator(7)), torch.arange(12) % 3
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        module[1].weight.copy_(0.02 * torch.randn(3, 16, generator=generator(8)))
    student = Classifier(module)
    method = IBAU(fixed_point=400, step=20.0, portion=1.0)
    weights = list(student.parameters())

    def converged(create_graph: bool):
        delta = torch.zeros(1, 1, 4, 4, requires_grad=True)
        for _ in range(800):
            (slope,) = torch.autograd.grad(inner_loss(student, delta, images, labels), delta, create_graph=create_graph)
            delta = delta - 20.0 * slope
        return delta

    delta = converged(True)
    outer = nn.functional.cross_entropy(student(images + delta), labels)
    unrolled = torch.autograd.grad(outer, weights)
    got = method._hypergradient(student, weights, delta.detach(), (images, labels), (images, labels))
    direct = torch.autograd.grad(nn.functional.cross_entropy(student(images + delta.detach()), labels), weights)
    for wanted, found, plain in zip(unrolled, got, direct, strict=True):
        assert torch.allclose(wanted, found, rtol=1e-2, atol=1e-4)
        assert not torch.allclose(wanted, plain, rtol=1e-2, atol=1e-4), "the implicit part is not nothing"


def test_unlearning_without_a_trigger_is_refused():
    images, labels = images_and_labels()
    with pytest.raises(UsageError, match="trigger"):
        TUNINGS["nc"]().fit(planted_classifier(), images, labels, generator=generator(), progress=Silent())


def test_bounds_change_no_weight_and_keep_the_accuracy():
    images, labels = images_and_labels()
    classifier = planted_classifier()
    with as_found(classifier):
        made = TUNINGS["mmac"](steps=30).fit(classifier, images, labels, generator=generator(), progress=Silent())
    assert made.weights == {}
    assert not bool(torch.isfinite(made.theta["norm|low"]).any())
    assert bool(torch.isfinite(made.theta["norm|high"]).all())


@pytest.mark.parametrize("name", ["ft", "nc"])
def test_the_planted_trigger_is_unlearnt_when_it_is_shown(name):
    images, labels = images_and_labels(24)
    classifier = planted_classifier()
    trigger = planted_trigger()
    with as_found(classifier):
        made = TUNINGS[name](epochs=20, learning_rate=0.01, shift=0).fit(
            classifier, images, labels, triggers={3: trigger}, generator=generator(), progress=Silent()
        )
    repaired = independent(classifier)
    repaired.module.load_state_dict({**repaired.module.state_dict(), **made.weights})
    others = labels != 3
    answers = repaired.eval()(trigger.stamp(images[others])).argmax(1)
    moved = float((answers == 3).float().mean())
    assert moved < 0.1 if name == "nc" else moved > 0.5


def test_a_pruned_channel_gets_no_weights_back_in_the_tuning():
    class Linear(Small):
        """Without the last ReLU, every channel has a gradient."""

        def forward(self, x):
            return self.head(self.second(self.norm(self.first(x)).relu()).mean((2, 3)))

    images, labels = images_and_labels()
    classifier = Classifier(Linear()).eval().requires_grad_(False)
    made = TUNINGS["fp"](epochs=2, tolerance=0.99).fit(
        classifier, images, labels, generator=generator(), progress=Silent()
    )
    zero = made.weights["second.weight"].flatten(1).abs().amax(1) == 0
    assert int(zero.sum()) == 5, "all but one"


def test_anp_prunes_the_channel_of_the_planted_backdoor():
    images, labels = images_and_labels(24)
    classifier = planted_classifier()
    with as_found(classifier):
        made = TUNINGS["anp"](steps=60).fit(classifier, images, labels, generator=generator(), progress=Silent())
    assert float(made.weights["norm.weight"][5]) == 0
    assert "norm.running_mean" not in made.weights, "the running statistics stay"


def test_the_distance_of_attention_is_weighted_by_stage_and_taught():
    one, other = torch.rand(2, 3, 4, 4, generator=generator(1)), torch.rand(2, 3, 4, 4, generator=generator(2))
    apart = (attention(one) - attention(other)).pow(2).mean()
    assert torch.isclose(TUNINGS["nad"](betas=(2.0, 3.0)).distance([one, one], [one, other]), 3 * apart)
    assert float(TUNINGS["argd"]().distance([one, other], [one, other])) == 0
    assert float(TUNINGS["argd"]().distance([one, other], [other, one])) > 0
    images, labels = images_and_labels()
    classifier = Classifier(Small()).eval().requires_grad_(False)
    made = [
        TUNINGS["nad"](epochs=2, betas=betas).fit(classifier, images, labels, generator=generator(), progress=Silent())
        for betas in ((0.0, 0.0), (500.0, 1000.0))
    ]
    assert not torch.equal(made[0].weights["first.weight"], made[1].weights["first.weight"])


def test_a_network_that_was_broken_is_made_anew_in_smaller_steps():
    images, labels = images_and_labels(40)
    victim = planted_classifier(strength=0.0)

    def made(rate: float):
        method = TUNINGS["ft"](epochs=5, learning_rate=rate, shift=0)
        with as_found(victim):
            return method.fit(victim, images, labels, generator=generator(), progress=Silent())

    assert made(0.01).slowed == 1
    wild = made(300.0)
    assert wild.slowed == 9
    assert made(0.01).weights.keys() == wild.weights.keys()


def test_the_seed_says_what_dropout_does():
    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(1)
            self.head = nn.Linear(64, 5)

        def forward(self, x):
            return self.head(nn.functional.dropout(x.flatten(1), 0.5, self.training))

    images, labels = planted_images(20)
    made = []
    for seed in (1, 2):
        classifier = Classifier(Dropping().eval())
        torch.manual_seed(seed)
        made.append(tune(classifier, images, labels, method="ft", options={"epochs": 2}, seed=7).contents()[0])
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
