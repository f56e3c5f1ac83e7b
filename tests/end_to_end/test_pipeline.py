"""scan, repair and guard on a hand-built backdoor, and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import untrojan
from planted import planted_classifier, planted_images, planted_trigger
from untrojan.classifier import Classifier, as_found
from untrojan.detection.inversion import Budget
from untrojan.detection.judge import judge
from untrojan.detection.plan import FAMILIES, PairWise, ScanSettings, TargetWise
from untrojan.detection.reference import built_in
from untrojan.detection.surrogates import SurrogateSettings, surrogates_for
from untrojan.detection.table_files import read_tables
from untrojan.errors import DataError, GuardMismatchError, InconclusiveError, ShapeError, UnsupportedError, UsageError
from untrojan.pipeline import prepare
from untrojan.progress import Silent
from untrojan.records import Evidence
from untrojan.report_pictures import neuron_histogram
from untrojan.stand_ins import kinds_for

QUICK = ScanSettings(
    target_wise=TargetWise(first=dict.fromkeys(FAMILIES, Budget(steps=80, images=16, level=0.75)), again={}),
    pair_wise=PairWise(first={"patch": Budget(steps=60, images=6), "additive": Budget(steps=200, images=6)}),
)


@pytest.fixture(scope="module")
def found():
    classifier = planted_classifier()
    images, labels = planted_images()
    return classifier, images, labels, untrojan.scan(classifier, images, labels, settings=QUICK)


def test_the_planted_target_is_found(found):
    _, _, _, report = found
    assert report.verdict == "backdoor"
    assert report.targets == (3,)
    assert set(report.sources(3)) == {0, 1, 2, 4}
    assert report.cost.images_forward_backward > 0


def test_a_clean_network_is_called_clean():
    images, labels = planted_images()
    report = untrojan.scan(planted_classifier(strength=0), images, labels, settings=QUICK)
    assert report.verdict == "clean"
    assert report.targets == ()
    assert not any(p.detected for p in report.pairs)


def test_the_guard_gives_the_true_classes_back(found, tmp_path):
    classifier, images, labels, report = found
    guard = untrojan.repair(classifier, images, labels, report, options={"steps": 80})
    check = guard.card.checks[3]
    assert check.held_out
    assert check.asr_before.value > 0.9
    assert check.asr.value <= 0.05
    assert check.sia.value >= 0.95
    fresh, truth = planted_images(seed=9)
    result = untrojan.evaluate(
        classifier, fresh, truth, guard=guard, trigger=planted_trigger(), setting=untrojan.Setting.parse("a2o:3")
    )
    assert result.before.asr.value == 1.0
    assert result.after.asr.value <= 0.05
    assert result.after.sia.value >= 0.95
    assert result.after.acc.value >= 0.95
    untrojan.save_guard(tmp_path, guard)
    again = untrojan.load_guard(tmp_path, classifier)
    stamped = planted_trigger().stamp(fresh.float() / 255)
    assert torch.equal(guard(stamped).labels, again(stamped).labels)
    with pytest.raises(GuardMismatchError):
        untrojan.load_guard(tmp_path, planted_classifier(strength=29.0))


def test_without_a_batch_norm_too(found, tmp_path):
    """The same answers, so the same scan; the correction acts after the layer that the BatchNorm was folded into."""
    _, images, labels, report = found
    classifier = planted_classifier(folded=True)
    own = report.model_copy(update={"victim": report.victim.model_copy(update={"sha256": classifier.sha256()})})
    guard = untrojan.repair(classifier, images, labels, own.with_triggers(report.triggers), options={"steps": 80})
    fresh, truth = planted_images(seed=9)
    setting = untrojan.Setting.parse("a2o:3")
    result = untrojan.evaluate(classifier, fresh, truth, guard=guard, trigger=planted_trigger(), setting=setting)
    assert result.before.asr.value == 1.0
    assert result.after.asr.value <= 0.05
    assert result.after.sia.value >= 0.95
    assert result.after.acc.value >= 0.95
    untrojan.save_guard(tmp_path, guard)
    again = untrojan.load_guard(tmp_path, classifier)
    assert list(again.corrected.layers) == ["read"]
    shown = neuron_histogram(classifier, fresh[truth != 3], planted_trigger(), guard=guard, target=3)
    assert (shown.layer, shown.channel, len(shown.corrected)) == ("read", 5, 60)
    stamped = planted_trigger().stamp(fresh.float() / 255)
    assert torch.equal(guard(stamped).labels, again(stamped).labels)


def test_a_scan_repeats(found):
    classifier, images, labels, report = found
    again = untrojan.scan(classifier, images, labels, settings=QUICK)
    assert again.pairs == report.pairs


def test_a_scan_survives_its_file(found, tmp_path):
    _, _, _, report = found
    untrojan.save_scan(tmp_path, report)
    again = untrojan.load_scan(tmp_path)
    assert again.model_dump_json() == report.model_dump_json()
    assert {k: t.sha256() for k, t in again.triggers.items()} == {k: t.sha256() for k, t in report.triggers.items()}


def test_the_victim_is_as_found():
    classifier = planted_classifier().train()
    classifier.module.read.weight.requires_grad_(False)
    seen = []
    handle = classifier.module.norm.register_forward_hook(lambda *_: seen.append(1))
    state = {k: v.clone() for k, v in classifier.state_dict().items()}
    images, labels = planted_images(8)
    rng = torch.get_rng_state()
    untrojan.scan(classifier, images, labels, settings=QUICK)
    assert seen, "a user's hook sees the passes"
    handle.remove()
    assert torch.equal(rng, torch.get_rng_state())
    assert all(m.training for m in classifier.modules())
    assert [p.requires_grad for p in classifier.parameters()] == [False, True, True, True]
    assert all(torch.equal(v, state[k]) for k, v in classifier.state_dict().items())


def test_nan_weights_are_inconclusive():
    classifier = planted_classifier()
    classifier.module.read.weight.data[0, 0] = torch.nan
    images, labels = planted_images(8)
    report = untrojan.scan(classifier, images, labels)
    assert report.verdict == "inconclusive"
    assert "NaN" in report.reason
    with pytest.raises(InconclusiveError):
        untrojan.repair(classifier, images, labels, report)


def test_two_classes_are_inconclusive():
    network = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)))
    images, labels = planted_images(8)
    report = untrojan.scan(network, images, labels % 2)
    assert report.verdict == "inconclusive"


def test_a_scan_keeps_what_it_found_raw(found, tmp_path):
    """A verdict is a function of the table, and the file has all of it."""
    classifier, _, _, report = found
    untrojan.save_scan(tmp_path, report)
    (table,) = read_tables(tmp_path / "search.parquet")
    assert table.victim == classifier.sha256()
    ruling = judge(table, built_in())
    assert (ruling.verdict, ruling.reason) == (report.verdict, report.reason)
    assert ruling.p_value == pytest.approx(report.p_value)
    assert {m.target for one in ruling.named for m in one.members} == set(report.targets)
    assert report.accuracy == 1.0


def test_other_clean_models_to_compare_with_may_be_given(found):
    """Against models that are all as anomalous, it is as usual as any."""
    classifier, images, labels, report = found
    same = built_in().extended([report.table] * 400, "ours")
    again = untrojan.scan(classifier, images, labels, settings=QUICK, reference=same)
    assert again.verdict != "backdoor"
    assert again.p_value > 0.5


def test_too_few_images_of_most_classes_are_inconclusive(found):
    classifier = found[0]
    images, labels = planted_images(4)
    report = untrojan.scan(classifier, images, labels)
    assert report.verdict == "inconclusive"
    assert "at least 25 clean ones" in report.reason
    assert report.cost.images_forward_backward < 5  # nothing was searched
    images, labels = planted_images()
    few = (labels < 2) & (torch.arange(len(labels)) >= 15)  # three images of two classes out of five
    assert untrojan.scan(classifier, images[~few], labels[~few], settings=QUICK).verdict == "backdoor"


def test_images_that_do_not_suit_the_classifier_are_inconclusive():
    images, labels = planted_images(8)
    report = untrojan.scan(planted_classifier(), images, (labels + 1) % 5)
    assert report.verdict == "inconclusive"
    assert "--mean" in report.reason


def test_what_scan_and_repair_refuse(found):
    classifier, images, labels, report = found
    with pytest.raises(DataError, match="one class"):
        untrojan.scan(classifier, images[labels == 0], labels[labels == 0])
    with pytest.raises(DataError, match=r"0\.\.4"):
        untrojan.scan(classifier, images, labels + 1)
    with pytest.raises(DataError, match="label"):
        untrojan.scan(classifier, images, labels[:-1])
    with pytest.raises(DataError, match="no images"):
        untrojan.scan(classifier, images[:0], labels[:0])
    with pytest.raises(ShapeError):
        untrojan.scan(classifier, images.float(), labels)
    with pytest.raises(ShapeError):
        untrojan.scan(classifier, images[0], labels[:1])
    clean = report.model_copy(update={"verdict": "clean", "targets": ()})
    with pytest.raises(UsageError, match="nothing to repair"):
        untrojan.repair(classifier, images, labels, clean)
    with pytest.raises(GuardMismatchError):
        untrojan.repair(planted_classifier(strength=20.0), images, labels, report)
    with pytest.raises(UsageError, match="bna"):
        untrojan.repair(classifier, images, labels, report, method="magic")
    plain = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)))
    own = report.model_copy(update={"victim": report.victim.model_copy(update={"sha256": plain.sha256()})})
    with pytest.raises(UnsupportedError, match="no layer to correct"):
        untrojan.repair(plain, images, labels, own)


@pytest.mark.parametrize("method", ["bna", "ft", "mmac", "i-bau"])
def test_a_network_whose_copy_would_use_the_originals_layers_is_refused(found, method):
    _, images, labels, report = found
    wrapped = planted_classifier()
    inner = wrapped.module.forward
    wrapped.module.forward = lambda x: inner(x)
    with pytest.raises(UnsupportedError, match="does not use its own layer"):
        untrojan.repair(wrapped, images, labels, report, method=method)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_network_is_scanned_and_not_repaired(found):
    classifier, images, labels, _ = found
    scripted = Classifier(torch.jit.trace(classifier.module, torch.rand(2, *images.shape[1:])))
    report = untrojan.scan(scripted, images, labels)
    assert (report.verdict, report.targets) == ("backdoor", (3,))
    for method in ("bna", "ft"):
        with pytest.raises(UnsupportedError):
            untrojan.repair(scripted, images, labels, report, method=method)


def test_a_network_that_counts_its_calls_is_scanned_and_repaired(found):
    """Its hash is that of the file that it came from, and the caller's count stays."""
    _, images, labels, _ = found
    classifier = planted_classifier()
    inner = classifier.module

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return self.inner(x)

    counting = Classifier(Counting().eval())
    own = counting.sha256()
    report = untrojan.scan(counting, images, labels)
    assert (report.verdict, report.victim.sha256) == ("backdoor", own)
    guard = untrojan.repair(counting, images, labels, report)
    assert guard.card.victim.sha256 == own == counting.sha256()
    assert float(counting.module.calls) == 0


def test_few_sources_limit_the_answers(found):
    """Of a target with one detected source: that source and what the stand-ins move as well."""
    classifier, images, labels, report = found
    pairs = tuple(p.model_copy(update={"detected": p.detected and p.source == 1}) for p in report.pairs)
    one = report.model_copy(update={"pairs": pairs}).with_triggers(report.triggers)
    quick = SurrogateSettings(restarts=1, allowances=(), copies=0, budget=Budget(steps=40, images=8, level=0.9))
    guard = untrojan.repair(classifier, images, labels, one, settings=quick, options={"steps": 2})
    assert set(guard.card.answers[3]) == {0, 1, 2, 4}  # the planted trigger moves every class
    everything = replace(quick, few_sources=0.0)
    assert untrojan.repair(classifier, images, labels, one, settings=everything, options={"steps": 2}).answers is None


def test_the_victims_usual_margins_stand_on_the_card(found):
    classifier, images, labels, report = found
    quick = SurrogateSettings(restarts=1, allowances=(), copies=0, budget=Budget(steps=40, images=8, level=0.9))
    guard = untrojan.repair(classifier, images, labels, report, settings=quick, options={"steps": 2}, margin_share=0.2)
    logits = classifier.predict(images[labels == 3])
    first, second = logits[logits.argmax(1) == 3].topk(2).values.unbind(1)
    assert guard.card.margin_share == pytest.approx(0.2)
    assert guard.card.usual_margins[3] == pytest.approx(float((first - second).median()), abs=1e-5)
    assert float(guard.usual_margins) == pytest.approx(guard.card.usual_margins[3])


def test_prepared_stand_ins_give_the_same_guard_at_the_same_cost(found):
    classifier, images, labels, report = found
    quick = SurrogateSettings(restarts=1, allowances=(1.5,), copies=2, budget=Budget(steps=40, images=8, level=0.9))
    made = prepare(classifier, images, labels, report, settings=quick)
    assert torch.equal(made.of[3].generator().get_state(), made.of[3].state)  # the correction draws on, by the seed
    for steps in (2, 3):
        own = {"settings": quick, "options": {"steps": steps}}
        alone = untrojan.repair(classifier, images, labels, report, **own)
        shared = untrojan.repair(classifier, images, labels, report, stand_ins=made, **own)
        assert all(
            torch.equal(shared.corrected.theta()[name], tensor) for name, tensor in alone.corrected.theta().items()
        )
        assert shared.card.cost.images_forward == alone.card.cost.images_forward
        assert shared.card.cost.images_forward_backward == alone.card.cost.images_forward_backward
        assert shared.card.cost.seconds > made.cost.seconds
    for wrong in ({"seed": 1}, {"settings": replace(quick, restarts=2)}):
        with pytest.raises(UsageError, match="prepare them anew"):
            untrojan.repair(classifier, images, labels, report, stand_ins=made, **{"settings": quick, **wrong})


def test_stand_ins_of_few_sources_begin_with_the_scans_trigger(found, monkeypatch):
    classifier, images, labels, report = found
    given = []

    def spied(*arguments, starts, **rest):
        given.append((arguments[4], starts))
        return surrogates_for(*arguments, starts=starts, **rest)

    monkeypatch.setattr("untrojan.stand_ins.surrogates_for", spied)
    quick = SurrogateSettings(restarts=2, allowances=(), copies=0, budget=Budget(steps=40, images=8, level=0.9))
    pairs = tuple(p.model_copy(update={"detected": p.detected and p.source == 1}) for p in report.pairs)
    few = report.model_copy(update={"pairs": pairs}).with_triggers(report.triggers)
    for scanned in (few, report):
        untrojan.repair(classifier, images, labels, scanned, settings=quick, options={"steps": 2})
    (first, starts), (second, none) = given
    assert (first.budget.level, first.growth) == (0.7, 2.0)
    assert set(starts.values()) <= set(report.triggers.values())
    assert starts
    assert (second, none) == (quick, {})


def test_searches_that_end_far_too_large_are_no_stand_ins(found):
    """With hardly any growth allowed, the smallest stays, and what came near its own goal."""
    classifier, images, labels, _ = found
    settings = SurrogateSettings(restarts=3, allowances=(2.0,), held_out=(), copies=0, growth=1.0 + 1e-6)
    sources = images[labels != 3].float() / 255

    def shown(chosen):
        generator = torch.Generator().manual_seed(0)
        with as_found(classifier):
            return surrogates_for(
                classifier, ["patch"], sources, 3, chosen, generator=generator, progress=Silent()
            ).shown

    everything = shown(replace(settings, growth=None))
    kept = shown(settings)
    assert 1 <= len(kept) < len(everything)
    assert min(t.size for t in kept) == pytest.approx(min(t.size for t in everything))


def test_stand_ins_are_of_every_kind_in_which_the_triggers_are_anomalous(found):
    _, _, _, report = found
    bare = report.model_copy(update={"evidence": ()})
    own = kinds_for(bare, 3)
    assert len(own) == 1
    other = "additive" if own == ["patch"] else "patch"

    def kinds(**said: object) -> list[str]:
        about = {
            "scope": "target-wise",
            "kinds": (other,),
            "target": 3,
            "size": 1.0,
            "ratio": 3.0,
            "log_odds": 2.0,
            "p_value": 0.001,
        }
        return kinds_for(bare.model_copy(update={"evidence": (Evidence.model_validate(about | said),)}), 3)

    assert kinds() == sorted([*own, other])
    assert kinds(target=2) == own
    assert kinds(scope="untargeted", target=None) == own


def test_gradients_that_are_off_outside_do_not_matter(found):
    classifier, images, labels, report = found
    with torch.no_grad():
        again = untrojan.scan(classifier, images, labels, settings=QUICK)
        guard = untrojan.repair(classifier, images, labels, report, options={"steps": 2})
        assert not torch.is_grad_enabled()
    assert again.p_value == report.p_value
    assert guard.targets.tolist() == [3]
    with torch.inference_mode(), pytest.raises(UsageError, match=r"outside of torch\.inference_mode"):
        untrojan.scan(classifier, images, labels, settings=QUICK)
    with torch.inference_mode():
        shown = images.float() / 255
    assert untrojan.scan(classifier, shown, labels, settings=QUICK).targets == (3,)


def test_without_images_of_the_target_a_guard_is_made_all_the_same(found):
    class Strict(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = planted_classifier().module

        def forward(self, x):
            return self.inner(x).view(x.size(0), -1)  # which raises for no image

    _, images, labels, _ = found
    classifier, others = Classifier(Strict().eval()), labels != 3
    report = untrojan.scan(classifier, images[others], labels[others], settings=QUICK)
    assert report.targets == (3,)
    guard = untrojan.repair(classifier, images[others], labels[others], report, options={"steps": 60})
    assert guard.card.checks[3].fpr is None
    assert (guard(planted_trigger().stamp(images[others].float() / 255)).labels == labels[others]).float().mean() > 0.9


def test_wrong_settings_are_told_before_the_work(found, monkeypatch):
    classifier, images, labels, report = found
    monkeypatch.setattr("untrojan.pipeline.prepare", None)
    with pytest.raises(UsageError, match=r"margin_share is from 0 to less than 1, got 1\.5"):
        untrojan.repair(classifier, images, labels, report, margin_share=1.5)
    named = Classifier(classifier.module, class_names=["a", "b"])
    with pytest.raises(UsageError, match="2 class names, and its network returns 5 logits"):
        untrojan.scan(named, images, labels, settings=QUICK)
