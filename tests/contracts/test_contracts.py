"""What every registered method promises, whatever it does: one suite, and the tables enrol into it."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor

from planted import planted_classifier, planted_images, planted_trigger
from tiny_networks import random_images, tiny_classifier
from untrojan.attacks import ATTACKS, JointAttack
from untrojan.classifier import as_found
from untrojan.correction import CORRECTIONS, TUNINGS, Task
from untrojan.detection.detectors import detectors
from untrojan.detection.inversion import Budget, Problem, invert
from untrojan.detection.plan import FAMILIES
from untrojan.errors import UsageError
from untrojan.progress import Silent
from untrojan.setting import Setting
from untrojan.triggers import TRIGGER_KINDS, PatchTrigger, load_trigger, save_trigger

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SHAPE = (3, 16, 16)


class Fingerprint:
    """Everything about a victim and the process that a method must leave alone."""

    def __init__(self, classifier):
        self.state = {k: v.clone() for k, v in classifier.state_dict().items()}
        self.modes = [m.training for m in classifier.modules()]
        self.grads = [(p.requires_grad, p.grad) for p in classifier.parameters()]
        self.hooks = [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in classifier.modules()]
        self.types = [type(m) for m in classifier.modules()]
        self.rng = (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate())

    def same_as(self, other: Fingerprint) -> bool:
        states = all(torch.equal(self.state[k], other.state[k]) for k in self.state)
        rest = ("modes", "grads", "hooks", "types", "rng")
        return states and all(getattr(self, name) == getattr(other, name) for name in rest)


class Interrupting:
    """Raises after some progress, as Ctrl-C does."""

    count = 0

    def start(self, description: str, total: int) -> None:
        self.count = 0

    def advance(self, count: int = 1) -> None:
        self.count += count
        if self.count >= 2:
            raise KeyboardInterrupt


def attack_names():
    return [pytest.param(name, id=name) for name in ATTACKS]


@pytest.mark.parametrize("name", attack_names())
class TestAttacks:
    def test_the_table_names_it_by_its_own_name(self, name):
        assert ATTACKS[name].name == name

    def test_same_seed_same_trigger(self, name):
        made = [ATTACKS[name]().make_trigger(SHAPE, torch.Generator().manual_seed(4)) for _ in range(2)]
        assert made[0].sha256() == made[1].sha256()
        assert made[0].kind in TRIGGER_KINDS

    def test_its_file_stamps_the_same_images(self, name, tmp_path):
        trigger = ATTACKS[name]().make_trigger(SHAPE, torch.Generator().manual_seed(4))
        save_trigger(tmp_path / "t.safetensors", trigger, Setting.parse("a2a"))
        again, setting = load_trigger(tmp_path / "t.safetensors")
        images = torch.rand(5, *SHAPE)
        assert torch.equal(trigger.stamp(images), again.stamp(images))
        assert str(setting) == "a2a"

    @pytest.mark.parametrize("setting", ["a2o:1", "a2a", "s2t:0>2"])
    def test_it_poisons_as_the_setting_says(self, name, setting):
        images = torch.randint(0, 256, (60, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
        labels = torch.arange(60) % 4
        attack, rule = ATTACKS[name](), Setting.parse(setting)
        if rule.kind not in attack.settings:
            pytest.skip(f"{name} has no setting {rule.kind}")
        trigger = attack.make_trigger(SHAPE, torch.Generator().manual_seed(4))
        made = attack.poison(
            images,
            labels,
            trigger=trigger,
            setting=rule,
            classes=4,
            count=3,
            generator=torch.Generator().manual_seed(2),
        )
        assert torch.equal(made.images[:60], images)
        assert torch.equal(made.labels[:60], labels)
        if isinstance(attack, JointAttack):
            assert len(made.images) == 60, "its game stamps the batches"
            return
        assert made.poisoned.tolist() == [False] * 60 + [True] * (len(made.images) - 60)
        given = [label for _, label in attack.relabelled(rule, 4)]
        assert sorted(made.labels[60 : 60 + 3 * len(given)].tolist()) == sorted(3 * given)

    def test_it_leaves_the_global_random_state(self, name):
        before = torch.get_rng_state()
        ATTACKS[name]().make_trigger(SHAPE, torch.Generator().manual_seed(0))
        assert torch.equal(before, torch.get_rng_state())

    def test_positional_hyper_parameters_are_refused(self, name):
        with pytest.raises(TypeError):
            ATTACKS[name](3)


def problems(device: str) -> list[Problem]:
    images, labels = planted_images(6)
    floats = (images.float() / 255).to(device)
    return [Problem(floats[(labels == s).to(device)], t) for s in (0, 1) for t in (2, 3)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", FAMILIES)
class TestTriggerFamilies:
    budget = Budget(steps=15, images=4)

    def run(self, kind, device, progress=None):
        classifier = planted_classifier().to(device)
        with as_found(classifier):
            return invert(
                classifier,
                FAMILIES[kind](),
                problems(device),
                self.budget,
                generator=torch.Generator().manual_seed(3),
                progress=progress,
            )

    def test_the_table_names_it_by_its_own_kind(self, kind, device):
        assert FAMILIES[kind].kind == kind
        assert kind in TRIGGER_KINDS

    def test_same_seed_same_result(self, kind, device):
        first, second = self.run(kind, device), self.run(kind, device)
        assert [f.success for f in first] == [f.success for f in second]
        if device == "cpu":
            assert [f.size for f in first] == [f.size for f in second]

    def test_the_victim_is_as_found(self, kind, device):
        classifier = planted_classifier().to(device).train()
        before = Fingerprint(classifier)
        with pytest.raises(KeyboardInterrupt), as_found(classifier):
            invert(
                classifier,
                FAMILIES[kind](),
                problems(device),
                self.budget,
                generator=torch.Generator(),
                progress=Interrupting(),
            )
        assert before.same_as(Fingerprint(classifier))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", detectors())
class TestDetectors:
    def run(self, name, device, classifier):
        images, labels = planted_images(4)
        return detectors()[name](classifier, (images.float() / 255).to(device), labels.to(device), 3)

    def test_it_finds_the_planted_target_twice_alike_and_leaves_the_victim_as_found(self, name, device):
        classifier = planted_classifier(target=2).to(device).train()
        before = Fingerprint(classifier)
        first, second = (self.run(name, device, classifier) for _ in range(2))
        assert before.same_as(Fingerprint(classifier))
        assert np.allclose(first.statistics, second.statistics, rtol=0 if device == "cpu" else 1e-2)
        assert len(first.statistics) == 5
        assert first.flagged
        assert first.targets[0] == 2
        assert first.score > self.run(name, device, planted_classifier(strength=0).to(device)).score


def task(device: str) -> Task:
    images, labels = planted_images(12)
    floats = (images.float() / 255).to(device)
    mine = (labels == 3).to(device)
    return Task(3, floats[~mine], floats[mine], [planted_trigger()])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("folded", [False, True], ids=["batch norm", "without"])
@pytest.mark.parametrize("name", CORRECTIONS)
class TestCorrections:
    def fit(self, name, device, classifier, progress=None) -> dict[str, Tensor]:
        with as_found(classifier):
            return CORRECTIONS[name](steps=4).fit(
                classifier, task(device), generator=torch.Generator().manual_seed(1), progress=progress or Silent()
            )

    def test_the_table_names_it_by_its_own_name(self, name, device, folded):
        assert CORRECTIONS[name].name == name

    def test_same_seed_same_theta(self, name, device, folded):
        first = self.fit(name, device, planted_classifier(folded=folded).to(device))
        second = self.fit(name, device, planted_classifier(folded=folded).to(device))
        assert all(torch.allclose(first[k], second[k], atol=1e-6 if device == "cpu" else 1e-2) for k in first)

    def test_the_victim_is_as_found(self, name, device, folded):
        classifier = planted_classifier(folded=folded).to(device).train()
        before = Fingerprint(classifier)
        self.fit(name, device, classifier)
        assert before.same_as(Fingerprint(classifier))

    def test_the_victim_is_as_found_after_an_interruption(self, name, device, folded):
        classifier = planted_classifier(folded=folded).to(device)
        before = Fingerprint(classifier)
        with pytest.raises(KeyboardInterrupt):
            self.fit(name, device, classifier, Interrupting())
        assert before.same_as(Fingerprint(classifier))

    def test_nonsense_is_refused(self, name, device, folded):
        with pytest.raises(UsageError):
            CORRECTIONS[name](steps=0)


SHORT = {"nad": {"epochs": 1, "teacher_epochs": 2}, "argd": {"epochs": 1, "teacher_epochs": 2}}
SHORT |= {"i-bau": {"rounds": 2}, "anp": {"steps": 4}, "mmac": {"steps": 4}}
"""Options with which a tuning method ends soon; two epochs for the others."""


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", TUNINGS)
class TestTunings:
    def fit(self, name, classifier, progress=None, seed=1):
        images = random_images(60, seed=2).float().to(classifier.device) / 255
        labels = (torch.arange(60) % 5).to(classifier.device)
        trigger = PatchTrigger(torch.ones(1, 4, 4) / 2, torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0)))
        with as_found(classifier):
            return TUNINGS[name](**SHORT.get(name, {"epochs": 2})).fit(
                classifier,
                images,
                labels,
                triggers={3: trigger},
                generator=torch.Generator().manual_seed(seed),
                progress=progress or Silent(),
            )

    def test_the_table_names_it_by_its_own_name(self, name, device):
        assert TUNINGS[name].name == name

    def test_same_seed_same_network_and_another_one_than_the_victim(self, name, device):
        classifier = tiny_classifier().to(device)
        first, second = self.fit(name, classifier), self.fit(name, classifier)
        made, again = {**first.weights, **first.theta}, {**second.weights, **second.theta}
        assert made.keys() == again.keys()
        assert all(torch.allclose(made[k], again[k], atol=1e-6 if device == "cpu" else 1e-2) for k in made)
        assert made or name == "anp", "which may find no channel that can go"
        assert set(first.weights) <= set(classifier.module.state_dict())

    def test_the_victim_is_as_found(self, name, device):
        classifier = tiny_classifier().to(device).train()
        before = Fingerprint(classifier)
        self.fit(name, classifier)
        assert before.same_as(Fingerprint(classifier))

    def test_the_victim_is_as_found_after_an_interruption(self, name, device):
        classifier = tiny_classifier().to(device)
        before = Fingerprint(classifier)
        with pytest.raises(KeyboardInterrupt):
            self.fit(name, classifier, Interrupting())
        assert before.same_as(Fingerprint(classifier))

    def test_nonsense_is_refused(self, name, device):
        with pytest.raises(UsageError):
            TUNINGS[name](batch_size=1)
