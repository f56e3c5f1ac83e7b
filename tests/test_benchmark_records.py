"""Committed measurements can be read, repeated and are not of an older release; the scripts that make them work."""

from __future__ import annotations

import json
import runpy
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy
from torch import nn

from oracles.histogram import dense_histogram
from untrojan.correction.histogram import Bins, soft_histogram
from untrojan.detection.reference import built_in
from untrojan.victims.making import build_attack
from untrojan.victims.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"
RECORDS = sorted((BENCHMARKS / "records").glob("**/*.json"))


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return script("record", monkeypatch)


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that a script of the benchmarks defines."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="benchmark")


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_committed_record_is_whole_and_not_stale(path: Path, record: dict[str, Any]) -> None:
    read = record["BenchmarkRecord"].model_validate_json(path.read_text(encoding="utf-8"))
    assert read.name == path.stem
    assert read.results
    program, own = shlex.split(read.command)[:2]
    assert program == "python"
    assert own in read.sources
    for file in read.sources:
        assert (ROOT / file).is_file(), f"{file} is gone: measure again or delete the record"
    assert {"python", "torch", "untrojan"} <= read.versions.keys()
    assert minor(read.versions["untrojan"]) == minor(version("untrojan")), f"of an older release: run {read.command}"
    assert not read.changed, "measured on files that no commit has: commit, then measure again"


def minor(text: str) -> list[str]:
    return text.split(".")[:2]


def written(folder: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A record, made without git."""
    answers = {"rev-parse": "ab" * 20, "status": ""}
    monkeypatch.setitem(record["write_record"].__globals__, "_git", lambda command, *_: answers[command])
    monkeypatch.setattr("sys.argv", ["x", "--data", "/home/someone/data.parquet", "--limit", "5"])
    path = folder / "new" / "example.json"
    script_ = str(BENCHMARKS / "histogram.py")
    record["write_record"](
        path, name="example", script=script_, seed=3, results={"a": 1.5}, measures=["pyproject.toml"]
    )
    return json.loads(path.read_text(encoding="utf-8"))


def test_rows_of_an_earlier_record_stay_unless_they_are_measured_again(
    tmp_path: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = written(tmp_path, record, monkeypatch)
    content["results"] = {"rows": [{"name": "a", "x": 1}, {"name": "b", "x": 1}, {"name": "c", "commit": "cd" * 20}]}
    path = tmp_path / "earlier.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    made = record["kept"](path, "rows", [{"name": "a", "x": 2}], lambda row: row["name"])
    assert made == [{"name": "b", "x": 1, "commit": "ab" * 20}, {"name": "c", "commit": "cd" * 20}]
    assert record["kept"](tmp_path / "none.json", "rows", [], lambda row: row["name"]) == []


def test_a_record_says_what_is_needed(tmp_path: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    content = written(tmp_path, record, monkeypatch)
    assert next(iter(content)) == "schema"
    wanted = {"name", "date", "command", "seed", "machine", "versions", "commit", "changed", "sources", "results"}
    assert set(content) == wanted | {"schema"}
    assert content["command"] == "python benchmarks/histogram.py --data data.parquet --limit 5"
    assert (content["seed"], content["results"], content["changed"]) == (3, {"a": 1.5}, False)
    assert content["sources"].keys() == {"benchmarks/histogram.py", "pyproject.toml"}
    assert content["versions"]["untrojan"] == version("untrojan")


def test_a_record_with_something_missing_or_wrong_is_refused(
    tmp_path: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    content, model = written(tmp_path, record, monkeypatch), record["BenchmarkRecord"]
    assert model.model_validate(content)
    damaged = [{k: v for k, v in content.items() if k != name} for name in content if name != "schema"]
    damaged += [content | change for change in ({"commit": "main"}, {"more": 1}, {"schema": "other"}, {"date": "soon"})]
    for wrong in damaged:
        with pytest.raises(ValidationError):
            model.model_validate(wrong)


def test_the_histogram_benchmark_measures_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = script("histogram", monkeypatch)
    for at_once in (16, 3):
        results = benchmark["measure"](seed=0, repeats=2, images=1, channels_at_once=at_once)
        assert results["histogram_difference"] < 1e-5
        assert results["gradient_relative_difference"] < 1e-3
        for name in ("soft", "dense", "copy"):
            assert len(results["seconds"][name]) == 2
            assert min(results["seconds"][name]) > 0
        for name in ("dense_to_soft", "soft_to_copy"):
            assert 0 < results[name]["least"] <= results[name]["median"] <= results[name]["most"]
        assert results["dense_to_soft"]["median"] == pytest.approx(
            sum(d / s for d, s in zip(results["seconds"]["dense"], results["seconds"]["soft"], strict=True)) / 2
        )


def test_the_dense_form_that_it_races_with_is_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = script("histogram", monkeypatch)["dense_in_parts"](2)
    values = torch.randn(4, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    bins = Bins(torch.tensor([-1.0, 0.0, -3.0]).double(), torch.tensor([7, 7, 7]), 0.3)
    assert torch.allclose(
        dense(values, bins, 20.0), dense_histogram(values, bins.low, bins.counts, 0.3, 20.0), atol=1e-12
    )


def test_the_reference_set_of_the_package_is_the_one_of_the_committed_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = script("reference_fit", monkeypatch)
    made = fit["reference_of"](fit["networks"]())
    own = built_in()
    assert [one.family for one in made.models] == [one.family for one in own.models], "run benchmarks/reference_fit.py"
    assert made.limits == pytest.approx(own.limits)
    for scope, weights in own.weights.items():
        assert made.weights[scope] == pytest.approx(weights, abs=0.02)


def test_every_card_of_the_reference_set_is_of_the_lottery(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the lot makes every network again: its recipe, and as what it is counted."""
    lottery = script("lottery", monkeypatch)
    draw, groups = lottery["draw"], lottery["GROUPS"]
    packed = script("reference_set", monkeypatch)["packed"]
    cards, tables = packed()
    numbers = [scan["table"] for card in cards for scan in card["scans"] if scan["table"] is not None]
    assert sorted(numbers) == list(range(len(tables)))
    for card in (card for card in cards if card["group"] in groups):
        family, recipe = draw(card["group"], int(card["name"].rpartition("-")[2]))
        assert (card["family"], Recipe.model_validate(card["recipe"])) == (family, recipe), card["name"]
        assert all(
            tables[s["table"]].network.classes == card["classes"] for s in card["scans"] if s["table"] is not None
        )
    assert len({card["family"] for card in cards}) >= 12


def test_a_network_that_is_packed_or_there_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = script("reference_set", monkeypatch)
    waiting = made["waiting"]
    monkeypatch.setitem(waiting.__globals__, "packed_cards", lambda: [{"name": "clean-0001"}])
    monkeypatch.setitem(waiting.__globals__, "cards_of", lambda work: [{"name": "attacked-0000"}])
    assert [task[:2] for task in waiting(tmp_path, 3, ["clean", "attacked"])] == [
        ("clean", 0),
        ("attacked", 1),
        ("clean", 2),
        ("attacked", 2),
    ]


def test_lots_are_drawn_apart_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = script("lottery", monkeypatch)
    drawn = [made["draw"](group, number) for group in made["GROUPS"] for number in range(150)]
    assert drawn == [made["draw"](group, number) for group in made["GROUPS"] for number in range(150)]
    assert len({recipe.seed for _, recipe in drawn}) == len(drawn)
    assert {family for family, _ in drawn} == set(made["FAMILIES"])
    attacked = [recipe for _, recipe in drawn if recipe.attack != "none"]
    assert len(attacked) == 300
    assert {recipe.attack for recipe in attacked} == set(made["ATTACKS"])
    for _, recipe in drawn:
        assert recipe.attack == "none" or build_attack(recipe.attack, recipe.attack_options)


def judged(name: str, verdict: str, **more: Any) -> dict[str, Any]:
    row = {
        "name": name,
        "family": "vgg",
        "task": "digits",
        "classes": 10,
        "attack": "none",
        "setting": None,
        "asr": None,
    }
    row |= {
        "targets": [],
        "named": [],
        "fed": "right",
        "p_value": 0.5,
        "verdict": verdict,
        "likeliest": 3,
        "counts": True,
    }
    return row | more


def test_the_figures_of_what_was_left_out_count_alarms_finds_and_false_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    made = script("left_out", monkeypatch)
    patch = {"attack": "badnet", "setting": "a2o:3", "targets": [3], "asr": 0.95}
    rows = [
        judged("a", "clean"),
        judged("b", "backdoor", named=[1], p_value=0.001),
        judged("c", "inconclusive", fed="no normalisation"),
        judged("d", "backdoor", **patch, named=[3]),
        judged("e", "backdoor", **patch, named=[3, 4]),
        judged("f", "clean", **patch),
        judged("g", "clean", **(patch | {"asr": 0.5})),
        judged("h", "backdoor", **(patch | {"setting": "a2a", "targets": list(range(10)), "named": list(range(10))})),
        judged("i", "backdoor", **(patch | {"setting": "s2t:1>3", "named": [3]})),
        judged("j", "backdoor", **(patch | {"setting": "s2t:1>0", "classes": 2, "targets": [0], "named": [0]})),
        judged("k", "inconclusive", counts=False),
    ]
    told = made["summary"](rows)
    assert (told["clean"]["n"], told["clean"]["flagged"]) == (2, 1)
    assert told["attacked"]["patch"] == {"n": 3, "found": 2, "exact": 1, "false_targets": 1}
    assert (told["uneven"]["clean"]["n"], told["uneven"]["clean"]["inconclusive"]) == (1, 1)
    assert told["attacked"]["all-to-all"] == {"n": 1, "found": 1, "exact": 1, "false_targets": 0}
    assert told["attacked"]["single-source"]["found"] == 1
    assert told["weak"]["n"] == 1
    assert told["fed_wrongly"] == {"n": 1, "flagged": 0, "inconclusive": 1}
    assert told["likeliest"] == {"n": 3, "right": 3}
    lines = made["table"](told | {"by_task": told, "zoo": made["summary"](rows[:2])}).splitlines()
    assert lines[2].startswith("| a family | 1 of 2 [9.4, 90.5] % | 2 of 3 | – |")
    assert lines[4].startswith("| the zoo's reporting half | 1 of 2 [9.4, 90.5] % | – |")


def test_the_agreement_of_shifts_is_the_mean_cosine_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    agreement = script("shifts", monkeypatch)["agreement"]
    rows = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    pairs = [torch.cosine_similarity(rows[i], rows[j], dim=0) for i in range(6) for j in range(6) if i != j]
    assert agreement(rows) == pytest.approx(float(torch.stack(pairs).mean()), abs=1e-6)
    assert agreement(torch.ones(3, 2)) == pytest.approx(1.0)
    assert agreement(torch.zeros(3, 2)) == 0.0


def test_a_record_of_the_theorem_holds_simulations_that_agree() -> None:
    results = json.loads((BENCHMARKS / "records" / "theory.json").read_text())["results"]
    for row in results["problems"]:
        agreeing = [low <= exact <= high for exact, (_, low, high) in zip(row["sia"], row["simulated"], strict=True)]
        assert sum(agreeing) >= 0.8 * len(agreeing), f"of {len(agreeing)} intervals, 95 % each, on the same draws"
        assert row["sia"][0] == pytest.approx(row["source_accuracy"])
        assert row["sia"][-1] == pytest.approx(1 - row["asr"])


def cell_rows() -> list[dict[str, Any]]:
    """Rows as of a record of methods: a victim with a guard, and one in which nothing was found."""

    def rates(**values: float) -> dict[str, Any]:
        return {name: {"value": value, "low": 0.0, "high": 1.0} for name, value in values.items()}

    before = rates(acc=0.9, asr=1.0, asr_floor=0.01, sia=0.0, sia_ceiling=0.89)
    after = rates(acc=0.899, asr=0.02, sia=0.85, tpr_of_successful=0.98, fpr=0.05)
    about = {"victim": "c/v", "targets": [9], "guarded": True}
    return [
        about | {"method": "none", "rates": before | {"before": before}},
        about | {"method": "bna", "rates": after | {"before": before}},
        about | {"method": "strip", "rates": after | {"before": before, "fpr": None}},
        about | {"victim": "c/w", "method": "bna", "targets": [], "guarded": False, "rates": {"before": before}},
    ]


def test_the_table_of_guards_tells_what_got_none(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = script("methods", monkeypatch)["guards"](cell_rows()).splitlines()
    expected = ["c/v", "9", "90.0 → 89.9", "100.0 → 2.0 (1.0)", "0.0 → 85.0 (89.0)", "98.0, 5.0", "98.0, –"]
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == expected
    assert lines[3].startswith("| c/w | none | –")


def test_the_table_of_methods_has_a_line_for_each_and_what_bounds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = script("methods", monkeypatch)["table"](cell_rows()).splitlines()
    assert lines[0] == "| method | v | w |"
    assert lines[2:] == [
        "| none | 90.0, 100.0, 0.0 | – |",
        "| bna | 89.9, 2.0, 85.0 | –, –, – |",
        "| strip | 89.9, 2.0, 85.0 | – |",
        "| *floor of ASR, ceiling of SIA* | 1.0, 89.0 | 1.0, 89.0 |",
    ]


def test_victims_that_differ_in_their_seed_are_one_column(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{**one, "victim": f"c/v-s{i}"} for i, one in enumerate([*cell_rows()[:2], cell_rows()[1]])]
    lines = script("methods", monkeypatch)["table"](rows).splitlines()
    assert (lines[0], lines[3]) == ("| method | v |", "| bna | 89.9, 2.0, 85.0 (2) |")


def test_the_spread_is_over_victims_and_counts_what_got_no_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    methods = script("methods", monkeypatch)
    guarded, without = cell_rows()[1], cell_rows()[0]
    rows = [
        guarded | {"victim": "c/badnet-a2o9-s1"},
        without | {"victim": "c/badnet-a2o9-s2", "method": "bna", "guarded": False},
        guarded | {"victim": "c/vit-s1"},
    ]
    lines = methods["spread"](rows).splitlines()[2:]
    half = 12.7062 * 0.05
    assert lines[0].startswith(f"| badnet-a2o9 | 2 | {0.05:.1f} [{0.05 - half:.1f}, {0.05 + half:.1f}] | 50.0 [")
    assert lines[1] == "| vit | 1 | 0.1 | 1.0 | 4.0 | 98.0 | 5.0 |"
    assert lines[2].startswith("| *the paper's, all-to-one* | 2 | ")


def test_cells_become_rows_with_the_victims_rates_beside_those_behind_the_method(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    methods = script("methods", monkeypatch)
    cell = methods["CellRecord"](
        key="k", status="done", victim="v", method="bna", seed=0, settings={}, guarded=True,
        options={"margin_share": 0.0, "correction": {"epochs": 30}},
    )  # fmt: skip
    made = methods["row"](cell)
    assert made["method"] == "bna (paper)"
    assert made["rates"] == {}
    assert made["images"] is None


def test_a_bench_runs_table_has_the_bounds_in_brackets_and_counts_victims(monkeypatch: pytest.MonkeyPatch) -> None:
    def mean(value: float, victims: int) -> dict[str, Any]:
        return {"value": value, "low": None, "high": None, "victims": victims}

    def entry(row: str, column: str, victims: int, **rates: float) -> dict[str, Any]:
        about = {"row": [row], "column": [column], "cells": victims, "failed": 0, "found": None, "cost": {}}
        return about | {"rates": {name: mean(value, victims) for name, value in rates.items()}}

    entries = [
        entry("50", "badnet", 2, acc=0.9, asr=0.02, asr_floor=0.01, sia=0.85, sia_ceiling=0.9),
        entry("50", "none", 1, acc=0.8),
        entry("150", "badnet", 1, acc=0.7),
    ]
    about = {"name": "t", "title": None, "rows": ["tau"], "columns": ["attack"], "rates": ["acc"], "failed": []}
    lines = script("bench_table", monkeypatch)["table"]({"table": about | {"entries": entries}}).splitlines()
    assert lines[0] == "| tau | badnet (2) | none (1) |"
    assert lines[2:] == ["| 50 | 90.0, 2.0 (1.0), 85.0 (90.0) | 80.0 |", "| 150 | 70.0 | – |"]


def test_what_guards_cost_is_a_mean_over_the_groups_in_which_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def entry(row: str, column: str, *amounts: float) -> dict[str, Any]:
        names = ("seconds", "images_forward", "images_forward_backward")
        known = {n: {"value": v, "low": None, "high": None, "victims": 1} for n, v in zip(names, amounts, strict=False)}
        about = {"row": [row], "column": [column], "cells": 1, "failed": 0, "found": None, "rates": {}}
        return about | {"cost": dict.fromkeys(names) | known}

    entries = [
        entry("none", "a"),
        entry("nad", "a", 30, 1000, 2000),
        entry("nad", "b", 50, 2000, 4000),
        entry("nad", "c"),
    ]
    about = {"name": "t", "title": None, "rows": ["method"], "columns": ["attack"], "rates": [], "failed": []}
    lines = script("bench_table", monkeypatch)["costs"]({"table": about | {"entries": entries}}).splitlines()
    assert lines[0] == "| method | groups | seconds | images forward + backward | images forward |"
    assert lines[2:] == ["| nad | 2 | 40 | 3,000 | 1,500 |"]


def test_the_overhead_is_measured_for_every_share(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = script("overhead", monkeypatch)["measure"]("resnet18", 4, 10, 2, 0)
    assert [row["share"] for row in rows] == [0.0, 0.1, 1.0]
    assert [row["floor"] for row in rows] == [1.0, 1.1, 2.0]
    assert all(row["ratio"] > 0.5 for row in rows)


def test_the_empirical_histogram_is_what_a_steep_soft_one_comes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    empirical = script("slope", monkeypatch)["empirical"]
    values = torch.randn(40, 3, 5, generator=torch.Generator().manual_seed(0)).double()
    bins = Bins.between(values.amin((0, 2)), values.amax((0, 2)), 0.3)
    assert torch.allclose(empirical(values, bins), soft_histogram(values, bins, 1e7), atol=1e-6)


def test_the_divergences_of_a_neuron_are_those_of_its_histograms(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(300, 2, generator=generator) * torch.tensor([1.0, 0.35])
    triggered = clean.square() + torch.tensor([0.0, 0.2])
    found = script("divergences", monkeypatch)["by_neuron"](clean, triggered)
    for neuron in range(2):
        before, after = (values[:, neuron].double().numpy() for values in (clean, triggered))
        count = int(np.ceil((before.max() - before.min()) / 0.1))
        edges = before.min() + 0.1 * np.arange(count + 1)
        edges[0], edges[-1] = -np.inf, np.inf
        p, q = (np.histogram(values, edges)[0] / 300 for values in (before, after))
        assert found["tv"][neuron] == pytest.approx(np.abs(p - q).sum() / 2, abs=0.01)
        assert found["js"][neuron] == pytest.approx(2 * jensenshannon(p, q) ** 2, abs=0.03)
        assert found["kl"][neuron] == pytest.approx(entropy(p, np.maximum(q, 1e-6)), abs=0.15)
    assert float(found["tv"][1]) > 0.5


def test_what_the_last_linear_layer_gets_is_seen_batch_by_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 2))
    images = torch.rand(300, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    seen = script("divergences", monkeypatch)["features"](network, network, images)
    assert torch.allclose(seen, network[:3](images))
    assert not network[3]._forward_pre_hooks


def test_the_record_of_divergences_has_whole_histograms() -> None:
    results = json.loads((BENCHMARKS / "records" / "divergences.json").read_text())["results"]
    for one in results["victims"]:
        assert {"clean", "poisoned"} <= one["divergences"].keys()
        assert all(0 <= found["tv"] <= 1 for found in one["divergences"].values())
    shown = results["victims"][0]["histograms"]
    assert list(shown) == ["clean", "poisoned", "bna"]
    for panel in shown.values():
        assert len(panel["clean"]) == len(panel["triggered"])
        assert sum(panel["clean"]) == pytest.approx(1, abs=0.01)
        assert sum(panel["triggered"]) == pytest.approx(1, abs=0.01)
    assert shown["poisoned"]["neuron"] == shown["bna"]["neuron"]


def test_the_scores_of_pairs_are_parted_by_the_attackers_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    made = script("anomaly_scores", monkeypatch)
    sizes = [[None, 2.0, 4.0], [4.0, None, 8.0], [4.0, 4.0, None]]
    # The median of 1 / size is 0.25 and most coincide with it, so the MAD is its floor, a hundredth of that.
    scores = made["scores_of"](sizes)
    assert scores == [[None, 100.0, 0.0], [0.0, None, -50.0], [0.0, 0.0, None]]
    own, others = made["parted"]({"scores": scores, "setting": "a2o:1"})
    assert (own, others) == ([100.0, 0.0], [0.0, 0.0, -50.0, 0.0])
    line = made["table"]([{"attack": "wanet", "setting": "a2o:1", "scores": scores}]).splitlines()[2]
    assert line == "| wanet | a2o | 3 | 1 of 2 | 0 of 4 | 0.81 |"


def test_the_record_of_anomaly_scores_holds_the_scores_of_its_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    path = BENCHMARKS / "records" / "anomaly_scores.json"
    assert path.stat().st_size < 100_000
    scores_of = script("anomaly_scores", monkeypatch)["scores_of"]
    for one in json.loads(path.read_text())["results"]["victims"]:
        assert scores_of(one["sizes"]) == one["scores"]


def test_what_a_trigger_hides_is_told_beside_what_bna_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    made = script("honest_networks", monkeypatch)
    monkeypatch.setitem(
        made["table"].__globals__,
        "under_the_ceiling",
        lambda: {"cifar10/badnet-a2o9-s100": 3.0, "cifar10/badnet-a2o9-s101": 1.0, "gtsrb/l0-inv": 26.0},
    )
    rows = [
        {"name": f"cifar10/badnet-a2o9-s10{i}", "group": "cifar10/badnet-a2o9", "lost": lost}
        for i, lost in enumerate((2.0, 4.0))
    ] + [{"name": "gtsrb/l0-inv-a2o0-s100", "group": "gtsrb/l0-inv-a2o0", "lost": 12.5}]
    badnet, gtsrb, papers, none = made["table"](rows).splitlines()[2:]
    assert badnet.startswith("| cifar10/badnet-a2o9 | 2 | 3.0 [")
    assert "| 2.0 [" in badnet
    assert "| -1.0 [" in badnet
    assert gtsrb == "| gtsrb/l0-inv-a2o0 | 1 | 12.5 | 26.0 | 13.5 |"
    assert papers.startswith("| *the paper's, all-to-one* | 2 | 3.0 [")
    assert none == "| *the paper's, all-to-all* | 0 | – | – | – |"


def test_what_bna_lacks_is_read_from_the_records_of_both_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    found = script("honest_networks", monkeypatch)["under_the_ceiling"]()
    cells = json.loads((BENCHMARKS / "records" / "methods.json").read_text())["results"]["cells"]
    one = next(c for c in cells if (c["method"], c["victim"]) == ("bna", "cifar10/blended-a2o9-s100"))
    lacking = 100 * (one["rates"]["before"]["sia_ceiling"]["value"] - one["rates"]["sia"]["value"])
    assert found["cifar10/blended-a2o9-s100"] == pytest.approx(lacking)
    assert found["gtsrb/l0-inv"] > 0
