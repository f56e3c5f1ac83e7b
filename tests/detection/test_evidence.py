"""p-values: against scipy, and on values made up."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import gumbel_r, kstest

from untrojan.detection.anomaly import USUAL_LEAD, below_the_others
from untrojan.detection.comparisons import (
    CHANCE,
    MAPPING_POWER,
    REACH_POWER,
    findings_of,
    margin_findings,
    target_values,
)
from untrojan.detection.evidence import (
    FOREIGN,
    USUALLY_FOREIGN,
    Finding,
    gumbel_tail,
    significant,
    standardised,
    to_follow,
    together,
    union,
    usual_candidates,
    verdict_p_value,
)
from untrojan.detection.inversion import Inversion
from untrojan.detection.null import FEWER, NULL, NULL_OF_MANY, TESTS, TESTS_OF_MANY
from untrojan.detection.pair_values import (
    LEAST_SPILL,
    LEAST_SPREAD,
    SPILL_POWER,
    SPREAD,
    SPREAD_POWER,
    pair_values,
    refined_values,
    single_values,
    spread,
)
from untrojan.detection.results import KindResults, inversion_of


def sized(size: float | None) -> Inversion:
    return Inversion(None, size, 1.0, 1)


@given(st.floats(-20, 50))
def test_the_tail_is_that_of_scipy(z: float) -> None:
    assert gumbel_tail(z) == pytest.approx(gumbel_r.sf(z), rel=1e-9)


@given(st.floats(0, 1), st.integers(1, 10))
def test_the_union_is_that_of_independent_tests(p_value: float, tests: int) -> None:
    assert union(p_value, tests) == pytest.approx(1 - (1 - p_value) ** tests, abs=1e-9)


def test_the_union_keeps_tiny_p_values() -> None:
    assert union(1e-18, 2) == pytest.approx(2e-18)


def test_networks_of_many_classes_have_a_number_of_tests_of_their_own() -> None:
    few, many = (Finding("target", "patch", 1.0, 1.0, 10, many=m) for m in (False, True))
    assert few.corrected == union(few.p_value, TESTS)
    assert many.corrected == union(many.p_value, TESTS_OF_MANY)


@pytest.mark.parametrize("test", ["target", "mixed", "pair", "margin"])
def test_with_fewer_classes_the_same_value_says_less(test: str) -> None:
    """And what is below the usual as much as before; fewer starts or classes make it no odder."""
    law = "margin" if test == "margin" else "patch"
    usual = usual_candidates(test)
    location, above, _ = NULL[test, law]
    for value in (location + 3 * above, location - 0.1):
        as_of_ten, as_of_few = (standardised(test, law, value, usual, few=few) for few in (False, True))
        assert as_of_few == pytest.approx(as_of_ten / (FEWER if value > location and test != "mixed" else 1.0))
        assert standardised(test, law, value, 1) == as_of_ten
    assert FEWER > 1


def test_with_fewer_classes_a_trigger_for_any_mapping_is_compared_with_what_is_as_low_among_them() -> None:
    sizes = [math.exp(x) for x in (1.0, 2.0, 3.0)]
    result = KindResults(targets={t: sized(s) for t, s in enumerate(sizes)}, probes={0: sized(1.0)})
    (mixed,) = (f for f in findings_of("patch", result, np.zeros((3, 3))) if f.test == "mixed")
    assert mixed.value == pytest.approx(1.0), "the second of ten is as low as the first of three"


def test_whether_there_are_fewer_classes_is_told_by_the_margins() -> None:
    for classes, few in ((5, True), (9, True), (10, False), (30, False)):
        result = KindResults(targets={t: sized(5.0 + t) for t in range(classes)}, probes={0: sized(4.0)})
        found = findings_of("patch", result, np.zeros((classes, classes)))
        assert {f.few for f in found + margin_findings(np.arange(1.0, classes + 1))} == {few}


def test_without_findings_nothing_is_known() -> None:
    assert verdict_p_value([]) == 1.0


@pytest.mark.parametrize(
    ("many", "test", "kind"), [*((False, *key) for key in NULL), *((True, *key) for key in NULL_OF_MANY)]
)
def test_p_values_are_uniform_where_the_null_holds(many: bool, test: str, kind: str) -> None:
    """The largest of n times as many values, each of the same law, is judged by the same standard."""
    location, above, below = (NULL_OF_MANY if many else NULL)[test, kind]
    usual = usual_candidates(test, many)
    for factor in (1, 4):
        standard = gumbel_r.rvs(size=(2000, factor), random_state=1).max(1)
        maxima = location + standard * np.where(standard > 0, above, below)
        p = [gumbel_tail(standardised(test, kind, x, factor * usual, many)) for x in maxima]
        assert kstest(p, "uniform").pvalue > 0.01


def made_up(sizes: list[float], odd: int | None = None) -> list[Finding]:
    values = list(sizes)
    if odd is not None:
        values[odd] /= 30
    result = KindResults(targets={t: sized(s) for t, s in enumerate(values)})
    return findings_of("patch", result, np.zeros((len(values), len(values))))


def test_a_target_far_below_the_others_is_significant_and_only_that() -> None:
    sizes = np.exp(np.random.default_rng(0).normal(3, 0.2, size=10)).tolist()
    assert significant(made_up(sizes), 0.01) == []
    odd = significant(made_up(sizes, 7), 0.01)
    assert [(f.test, f.target) for f in odd] == [("target", 7)]
    assert verdict_p_value(made_up(sizes, 7)) < 0.01 < verdict_p_value(made_up(sizes))


def test_pairs_are_compared_with_what_their_margin_lets_expect() -> None:
    rng = np.random.default_rng(1)
    logs = rng.normal(3, 0.1, size=(10, 10))
    margins = np.zeros((10, 10))
    logs[9, 1], margins[9, 1] = 3 - 1.5, -2.0
    pairs = {(s, t): sized(math.exp(logs[s, t])) for s in range(10) for t in range(10) if s != t}
    result = KindResults(pairs=pairs, refined={pair: pairs[pair] for pair in [(9, 1), (0, 1), (9, 0)]})
    alike = {(f.source, f.target): f for f in findings_of("patch", result, margins)}
    blind = {(f.source, f.target): f for f in findings_of("patch", result, np.zeros((10, 10)))}
    assert blind[9, 1].value > 1.3
    assert alike[9, 1].value < 0.3


def refined_from(before: dict[tuple[int, int], float], after: dict[tuple[int, int], float | None]) -> KindResults:
    rng = np.random.default_rng(2)
    usual = {(s, t): math.exp(rng.normal(3, 0.1)) for s in range(10) for t in range(10) if s != t}
    pairs = {pair: sized(size) for pair, size in (usual | before).items()}
    return KindResults(pairs=pairs, refined={pair: sized(size) for pair, size in after.items()})


def test_a_pair_counts_by_how_much_further_it_shrinks_than_the_others() -> None:
    odd = [(0, 1), (2, 3), (4, 5), (6, 7)]
    start = dict.fromkeys(odd, 10.0)
    values = refined_values(refined_from(start, dict.fromkeys(odd, 5.0) | {(4, 5): 1.0}), np.zeros((10, 10)))
    assert set(values) == set(odd)
    assert values[0, 1] == pytest.approx(math.log(math.exp(3) / 10), abs=0.15), "all of them halve: nothing is odd"
    assert values[4, 5] - values[0, 1] == pytest.approx(math.log(5), abs=0.15)


def test_a_pair_that_is_not_found_again_says_nothing() -> None:
    after = {(0, 1): None, (2, 3): 9.0, (4, 5): 9.0}
    result = refined_from({(0, 1): 2.0}, after)
    assert (0, 1) not in refined_values(result, np.zeros((10, 10)))
    assert result.latest[0, 1].size == 2.0, "its first trigger is still known"
    assert result.latest[2, 3].size == 9.0
    assert refined_values(refined_from({}, {}), np.zeros((10, 10))) == {}


def test_a_trigger_for_all_is_not_compared_with_the_attackers_own_target() -> None:
    """All-to-one: what moves all classes is about as small as what moves them into the target, and is evidence too."""
    sizes = np.exp(np.random.default_rng(0).normal(3, 0.2, size=10)).tolist()
    sizes[9] = 4.5
    result = KindResults(targets={t: sized(s) for t, s in enumerate(sizes)}, probes={0: sized(1.5)})
    found = findings_of("patch", result, np.zeros((10, 10)))
    assert "mixed" in {f.test for f in significant(found, 0.01)}
    (mixed,) = (f for f in found if f.test == "mixed")
    assert mixed.value == pytest.approx(math.log(min(sizes[:9]) / 1.5))


@given(arrays(np.float64, (10, 10), elements=st.floats(-3, 3)))
def test_the_spread_of_noise_is_its_standard_deviation(logs: NDArray[np.float64]) -> None:
    """Of what is left of it by a fit, whose parameters are taken into account; an attacker's pairs change it little."""
    values = logs[~np.eye(10, dtype=bool)]
    assert spread(values, 10) >= 0
    assert spread(2 * values, 10) == pytest.approx(2 * spread(values, 10))
    attacked = values.copy()
    attacked[values.argsort()[-11:]] += 100
    assert spread(attacked, 10) == pytest.approx(spread(values, 10))
    assert math.isnan(spread(values[:37], 10)), "more than half as many parameters as values"
    assert math.isnan(spread(values[:0], 10))


def test_the_spread_accounts_for_the_fit() -> None:
    noise = np.random.default_rng(0).normal(size=(200, 90))
    of_all = [spread(v, 1) for v in noise]  # one parameter
    of_fit = [spread(v, 10) for v in noise]
    assert np.mean(of_fit) / np.mean(of_all) == pytest.approx(math.sqrt(89 / 71), rel=1e-6)


def value_of_an_odd_pair(scale: float) -> float:
    """Of one that is three times as far off as the farthest others, in a network whose sizes' logarithms are scaled."""
    logs = np.random.default_rng(1).normal(0, 0.3, size=(10, 10))
    logs[4, 5] = -2.0
    start = {(s, t): math.exp(scale * logs[s, t]) for s in range(10) for t in range(10) if s != t}
    result = refined_from(start, {pair: start[pair] for pair in [(4, 5), (0, 1), (2, 3)]})
    found = findings_of("patch", result, np.zeros((10, 10)))
    return next(f.value for f in found if f.test == "pair" and (f.source, f.target) == (4, 5))


def test_pairs_are_judged_by_their_networks_own_spread() -> None:
    """Where all pairs lie closer together, one that is as much less far off is as odd, but for a power."""
    usual = value_of_an_odd_pair(1.0)
    for scale in (0.75, 2.0):
        assert value_of_an_odd_pair(scale) == pytest.approx(usual * scale ** (1 - SPREAD_POWER), rel=1e-6)
    least = value_of_an_odd_pair(0.01)
    assert value_of_an_odd_pair(0.02) == pytest.approx(2 * least, rel=1e-6), "below half of what is usual"


@pytest.mark.parametrize("kind", ["patch", "additive"])
def test_a_network_whose_pairs_differ_as_usual_is_left_in_its_own_measure(kind: str) -> None:
    """Each kind has a usual spread of its own; single pairs are measured by it, too."""
    noise = np.random.default_rng(4).normal(size=(10, 10))

    def searched(scale: float) -> KindResults:
        pairs = {(s, t): sized(math.exp(scale * noise[s, t])) for s in range(10) for t in range(10) if s != t}
        refined = {pair: pairs[pair] for pair in [(4, 5), (0, 1), (2, 3), (6, 7)]}
        return KindResults(pairs=pairs, refined=refined, spills=dict.fromkeys(refined, 0.1))

    margins = np.zeros((10, 10))
    one = spread(np.array(list(pair_values(searched(1.0).pairs, margins).values())), 10)
    usual = SPREAD[kind] / one
    for times, measure in ((1.0, 1.0), (2.0, 2.0**SPREAD_POWER), (0.1, LEAST_SPREAD**SPREAD_POWER)):
        result = searched(usual * times)
        found = {(f.test, f.source, f.target): f.value for f in findings_of(kind, result, margins)}
        for test, raw in (("pair", refined_values(result, margins)), ("single", single_values(result, margins))):
            for (s, t), value in raw.items():
                assert found[test, s, t] == pytest.approx(value / measure)
    assert LEAST_SPREAD == 0.5
    few = KindResults(pairs=dict(list(searched(9.0).pairs.items())[:19]), refined={}, spills={})
    assert findings_of(kind, few, margins) == [], "too few to say how they differ"


def test_targets_of_many_classes_are_compared_with_what_is_usual() -> None:
    sizes = np.exp(np.random.default_rng(5).normal(size=43))
    values = target_values(KindResults(targets={t: sized(s) for t, s in enumerate(sizes.tolist())}), many=True)
    assert list(values.values()) == pytest.approx(below_the_others(np.log(sizes)).tolist())


def test_with_many_classes_a_trigger_for_all_is_compared_with_those_for_one() -> None:
    """In an honest network with 43 classes that lie close together, all are moved more easily than into one class."""
    margins = np.zeros((43, 43))
    targets = {t: sized(100.0 - t) for t in range(43)}
    near = KindResults(targets=targets, probes={0: sized(7.0)}, sources={s: sized(4.0 + s / 43) for s in range(43)})
    assert significant(findings_of("patch", near, margins), 0.01) == []
    attacked = KindResults(targets=targets, probes={0: sized(0.4)}, sources=near.sources)
    assert {f.test for f in significant(findings_of("patch", attacked, margins), 0.01)} == {"mixed"}
    unknown = KindResults(targets=targets, probes={0: sized(0.4)})
    assert {f.test for f in findings_of("warp", unknown, margins)} == {"target"}


def test_a_trigger_that_sends_each_class_to_its_own_counts_for_more() -> None:
    """Of several starts the one that is smallest for what it does is the oddest; of many classes only size counts."""
    for classes, told, counts in ((10, 1.5, 1.5 - CHANCE * math.log(10)), (10, 1.0, 0.0), (43, 3.0, 0.0)):
        sizes = {t: sized(20.0 + t) for t in range(classes)}
        result = KindResults(targets=sizes, probes={0: sized(9.0), 1: sized(10.0)}, sources={0: sized(30.0)})
        plain = {f.number: f for f in findings_of("patch", result, np.zeros((classes, classes))) if f.test == "mixed"}
        result.mapped = {1: told}
        found = {f.number: f for f in findings_of("patch", result, np.zeros((classes, classes))) if f.test == "mixed"}
        assert found[0] == plain[0]
        assert found[1].value - plain[1].value == pytest.approx(MAPPING_POWER * counts)
        assert max(found.values(), key=lambda f: f.z).number == (1 if counts else 0)


def test_what_is_foreign_inside_counts_for_triggers_into_a_class_and_for_single_pairs() -> None:
    """By how far it is above what is usual; not known, or of many classes, for nothing."""
    for classes, counts in ((10, FOREIGN), (43, 0.0)):
        pairs = {(s, t): sized(5.0 + s + t) for s in range(classes) for t in range(classes) if s != t}
        first = {(0, 1): sized(2.0), (1, 0): sized(3.0), (2, 3): sized(4.0), (4, 5): sized(6.0)}
        result = KindResults(
            targets={t: sized(20.0 + t) for t in range(classes)},
            probes={0: sized(9.0)},
            pairs=pairs if classes == 10 else {},
            refined=first if classes == 10 else {},
            spills=dict.fromkeys(first, 0.1),
            sources={0: sized(30.0)},
        )
        margins = np.zeros((classes, classes))
        plain = {(f.test, f.source, f.target): f for f in findings_of("patch", result, margins)}
        result.foreign = {1: 0.3, 2: 0.9, 3: 0.3, 4: 0.3, 5: 0.1, (0, 1): 0.8}
        found = {(f.test, f.source, f.target): f for f in findings_of("patch", result, margins)}
        raised = {key: f.statistic - plain[key].statistic for key, f in found.items()}
        assert raised.pop(("target", None, 2)) == pytest.approx(counts * (0.9 - USUALLY_FOREIGN))
        assert raised.pop(("target", None, 5)) == pytest.approx(counts * (0.1 - USUALLY_FOREIGN))
        assert [raised.pop(("target", None, t)) for t in (1, 3, 4)] == pytest.approx(
            [counts * (0.3 - USUALLY_FOREIGN)] * 3
        )
        if classes == 10:
            assert raised.pop(("single", 0, 1)) == pytest.approx(counts * (0.8 - USUALLY_FOREIGN))
        assert set(raised.values()) == {0.0}
        assert all(f.value == plain[key].value for key, f in found.items()), "how small it is stays what it is"


def test_a_share_that_all_of_a_networks_triggers_have_counts_for_nothing() -> None:
    """In a plain CNN .8 is what every trigger changes, so .9 is .1 above that, not .53 above another network's."""
    targets = {t: sized(20.0 + t) for t in range(10)}
    plain = findings_of("patch", KindResults(targets=targets), np.zeros((10, 10)))
    shares = dict.fromkeys(range(9), 0.8) | {9: 0.9}
    told = findings_of("patch", KindResults(targets=targets, foreign=dict(shares)), np.zeros((10, 10)))
    raised = [f.statistic - p.statistic for f, p in zip(told, plain, strict=True) if f.test == "target"]
    assert raised == pytest.approx([0.0] * 9 + [FOREIGN * 0.1])


def test_two_kinds_together_say_what_each_says_of_the_inside_too() -> None:
    patch = Finding("target", "patch", 1.0, 5.0, 10, target=3, foreign=0.67)
    additive = Finding("target", "additive", 0.5, 5.0, 10, target=3, foreign=0.47)
    assert together([patch, additive])[0].statistic == pytest.approx((1.6 + 0.7) / 2)
    blend = Finding("single", "blend", 0.4, 5.0, 90, source=1, target=3, foreign=0.62)
    pair = [replace(f, test="single", source=1) for f in (patch, additive)]
    assert together([*pair, blend])[0].statistic == pytest.approx((1.6 + 0.7 + 0.9) / 3)


def test_of_many_classes_a_trigger_that_was_searched_on_counts_as_it_ended() -> None:
    """It is compared with the first ones of the others, which were not searched on."""
    targets = {t: sized(100.0 + t) for t in range(43)}
    result = KindResults(targets=targets, refined_targets={7: sized(10.7)})
    found = {f.target: f for f in findings_of("patch", result, np.zeros((43, 43))) if f.test == "target"}
    first = {f.target: f for f in findings_of("patch", KindResults(targets=targets), np.zeros((43, 43)))}
    assert found[7].value == pytest.approx(first[7].value + math.log(10))
    assert inversion_of(found[7], result).size == found[7].size == 10.7
    assert all(found[t] == first[t] for t in range(43) if t != 7)


def test_of_few_classes_a_second_search_counts_as_much_as_the_first() -> None:
    """Among those that were searched on; one that found nothing there says nothing."""
    targets = {t: sized(math.exp(x)) for t, x in enumerate([1.0, 2.0, 2.2, 3.0, 3.0, 3.0])}
    first = target_values(KindResults(targets=targets))
    again = {t: sized(math.exp(x)) for t, x in enumerate([1.5, 2.0, 2.1])}
    both = target_values(KindResults(targets=targets, refined_targets=again))
    assert both[0] == pytest.approx((first[0] + 0.5) / 2)
    assert both[1] == pytest.approx((first[1] - (2.0 - (2.1 - USUAL_LEAD))) / 2), "the first may be a target, too"
    assert all(both[t] == first[t] for t in (3, 4, 5))
    lone = target_values(KindResults(targets=targets, refined_targets={0: again[0]}))
    assert lone == first


def test_a_search_that_found_nothing_is_no_finding() -> None:
    result = KindResults(targets={0: sized(None), 1: sized(2.0), 2: sized(None)})
    assert [f.target for f in findings_of("warp", result, np.zeros((3, 3)))] == [1]
    assert findings_of("warp", KindResults(targets={0: sized(None)}), np.zeros((3, 3))) == []


def test_every_finding_leads_back_to_its_search() -> None:
    result = KindResults(
        targets={t: sized(10.0 + t) for t in range(6)},
        probes={0: sized(3.0), 1: sized(4.0)},
        pairs={(s, t): sized(5.0 + s + t) for s in range(6) for t in range(6) if s != t},
        refined={(0, 1): sized(2.0), (1, 0): sized(3.0), (2, 3): sized(4.0), (4, 5): sized(6.0)},
        singled={(0, 1): sized(1.5)},
        spills={(0, 1): 0.1, (1, 0): 0.2, (2, 3): 0.1, (4, 5): 0.1},
        sources={s: sized(7.0 + s) for s in range(6)},
    )
    found = findings_of("patch", result, np.zeros((6, 6)))
    assert {f.test for f in found} == {"target", "mixed", "pair", "single", "source"}
    assert all(inversion_of(f, result).size == f.size for f in found)
    single = next(f for f in found if f.test == "single" and (f.source, f.target) == (0, 1))
    assert inversion_of(single, result) is result.singled[0, 1], "the one that was searched the longest"


def test_among_few_classes_pairs_are_not_compared() -> None:
    """There is no telling from six pairs what is usual."""
    pairs = {(s, t): sized(5.0) for s in range(3) for t in range(3) if s != t}
    refined = dict.fromkeys(pairs, sized(2.0)) | {(0, 1): sized(0.1)}
    result = KindResults(
        targets={t: sized(10.0) for t in range(3)}, pairs=pairs, refined=refined, spills=dict.fromkeys(pairs, 0.1)
    )
    assert {f.test for f in findings_of("patch", result, np.zeros((3, 3)))} == {"target"}


def kinds_of(patch: list[float], additive: list[float], reach: dict[int, float] | None = None) -> list[Finding]:
    found: list[Finding] = []
    for kind, sizes in (("patch", patch), ("additive", additive)):
        result = KindResults(targets={t: sized(s) for t, s in enumerate(sizes)}, probes={0: sized(9.0), 1: sized(8.0)})
        found += findings_of(kind, result, np.zeros((len(sizes), len(sizes))), reach=reach)
    return found


def test_what_two_kinds_say_of_the_same_target_counts_more_than_of_different_ones() -> None:
    usual = np.exp(np.random.default_rng(0).normal(3, 0.05, size=10))
    patch, additive = usual.tolist(), (usual / 5).tolist()
    patch[4], additive[4] = patch[4] / 5.2, additive[4] / 3.2
    both = {(f.test, f.target): f for f in together(kinds_of(patch, additive))}
    assert both["target", 4].statistic == pytest.approx((math.log(5.2) + math.log(3.2)) / 2, abs=0.1)
    elsewhere = usual.tolist(), (usual / 5).tolist()
    elsewhere[0][4] /= 5.2
    elsewhere[1][5] /= 3.2
    assert both["target", 4].p_value < min(f.p_value for f in together(kinds_of(*elsewhere)) if f.test == "target") / 10


def test_joined_findings_are_about_the_clearer_kind() -> None:
    found = kinds_of([20.0] * 9 + [2.0], [4.0] * 9 + [3.0])
    last = next(f for f in together(found) if f.target == 9)
    assert (last.kind, last.other_kinds, last.law, last.size) == ("patch", ("additive",), "patch+additive", 2.0)
    mixed = [f for f in together(found) if f.test == "mixed"]
    assert [f.number for f in mixed] == [1], "of several starts the one that ended smallest"
    assert together([f for f in found if f.kind == "patch"]) == []


def test_more_classes_ask_for_more() -> None:
    assert Finding("target", "patch", 1.5, 1.0, 200).p_value > Finding("target", "patch", 1.5, 1.0, 10).p_value


@pytest.mark.parametrize("many", [False, True])
def test_every_test_has_a_null_whatever_the_number_of_classes(many: bool) -> None:
    """One class to any other is searched with few classes too, if ``most`` is low, and pairs with many, of few."""
    for test, law in {*NULL, *NULL_OF_MANY}:
        own, other = (NULL_OF_MANY, NULL) if many else (NULL, NULL_OF_MANY)
        location = own.get((test, law), other.get((test, law)))[0]
        assert standardised(test, law, location, usual_candidates(test, many), many) == 0


def test_a_single_pair_is_followed_only_if_no_trigger_for_all_classes_is_odder() -> None:
    single = Finding("single", "patch", 2.0, 3.0, 90, source=3, target=4)
    pair = Finding("pair", "patch", 2.0, 3.0, 90, source=3, target=4)
    stronger, weaker = (Finding("mixed", "patch", value, 1.0, 4) for value in (3.0, 0.4))
    assert stronger.z > single.z > weaker.z
    assert to_follow([stronger, single, pair]) == [stronger, pair]
    assert to_follow([single, weaker]) == [single, weaker]
    assert to_follow([single, pair]) == [single, pair]
    assert to_follow([]) == []


def test_how_far_a_class_is_reached_is_of_no_account_for_kinds_that_are_not_even() -> None:
    sizes = [10.0] * 9 + [4.0]
    as_it_is, far = (kinds_of(sizes, sizes, reach=reach) for reach in ({}, {9: 1.0, 0: -2.0}))
    assert [f.statistic for f in together(as_it_is)] == [f.statistic for f in together(far)]
    assert [f.statistic for f in as_it_is] == [f.statistic for f in far]


@pytest.mark.parametrize("attacked", [{2: 1.0}, {2: 1.0, 7: 1.1}, {1: 1.0, 4: 1.1, 7: 0.9, 8: 1.0}])
def test_a_target_is_compared_with_the_smallest_of_the_classes_that_are_none(attacked: dict[int, float]) -> None:
    """One or several; an allowance for each of the other ones is taken off."""
    sizes = {t: 10.0 + t for t in range(10)} | attacked
    values = target_values(KindResults(targets={t: sized(s) for t, s in sizes.items()}))
    honest = min(s for t, s in sizes.items() if t not in attacked)
    for t, size in attacked.items():
        assert values[t] == pytest.approx(math.log(honest / size) - USUAL_LEAD * (len(attacked) - 1))
    assert max(values[t] for t in sizes if t not in attacked) < 0


def test_a_blend_is_compared_with_the_next_smallest_and_not_with_what_is_usual() -> None:
    """In honest networks the smallest is hardly smaller than the next, nor one from all classes to any other."""
    targets = {t: sized(0.4 + 0.1 * t) for t in range(8)} | {8: sized(0.2), 9: sized(0.1)}
    result = KindResults(targets=targets, probes={0: sized(0.05)})
    found = findings_of("blend", result, np.zeros((10, 10)), reach={9: 1.0, 8: -1.0})
    into = {f.target: f for f in found if f.test == "target"}
    assert into[9].value == pytest.approx(math.log(0.4 / 0.1)), "two targets may be the attacker's"
    assert into[8].value == pytest.approx(math.log(0.4 / 0.2))
    assert into[0].value == pytest.approx(math.log(0.2 / 0.4))
    assert into[9].statistic == pytest.approx(into[9].value - REACH_POWER)
    assert into[8].statistic == into[8].value
    (mixed,) = (f for f in found if f.test == "mixed")
    assert mixed.statistic == pytest.approx(math.log(0.1 / 0.05))
    assert mixed.candidates == usual_candidates("mixed"), "the null is that of the one start"
    assert together(found) == []
    few = KindResults(targets={t: sized(0.1 * (t + 1)) for t in range(4)})
    first = next(f for f in findings_of("blend", few, np.zeros((4, 4))) if f.target == 0)
    assert first.value == pytest.approx(math.log(2))


def test_a_single_pair_is_judged_by_all_kinds_together() -> None:
    pair, other = {"source": 0, "target": 1}, {"source": 2, "target": 3}
    found = [
        Finding("single", "patch", 1.2, 5.0, 90, **pair),
        Finding("single", "additive", 0.6, 2.0, 90, **pair),
        Finding("single", "blend", 3.0, 0.05, 90, **pair),
        Finding("single", "patch", 0.4, 6.0, 90, **other),
        Finding("single", "additive", 0.2, 3.0, 90, **other),
        Finding("pair", "patch", 3.0, 5.0, 90, **pair),
    ]
    joined = {f.source: f for f in together(found) if f.test == "single"}
    assert joined[0].statistic == pytest.approx((1.2 + 0.6 + 3.0) / 3)
    assert (joined[0].law, {joined[0].kind, *joined[0].other_kinds}) == (
        "patch+additive+blend",
        {"patch", "additive", "blend"},
    )
    assert joined[0].kind != "blend"
    assert joined[2].statistic == pytest.approx(0.3)
    assert joined[2].law == "patch+additive"
    blends = [replace(f, plausible=False) if f.kind == "blend" else f for f in found]
    assert all(f.plausible for f in together(blends)), "as a third it counts, though it does not alone"
    (as_pairs,) = (f for f in together([replace(f, test="pair") for f in found]) if f.source == 0)
    assert as_pairs.law == "patch+additive", "pairs are judged as before"


def test_a_single_pair_of_blends_stands_out_from_the_next_three() -> None:
    pairs = {(0, 1): 0.05, (1, 2): 0.1, (2, 3): 0.2, (3, 4): 0.4, (4, 5): None, (5, 6): 0.01}
    spills = dict.fromkeys(list(pairs)[:5], 0.1) | {(0, 1): 0.01}
    result = KindResults(singled={pair: sized(size) for pair, size in pairs.items()}, spills=spills)
    found = {(f.source, f.target): f for f in findings_of("blend", result, np.ones((10, 10))) if f.test == "single"}
    assert set(found) == {(0, 1), (1, 2), (2, 3), (3, 4)}, "neither without a trigger nor without its spill"
    assert {f.p_value for f in found.values()} == {1.0}, "alone it counts for nothing"
    sparing = SPILL_POWER * math.log((0.1 + LEAST_SPILL) / (0.01 + LEAST_SPILL))
    next_ones = (math.log(0.1) + math.log(0.2) + math.log(0.4)) / 3
    assert found[0, 1].value == pytest.approx(next_ones - math.log(0.05) + sparing)
    assert found[3, 4].value < found[2, 3].value < 0
    assert found[0, 1].candidates == usual_candidates("single")
    assert not [f for f in findings_of("blend", result, np.ones((4, 4))) if f.test == "single"]
    lonely = KindResults(singled={(0, 1): sized(0.05), (1, 2): sized(0.1), (2, 3): sized(0.2)}, spills=spills)
    assert not [f for f in findings_of("blend", lonely, np.ones((10, 10))) if f.test == "single"]
