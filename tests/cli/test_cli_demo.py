"""The demo's story, files and exit code; what scan and repair find is not its business, so they are made up here."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from tiny_cli import guard_of, report_of

from untrojan import demo
from untrojan.errors import MissingExtraError
from untrojan.guard import load_guard
from untrojan.scan_files import load_scan

EVERYTHING = [
    "clean/scan/scan.json",
    "clean/scan/triggers.safetensors",
    "clean/victim.json",
    "clean/victim.safetensors",
    "demo.json",
    "examples/plain.png",
    "examples/triggered.png",
    "poisoned/evaluation.json",
    "poisoned/guard/guard.json",
    "poisoned/guard/guard.safetensors",
    "poisoned/scan/scan.json",
    "poisoned/scan/triggers.safetensors",
    "poisoned/trigger.safetensors",
    "poisoned/victim.json",
    "poisoned/victim.safetensors",
    "report.html",
]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def shortened(monkeypatch):
    """Trains for a moment only; ``shortened(clean=..., poisoned=...)`` sets the verdicts of the two scans."""
    made = []
    real = demo.make_victim

    def make(train, *, training, test, **options):
        few = train.select(slice(None, None, 8))
        victim = real(few, training=dataclasses.replace(training, epochs=1), test=test, **options)
        made.append(victim)
        return victim

    def prepare(clean="clean", poisoned="backdoor"):
        verdicts = [clean, poisoned]

        def scan(classifier, images, labels, *, seed, progress):
            return report_of(classifier, made[1], verdicts.pop(0), images, target=9)

        monkeypatch.setattr(demo, "make_victim", make)
        monkeypatch.setattr(demo, "scan", scan)
        monkeypatch.setattr(
            demo, "repair", lambda classifier, images, labels, report, **_: guard_of(classifier, images, target=9)
        )

    return prepare


def test_demo_tells_its_story_and_writes_everything(run, shortened, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shortened()
    ended = run("demo", "-q")
    assert (ended.code, ended.err) == (0, "")
    assert files(tmp_path / "untrojan-demo") == EVERYTHING
    assert "a backdoor to class 9" in ended.out
    assert "untrojan-demo/report.html" in ended.out
    page = (tmp_path / "untrojan-demo/report.html").read_text()
    assert "Backdoor found" in page
    assert "untrojan demo" in page
    assert load_scan(tmp_path / "untrojan-demo/poisoned/scan").targets == (9,)
    command = ended.out.splitlines()[-1].partition("untrojan ")[2].split()
    tried = run(*command, "-q")
    assert tried.code == 0
    assert tried.out.startswith("untrojan-demo/examples/plain.png: ")


def test_demo_can_be_repeated_and_printed_as_json(run, shortened, tmp_path):
    shortened()
    assert run("demo", "-q", "--out", tmp_path / "d").code == 0
    (tmp_path / "d/poisoned/guard/guard.json").write_text("of the first run")
    shortened()
    ended = run("demo", "-q", "--out", tmp_path / "d", "--format", "json")
    assert ended.code == 0
    found = json.loads(ended.out)
    assert found["right"] is True
    assert found["clean"]["verdict"] == "clean"
    assert found["evaluation"]["schema"] == "untrojan-evaluation-1"
    assert [example["name"] for example in found["examples"]] == ["plain.png", "triggered.png"]
    assert files(tmp_path / "d") == EVERYTHING


@pytest.mark.parametrize("name", ["examples/mine.png", "clean/notes.txt"])
def test_demo_leaves_what_was_put_among_its_files(run, shortened, tmp_path, name):
    shortened()
    assert run("demo", "-q", "--out", tmp_path / "d").code == 0
    (tmp_path / "d" / name).write_text("mine")
    before = {path: path.read_bytes() for path in (tmp_path / "d").rglob("*") if path.is_file()}
    ended = run("demo", "-q", "--out", tmp_path / "d")
    assert ended.code == 2
    assert name in ended.error
    assert {path: path.read_bytes() for path in (tmp_path / "d").rglob("*") if path.is_file()} == before


def test_what_lies_beside_a_demo_stays(run, shortened, tmp_path):
    for _ in range(2):
        shortened()
        assert run("demo", "-q", "--out", tmp_path / "d").code == 0
        (tmp_path / "d/mine").write_text("mine")
    assert (tmp_path / "d/mine").read_text() == "mine"


def test_victims_with_a_demo_s_names_are_no_demo(run, shortened, tmp_path, victim_folder):
    shutil.copytree(victim_folder, tmp_path / "work/poisoned")
    assert "something else than a demo" in run("demo", "-q", "--out", tmp_path / "work").error
    (tmp_path / "work/demo.json").write_text('{"schema": "untrojan-demo-files-1"}')
    assert "something else than a demo" in run("demo", "-q", "--out", tmp_path / "work").error


@pytest.mark.parametrize(
    ("clean", "poisoned"), [("backdoor", "backdoor"), ("clean", "clean"), ("clean", "inconclusive")]
)
def test_wrong_verdicts_end_in_2_and_are_admitted(run, shortened, tmp_path, clean, poisoned):
    shortened(clean, poisoned)
    ended = run("demo", "-q", "--out", tmp_path / "d")
    assert ended.code == 2
    assert "a verdict is wrong" in ended.out
    assert (tmp_path / "d/report.html").is_file()
    assert (tmp_path / "d/poisoned/guard").exists() == (poisoned == "backdoor")


def test_demo_prints_its_page(run, shortened, tmp_path):
    shortened()
    ended = run("demo", "-q", "--out", tmp_path / "d", "--format", "html")
    assert ended.out == (tmp_path / "d/report.html").read_text()


def test_demo_without_digits_says_what_to_install(run, tmp_path, monkeypatch):
    def missing(*_arguments, **_options):
        raise MissingExtraError('the digits are missing; pip install "untrojan[demo]"')

    monkeypatch.setattr(demo, "load_data", missing)
    ended = run("demo", "--out", tmp_path / "d")
    assert ended.code == 2
    assert 'pip install "untrojan[demo]"' in ended.error
    assert list(tmp_path.iterdir()) == []


def test_demo_guard_belongs_to_its_victim(run, shortened, tmp_path):
    shortened()
    run("demo", "-q", "--out", tmp_path / "d")
    from untrojan.classifier import load_victim_folder
    from untrojan.victims import ARCHITECTURES

    victim = load_victim_folder(tmp_path / "d/poisoned", device="cpu", builtins=ARCHITECTURES)
    assert load_guard(tmp_path / "d/poisoned/guard", victim).targets.tolist() == [9]
