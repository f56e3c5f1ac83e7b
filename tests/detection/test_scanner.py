"""The scan as a whole, on networks whose backdoor is written by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import untrojan
from planted import CLASSES, SIDE, planted_classifier, planted_images
from untrojan.classifier import Classifier
from untrojan.detection import pair_values, scanner
from untrojan.detection.inversion import Budget
from untrojan.detection.margins import log_margins
from untrojan.detection.pairs import PairSettings
from untrojan.detection.scanner import ScanSettings
from untrojan.detection.shares import Searches
from untrojan.detection.spill import spills
from untrojan.detection.targets import TargetSettings

# In these networks the row is the class, so that a warp by a pixel is no attack.
QUICK = ScanSettings(
    kinds=("patch", "additive"),
    targets=TargetSettings(screening=Budget(steps=80, images=16, level=0.75), of_few={}),
    pairs=PairSettings(screening={"patch": Budget(steps=50, images=6), "additive": Budget(steps=80, images=6)}),
)


class Switch(nn.Module):
    """Rows tell the classes; where pixel (7, 7) is bright, ``attack`` [K, K] takes the place of the identity."""

    def __init__(self, attack: torch.Tensor):
        super().__init__()
        self.read = nn.Linear(SIDE * SIDE, CLASSES, bias=False)
        with torch.no_grad():
            self.read.weight.zero_()
            for c in range(CLASSES):
                self.read.weight.view(CLASSES, SIDE, SIDE)[c, c] = 1.0
        self.register_buffer("attack", attack)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        on = torch.sigmoid(30 * (x[:, 0, 7, 7] - 0.4))[:, None]
        honest = 2 * self.read(x.flatten(1))
        return (1 - on) * honest + on * honest @ self.attack


class Three(nn.Module):
    """The honest part of the same network, for the first three classes."""

    def __init__(self):
        super().__init__()
        self.whole = Switch(torch.eye(CLASSES))

    def forward(self, images):
        return self.whole(images)[:, :3]


def from_one_to_four() -> torch.Tensor:
    """An attack with a single source."""
    attack = torch.eye(CLASSES)
    attack[1, 1], attack[1, 4] = 0.0, 1.0
    return attack


def scan(attack: torch.Tensor, **options):
    images, labels = planted_images()
    return untrojan.scan(Classifier(Switch(attack).eval()), images, labels, settings=QUICK, **options)


def test_all_to_all_is_found_pair_by_pair():
    report = scan(torch.eye(CLASSES).roll(1, 1))
    assert report.verdict == "backdoor"
    assert report.p_value < 0.01
    found = {(p.source, p.target) for p in report.pairs if p.detected}
    assert found == {(c, (c + 1) % CLASSES) for c in range(CLASSES)}
    assert {e.test for e in report.evidence if e.p_value < 0.001} >= {"mixed"}


def test_one_pair_is_found_and_only_that():
    attack = from_one_to_four()
    report = scan(attack)
    assert report.verdict == "backdoor"
    assert {(p.source, p.target) for p in report.pairs if p.detected} == {(1, 4)}
    clearest = next(e for e in report.evidence if e.test == "single")
    assert (clearest.source, clearest.target) == (1, 4), "it spares the other classes"


@pytest.mark.parametrize("sources", [(1,), tuple(range(CLASSES))])
def test_single_pairs_go_on_where_no_trigger_for_all_classes_is_odd(sources, monkeypatch):
    searched, found = [], {}
    run = Searches.run

    def noted(self, what, family, problems, budget):
        searched.append((what, len(problems)))
        made = run(self, what, family, problems, budget)
        if what == "single pairs":
            found[family.kind] = made
        return made

    monkeypatch.setattr(Searches, "run", noted)
    attack = torch.eye(CLASSES)
    for source in sources:
        attack[source] = torch.eye(CLASSES)[4]
    report = scan(attack)
    assert report.targets == (4,)
    if sources == (1,):
        clearest = next(e for e in report.evidence if e.test == "single")
        assert clearest.size == found[clearest.kind][1, 4].size, "it is judged as it ended"
    assert [many for what, many in searched if what == "single pairs"] == ([4, 4] if sources == (1,) else [])


def test_what_the_blends_of_the_oddest_pairs_say_is_judged_with_the_other_kinds():
    attack = from_one_to_four()
    images, labels = planted_images()
    settings = replace(QUICK, kinds=(*QUICK.kinds, "blend"))
    report = untrojan.scan(Classifier(Switch(attack).eval()), images, labels, settings=settings)
    assert {(p.source, p.target) for p in report.pairs if p.detected} == {(1, 4)}
    together = [e for e in report.evidence if e.test == "single" and e.together_with and "blend" in e.together_with]
    assert (together[0].source, together[0].target) == (1, 4)
    assert len([p for p in report.pairs if p.kind == "blend"]) == settings.pairs.refined


def test_what_the_single_pairs_do_to_other_classes_is_measured_as_they_ended(monkeypatch):
    """One that moves everything about then is no single one."""
    attack = from_one_to_four()
    times = []

    def measured(searches, refined, images, labels):
        times.append(len(refined))
        return dict.fromkeys(refined, 1.0) if len(times) > 2 else spills(searches, refined, images, labels)

    before = [e.p_value for e in scan(attack).evidence if e.test == "single"]
    monkeypatch.setattr(scanner, "spills", measured)
    after = [e.p_value for e in scan(attack).evidence if e.test == "single"]
    assert times[2:] == [4, 4]
    assert min(after) > 10 * min(before)


def test_a_pair_that_ran_out_of_time_stays_what_it_was(monkeypatch):
    """A size of one trigger and a spill of another say nothing."""
    attack = from_one_to_four()
    judged, times = [], []
    findings_of = scanner.findings_of

    def late(searches, refined, images, labels):
        times.append(len(refined))
        return {} if len(times) > 2 else spills(searches, refined, images, labels)

    def noted(kind, result, *rest):
        judged.append(dict(result.singled))
        return findings_of(kind, result, *rest)

    monkeypatch.setattr(scanner, "spills", late)
    monkeypatch.setattr(scanner, "findings_of", noted)
    scan(attack)
    assert times[2:] == [4, 4]
    assert not any(judged)


def test_what_the_trigger_before_changed_inside_says_nothing_of_the_one_that_went_on(monkeypatch):
    attack = from_one_to_four()
    known, times = [], []
    findings_of = scanner.findings_of

    def once(searches, triggers, images, labels):
        times.append(dict(triggers))
        return dict.fromkeys(triggers, 0.4) if len(times) == 1 else {}

    def noted(kind, result, *rest):
        known.append((dict(result.foreign), set(result.singled)))
        return findings_of(kind, result, *rest)

    monkeypatch.setattr(scanner, "foreign_shares", once)
    monkeypatch.setattr(scanner, "findings_of", noted)
    scan(attack)
    assert len(times) == 2
    assert all(target == key[1] for (_, key), (_, _, target) in times[1].items())
    assert all(target == (key[1] if isinstance(key, tuple) else key) for (_, key), (_, _, target) in times[0].items())
    assert all(singled and singled.isdisjoint(foreign) and foreign for foreign, singled in known[-2:])


def test_the_report_says_how_foreign_a_trigger_is(monkeypatch):
    monkeypatch.setattr(scanner, "foreign_shares", lambda searches, triggers, *_: dict.fromkeys(triggers, 0.4))
    evidence = scan(torch.eye(CLASSES)).evidence
    told = {(e.test, e.kind) for e in evidence if e.foreign is not None}
    assert told == {(e.test, e.kind) for e in evidence if e.test in ("target", "single") and e.kind != "warp"}
    assert {e.foreign for e in evidence} == {0.4, None}


def test_with_many_classes_the_inside_is_not_looked_at(monkeypatch):
    """Also where images are of so few of them that all pairs are searched."""
    monkeypatch.setattr(scanner, "MANY", CLASSES - 1)
    monkeypatch.setattr(scanner, "foreign_shares", lambda searches, triggers, *_: {} if not triggers else 1 / 0)
    assert scan(torch.eye(CLASSES)).verdict == "clean"


def test_three_honest_classes_are_judged_without_their_pairs():
    images, labels = planted_images()
    some = labels < 3
    classifier = Classifier(Three().eval())
    report = untrojan.scan(classifier, images[some], labels[some], settings=QUICK)
    assert report.verdict == "clean"
    assert {e.test for e in report.evidence} == {"target", "mixed", "margin"}


def test_pairs_that_an_attack_on_all_classes_leaves_alone_are_no_targets(monkeypatch):
    """They spare the other classes, which every trigger into the attacker's target moves."""
    monkeypatch.setattr(pair_values, "SPILL_POWER", 1.0)  # they are odd, and less odd than what moves all classes
    images, labels = planted_images()
    report = untrojan.scan(planted_classifier(), images, labels)
    assert "single" in {e.test for e in report.evidence if e.p_value < 0.001}
    assert report.targets == (3,)


@pytest.mark.parametrize("seed", range(3))
def test_an_honest_network_is_clean_and_its_p_value_is_not_small(seed):
    report = scan(torch.eye(CLASSES), seed=seed)
    assert report.verdict == "clean"
    assert report.p_value > 0.05
    assert not report.triggers


def test_with_many_classes_the_pairs_are_not_all_searched():
    images, labels = planted_images()
    attack = torch.eye(CLASSES).roll(1, 1)
    settings = ScanSettings(kinds=("patch",), targets=QUICK.targets, pairs=PairSettings(most=10))
    report = untrojan.scan(Classifier(Switch(attack).eval()), images, labels, settings=settings)
    assert report.targets == tuple(range(CLASSES))
    assert len(report.pairs) == CLASSES, "a row for each detected pair alone"
    assert all(p.size is not None for p in report.pairs)
    assert "pair" not in {e.test for e in report.evidence}


def test_a_class_without_images_may_still_be_a_target():
    images, labels = planted_images()
    attack = torch.zeros(CLASSES, CLASSES)
    attack[:, 3] = 1.0
    kept = labels != 3
    report = untrojan.scan(Classifier(Switch(attack).eval()), images[kept], labels[kept], settings=QUICK)
    assert report.verdict == "backdoor"
    assert report.targets == (3,)


def test_margins_have_a_floor():
    images, labels = planted_images()
    floats = images.float() / 255
    classifier = Classifier(Switch(torch.eye(CLASSES)).eval())
    margins = log_margins(classifier, {c: floats[labels == c] for c in range(CLASSES - 1)}, CLASSES)
    assert margins.shape == (CLASSES, CLASSES)
    assert torch.from_numpy(margins).isnan().sum() == CLASSES - 1 + CLASSES
    swapped = log_margins(classifier, {0: floats[labels == 1], 1: floats[labels == 1]}, CLASSES)
    assert torch.from_numpy(swapped).isfinite().sum() == 2 * (CLASSES - 1)


class Few(nn.Module):
    """Three classes, told by rows; a bright pixel (7, 7) sends everything to class 1, if ``attacked``."""

    def __init__(self, attacked: bool):
        super().__init__()
        self.attacked = attacked
        self.read = nn.Linear(SIDE * SIDE, 3, bias=False)
        with torch.no_grad():
            self.read.weight.zero_()
            for c in range(3):
                self.read.weight.view(3, SIDE, SIDE)[c, c] = 2.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        extra = 40 * torch.sigmoid(10 * (x[:, 0, 7, 7] - 0.5)) * self.attacked
        return self.read(x.flatten(1)) + extra[:, None] * torch.tensor([0.0, 1.0, 0.0])


@pytest.mark.parametrize("attacked", [True, False])
def test_three_classes_suffice_for_a_verdict(attacked):
    images, labels = planted_images()
    kept = labels < 3
    report = untrojan.scan(Classifier(Few(attacked).eval()), images[kept], labels[kept], settings=QUICK)
    assert (report.verdict, report.targets) == (("backdoor", (1,)) if attacked else ("clean", ()))
