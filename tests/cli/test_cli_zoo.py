"""``poison --plan`` and ``zoo``, as a user calls them."""

from __future__ import annotations

import json

import pytest
from tiny_cli import stripes, write_folder

PLAN = """
[defaults]
dataset = "{data}"
test = "{data}"
arch = "convnet"
width = 2
epochs = 1
batch_size = 16

[[victim]]
name = "clean-s{{seed}}"
seeds = {{ calibration = [0], reporting = [1] }}

[[victim]]
name = "patched-s{{seed}}"
attack = "badnet"
setting = "a2a"
count = "20%"
attack_options = {{ size = 2 }}
seeds = {{ calibration = [0] }}
"""


@pytest.fixture
def plan(tmp_path):
    data = write_folder(tmp_path / "train", stripes(60))
    path = tmp_path / "plan.toml"
    path.write_text(PLAN.format(data=data))
    return path


def test_a_plan_is_made_listed_verified_and_taken(run, plan, tmp_path):
    zoo = tmp_path / "zoo"
    made = run("poison", "--plan", plan, "--out", zoo)
    assert (made.code, made.out) == (0, f"3 of 3 victims in {zoo}, 0 failed\n")
    assert "victims (0/3)" in made.err
    assert "patched-s0: attack badnet, setting a2a, 12 images added; accuracy" in made.err
    again = run("poison", "--plan", plan, "--out", zoo, "--only", "clean-*", "--format", "json", "-q")
    assert [row["status"] for row in json.loads(again.out)["victims"]] == ["there", "there"]

    listed = run("zoo", "list", "--zoo", zoo)
    assert (listed.code, listed.err) == (0, "")
    assert [line.split()[0] for line in listed.out.splitlines()[1:]] == ["clean-s0", "clean-s1", "patched-s0"]
    rows = json.loads(run("zoo", "list", "patched*", "--zoo", zoo, "--format", "json").out)["victims"]
    assert [(row["name"], row["part"], row["weights"]) for row in rows] == [("patched-s0", "calibration", True)]

    checked = run("zoo", "verify", "--zoo", zoo, "-q")
    assert (checked.code, checked.out) == (0, "3 of 3 victims are within 1 point of their card\n")
    taken = run("zoo", "get", "patched*", "--zoo", zoo, "--out", tmp_path / "mine", "-q")
    assert (taken.code, taken.out) == (0, f"{tmp_path}/mine/patched-s0\n")
    assert (tmp_path / "mine/patched-s0/victim.json").exists()


def test_a_seed_beside_a_plan_is_said_to_be_of_no_use(run, plan, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = run("poison", "--plan", "plan.toml", "--out", "x", "--only", "nothing", "--seed", "5")
    assert "--seed is not used" in ended.err
    assert "no victim of plan.toml matches" in ended.err


def test_a_card_that_says_too_much_is_found_out(run, plan, tmp_path):
    zoo = tmp_path / "zoo"
    assert run("poison", "--plan", plan, "--out", zoo, "--only", "clean-s0", "-q").code == 0
    path = zoo / "clean-s0/victim.json"
    card = json.loads(path.read_text())
    card["acc"]["value"] = 1 - card["acc"]["value"] / 2 + 0.02
    path.write_text(json.dumps(card))
    ended = run("zoo", "verify", "--zoo", zoo, "-q")
    assert ended.code == 2
    assert ended.out.startswith("clean-s0: the card says {'acc': ")
    path.write_text("{")
    ended = run("zoo", "list", "--zoo", zoo)
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "not JSON" in ended.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["poison", "--plan", "none.toml", "--out", "x"], 2, "none.toml: cannot be read"),
        (["poison", "--plan", "plan.toml", "--out", "x", "--only", "nothing"], 4, "no victim of plan.toml matches"),
        (["poison", "--plan", "plan.toml", "--out", "x", "--epochs", "3"], 4, "--epochs would be ignored"),
        (["poison", "--out", "x"], 4, "--dataset, or a file of many victims with --plan"),
        (["poison", "--dataset", "digits", "--out", "x", "--jobs", "2"], 4, "--jobs and --only go with --plan"),
        (["poison", "--dataset", "digits", "--out", "x", "--setting", "a2a", "--count", "0"], 4, "--count: expected"),
        (["poison", "--dataset", "digits", "--out", "x", "--setting", "a2a", "--preset", "mnist"], 4, "preset 'mnist'"),
        (["poison", "--dataset", "digits", "--out", "x", "--attack", "none", "--preset", "mnist"], 4, "preset 'mnist'"),
        (
            ["poison", "--dataset", "digits", "--data-dir", "nowhere", "--out", "x"],
            4,
            "--data-dir nowhere: not a folder",
        ),
        (["zoo", "list", "--zoo", "nowhere"], 4, "no zoo in nowhere"),
        (["zoo"], 4, "Missing command"),
        (["zoo", "feed"], 4, "feed"),
    ],
)
def test_what_is_wrong_is_one_line(run, plan, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    ended = run(*arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (code, "", 1)
    assert message in ended.err
    assert not (tmp_path / "x").exists()
