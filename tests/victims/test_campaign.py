from __future__ import annotations

import json
import os
import signal
from contextlib import closing
from pathlib import Path

import pytest
import torch

from untrojan.data import ImageSet
from untrojan.errors import UsageError
from untrojan.processes import Pool
from untrojan.victims import campaign
from untrojan.victims import recipe as recipes
from untrojan.victims.campaign import run
from untrojan.victims.checkpoint import STATE
from untrojan.victims.making import Victim
from untrojan.victims.plan import read_plan
from untrojan.victims.recipe import Recipe, make
from untrojan.victims.zoo import find_zoo, get, members, verify

CPU = torch.device("cpu")
PLAN = """
[defaults]
dataset = "digits"
limit = 60
arch = "convnet"
width = 2
epochs = 1
batch_size = 16

[[victim]]
name = "clean-s{seed}"
seeds = [0, 1]

[[victim]]
name = "patched/{attack}-s{seed}"
attack = "badnet"
setting = "a2a"
count = 3
half = true
"""


def stripes(count: int = 60) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 80, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    images[torch.arange(count), 0, 2 * labels + 1] = 250
    return ImageSet(images, labels, ("a", "b", "c"), "stripes")


@pytest.fixture(autouse=True)
def small_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    recipes._loaded.cache_clear()
    for place in ("untrojan.victims.recipe.load_data", "untrojan.victims.zoo.load_data"):
        monkeypatch.setattr(place, lambda spec, **how: stripes())


@pytest.fixture
def plan(tmp_path: Path) -> list[Recipe]:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return read_plan(path)


def test_a_plan_is_made_once_and_only_what_changed_again(plan: list[Recipe], tmp_path: Path) -> None:
    out = tmp_path / "zoo"
    assert [(o.name, o.status) for o in run(plan, out, jobs=1, device=CPU)] == [
        ("clean-s0", "made"),
        ("clean-s1", "made"),
        ("patched/badnet-s0", "made"),
    ]
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.*") if p.is_file()) == [
        "clean-s0/victim.json",
        "clean-s0/victim.safetensors",
        "clean-s1/victim.json",
        "clean-s1/victim.safetensors",
        "patched/badnet-s0/trigger.safetensors",
        "patched/badnet-s0/victim.json",
        "patched/badnet-s0/victim.safetensors",
    ]
    assert {o.status for o in run(plan, out, jobs=1, device=CPU)} == {"there"}
    (out / "clean-s0/victim.safetensors").unlink()
    changed = [plan[0], plan[1].model_copy(update={"lr": 0.002}), plan[2]]
    assert [o.status for o in run(changed, out, jobs=1, device=CPU)] == ["there", "made", "made"]


def test_what_is_left_of_another_training_is_begun_anew(plan: list[Recipe], tmp_path: Path) -> None:
    state = tmp_path / plan[0].name / STATE
    state.parent.mkdir(parents=True)
    torch.save({"key": "of another plan", "history": [], "state": {}}, state)
    (made,) = run(plan[:1], tmp_path, jobs=1, device=CPU)
    assert (made.status, state.exists()) == ("made", False)


def test_one_failure_does_not_stop_the_others(plan: list[Recipe], tmp_path: Path) -> None:
    wrong = [plan[0].model_copy(update={"arch": "none", "name": "wrong"}), plan[1]]
    outcomes = list(run(wrong, tmp_path / "zoo", jobs=1, device=CPU))
    assert [(o.name, o.status) for o in outcomes] == [("wrong", "failed"), ("clean-s1", "made")]
    assert "architecture 'none'" in outcomes[0].reason


def test_whatever_fails_does_not_stop_the_others(
    plan: list[Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = {"left": 1}
    save = campaign.save_victim

    def failing(folder: Path, victim: Victim) -> None:
        if first.pop("left", None):
            raise ValueError("nobody thought of this")
        save(folder, victim)

    monkeypatch.setattr(campaign, "save_victim", failing)
    outcomes = list(run(plan[:2], tmp_path / "zoo", jobs=1, device=CPU))
    assert [o.status for o in outcomes] == ["failed", "made"]
    assert outcomes[0].reason == "nobody thought of this"


def test_half_precision_is_measured_as_it_is_stored(plan: list[Recipe], tmp_path: Path) -> None:
    list(run(plan[2:], tmp_path, jobs=1, device=CPU))
    card = json.loads((tmp_path / "patched/badnet-s0/victim.json").read_text())
    assert card["precision"] == "float16"
    check = verify(members(tmp_path)[0], device=CPU)
    assert check.now == check.card == {name: card[name]["value"] for name in ("acc", "asr", "asr_floor")}
    assert check.agrees


def test_a_member_without_weights_is_made_again(plan: list[Recipe], tmp_path: Path) -> None:
    list(run(plan, tmp_path / "zoo", jobs=1, device=CPU))
    for path in (tmp_path / "zoo").rglob("*.safetensors"):
        path.unlink()
    chosen = members(tmp_path / "zoo", "patched/*")
    assert [m.name for m in chosen] == ["patched/badnet-s0"]
    assert not chosen[0].whole
    assert verify(chosen[0], device=CPU).agrees
    (folder,) = get(chosen, tmp_path / "taken", device=CPU)
    assert sorted(p.name for p in folder.iterdir()) == ["trigger.safetensors", "victim.json", "victim.safetensors"]
    other = json.loads((chosen[0].folder / "victim.json").read_text())
    other["acc"]["value"] = 0.01 if other["acc"]["value"] > 0.5 else 0.99
    (chosen[0].folder / "victim.json").write_text(json.dumps(other))
    assert not verify(members(tmp_path / "zoo", "patched/*")[0], device=CPU).agrees


def test_where_the_zoo_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zoo").mkdir()
    assert find_zoo(tmp_path / "zoo") == tmp_path / "zoo"
    monkeypatch.setenv("UNTROJAN_ZOO", str(tmp_path / "zoo"))
    assert find_zoo() == tmp_path / "zoo"
    monkeypatch.setenv("UNTROJAN_ZOO", str(tmp_path / "gone"))
    with pytest.raises(UsageError, match=r"no zoo in .*gone"):
        find_zoo()
    with pytest.raises(UsageError, match=r"no victim in .* matches 'x'"):
        members(tmp_path / "zoo", "x")


def test_the_card_holds_the_recipe_that_makes_it_again(plan: list[Recipe]) -> None:
    victim = make(plan[2], device=CPU)
    again = make(Recipe.model_validate(victim.card["recipe"]), device=CPU)
    assert again.classifier().sha256() == victim.classifier().sha256()


def killed(_task: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def killed_the_first_time(task: Path) -> str:
    if not task.exists():
        task.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def test_what_dies_with_its_process_is_tried_once_more_and_then_told(tmp_path: Path) -> None:
    with closing(Pool(killed_the_first_time, jobs=2, threads=1)) as pool:
        ended = list(pool.each([tmp_path / "a", tmp_path / "b"]))
    assert sorted(one.task.name for one in ended) == ["a", "b"]
    assert [(one.result, one.died) for one in ended] == [("done", None)] * 2
    with closing(Pool(killed, jobs=1, threads=1)) as deadly:
        assert [one.died for one in deadly.each([1])] == ["its worker died (SIGKILL, as when memory runs out)"]


def test_taking_a_victim_leaves_nothing_of_an_earlier_one(plan: list[Recipe], tmp_path: Path) -> None:
    list(run(plan, tmp_path / "zoo", jobs=1, device=CPU))
    (clean,) = members(tmp_path / "zoo", "clean-s0")
    old = tmp_path / "taken" / "clean-s0"
    old.mkdir(parents=True)
    for name in ("trigger.safetensors", "victim.json", "notes.txt"):
        (old / name).write_text("earlier")
    get([clean], tmp_path / "taken", device=CPU)
    assert sorted(p.name for p in old.iterdir()) == ["notes.txt", "victim.json", "victim.safetensors"]
    assert (old / "victim.json").read_bytes() == (clean.folder / "victim.json").read_bytes()
    (same,) = get([clean], tmp_path / "zoo", device=CPU)  # into the zoo itself
    assert (same / "victim.safetensors").is_file()
