from __future__ import annotations

from pathlib import Path

import pytest

from untrojan.attacks import ATTACKS, PRESETS
from untrojan.errors import UsageError
from untrojan.setting import Setting
from untrojan.victims.making import build_attack
from untrojan.victims.plan import read_plan
from untrojan.victims.recipe import Recipe, complete, parse_count, splits

PLAN = """
[defaults]
dataset = "cifar10"
width = 8

[[victim]]
name = "clean-s{seed}"
seeds = { calibration = [0, 1], reporting = [10] }

[[victim]]
name = "{attack}-{setting}-n{count}-x{amplitude}-s{seed}"
attack = "chessboard"
setting = "a2o:9"
seeds = [3, 4]
grid = { count = [50, "2%"], amplitude = [2, 3] }
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    return path


def test_seeds_and_grid_are_multiplied_out(tmp_path: Path) -> None:
    recipes = read_plan(write(tmp_path, PLAN))
    clean, chess = recipes[:3], recipes[3:]
    assert [(r.name, r.seed, r.part, r.attack) for r in clean] == [
        ("clean-s0", 0, "calibration", "none"),
        ("clean-s1", 1, "calibration", "none"),
        ("clean-s10", 10, "reporting", "none"),
    ]
    assert {(r.count, r.attack_options["amplitude"], r.seed) for r in chess} == {
        (count, amplitude, seed) for count in (50, 0.02) for amplitude in (2, 3) for seed in (3, 4)
    }
    assert [r.name for r in chess][:2] == ["chessboard-a2o9-n50-x2-s3", "chessboard-a2o9-n50-x2-s4"]
    assert chess[-1].name == "chessboard-a2o9-n2pct-x3-s4"
    assert all((r.dataset, r.width, r.part, r.epochs) == ("cifar10", 8, r.part, 8) for r in recipes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("reporting = [10]", "reporting = [1]"), "share the seeds \\[1\\]"),
        (("-s{seed}", ""), "two victims are called 'clean'"),
        (("width = 8", 'width = "x"'), "number 1: width: "),
        (("width = 8", "wide = 8"), "number 1: wide: "),
        (("{seed}", "{sead}"), "number 1: KeyError 'sead'"),
        (("{seed}", "{}"), "number 1: IndexError"),
        (("[[victim]]", "[[victims]]"), "expected \\[defaults\\] and one or more"),
        (("[defaults]", "[defaults"), "not TOML"),
        (('"clean', '"../clean'), "number 1: name: "),
        (("seeds = [3, 4]", "seeds = 3"), "number 2: TypeError"),
        (('"2%"', '"2"'), None),
        (('"2%"', '"200%"'), "number 2: count: "),
    ],
)
def test_what_is_wrong_with_a_plan_is_one_line(tmp_path: Path, change: tuple[str, str], message: str | None) -> None:
    path = write(tmp_path, PLAN.replace(*change))
    if message is None:
        assert len(read_plan(path)) == 11
        return
    with pytest.raises(UsageError, match=message) as caught:
        read_plan(path)
    assert "\n" not in str(caught.value)


def test_a_setting_may_follow_the_seed(tmp_path: Path) -> None:
    text = PLAN.replace('"a2o:9"', '"s2t:{digit}>{next}"').replace("[3, 4]", "[19, 104]")
    found = read_plan(write(tmp_path, text))
    assert {r.setting for r in found[3:]} == {"s2t:9>0", "s2t:4>5"}
    assert found[3].name == "chessboard-s2t9-0-n50-x2-s19"


def test_counts() -> None:
    assert [parse_count(text) for text in ("1", "900", "5%", "0.5 %", "100%")] == [1, 900, 0.05, 0.005, 1.0]
    for text in ("0", "-1", "0%", "101%", "many", "1.5", ""):
        with pytest.raises(ValueError, match="expected a number of images"):
            parse_count(text)


def test_splits_of_a_set_by_name() -> None:
    def of(dataset: str, test: str | None = None) -> tuple[str, str | None]:
        return splits(Recipe(dataset=dataset, test=test))

    assert of("digits") == ("digits?split=train", "digits?split=test")
    assert of("cifar10", "x.parquet") == ("cifar10?split=train", "x.parquet")
    assert of("tiny-imagenet?classes=10") == (
        "tiny-imagenet?split=train&classes=10",
        "tiny-imagenet?split=test&classes=10",
    )
    assert of("cifar10?split=test") == ("cifar10?split=test", None)
    assert of("folder") == ("folder", None)


def test_a_preset_is_the_papers_and_gives_way_to_what_is_said() -> None:
    def of(**given: object) -> tuple[object, object]:
        recipe = complete(Recipe(**{"setting": "a2o:0", "attack": "chessboard", "dataset": "gtsrb", **given}))
        return recipe.attack_options.get("amplitude"), recipe.count

    assert of() == (6, 0.05)
    assert of(count=7, attack_options={"amplitude": 9}) == (9, 7)
    assert of(dataset="cifar10") == (None, None)
    assert of(dataset="folder") == (None, None)
    assert of(dataset="folder", preset="cifar100") == (6, 10)
    assert of(setting="a2a") == (6, None)
    with pytest.raises(UsageError, match="preset 'mnist' is not one of cifar10"):
        of(preset="mnist")
    with pytest.raises(UsageError, match="needs --setting"):
        of(setting=None)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_name_attacks_and_options_that_exist(name: str) -> None:
    for attack, preset in PRESETS[name].items():
        assert build_attack(attack, preset.options).name == attack
        assert set(preset.count) <= set(ATTACKS[attack].settings)
        assert Setting.parse(f"a2o:{preset.target}").kind == "a2o"


def test_names_stay_inside_the_folder() -> None:
    for name in ("/etc/x", "../x", "a/../b", "a//b", "", ".hidden", "a/.b", "a\\b", "a\n"):
        with pytest.raises(ValueError, match="name"):
            Recipe(dataset="digits", name=name)
