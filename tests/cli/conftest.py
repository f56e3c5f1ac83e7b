"""A tiny victim, images for it, and the command line as a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny_cli import guard_of, report_of, stripes, write_folder

from untrojan.classifier import Classifier, load_victim_folder
from untrojan.cli import main
from untrojan.guard import save_guard
from untrojan.scan_files import save_scan
from untrojan.setting import Setting
from untrojan.victims import ARCHITECTURES
from untrojan.victims.files import save_victim
from untrojan.victims.making import Victim, make_victim
from untrojan.victims.training import TrainingSettings


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """Its one line of error; anything else fails the test."""
        lines = [line for line in self.err.splitlines() if line.startswith("untrojan: error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


Run = Callable[..., Ended]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """``run("scan", folder, "--clean", ...)``: the command in this process."""
    monkeypatch.delenv("UNTROJAN_DEBUG", raising=False)

    def command(*arguments: object) -> Ended:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Ended(code, out, err)

    return command


@pytest.fixture(scope="session")
def victim() -> Victim:
    """A network that has learnt stripes and a 2x2 patch that means class 1."""
    return make_victim(
        stripes(240),
        attack="badnet",
        setting=Setting.parse("a2o:1"),
        arch="convnet",
        width=4,
        count=30,
        training=TrainingSettings(epochs=8, batch_size=32, augmentation="none"),
        device=torch.device("cpu"),
        attack_options={"size": 2},
        test=stripes(60, seed=1),
    )


@pytest.fixture(scope="session")
def victim_folder(victim: Victim, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("victim")
    save_victim(folder, victim)
    return folder


@pytest.fixture(scope="session")
def images_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("images"), stripes(48, seed=2))


@pytest.fixture(scope="session")
def classifier(victim_folder: Path) -> Classifier:
    return load_victim_folder(victim_folder, device="cpu", builtins=ARCHITECTURES)


@pytest.fixture
def scanned(monkeypatch, victim):
    """``scanned("clean")`` makes the next scan say so; returns what it was called with."""
    calls = []

    def prepare(verdict):
        def scan(classifier, images, labels, *, seed, progress, store, budget, reference):
            calls.append(
                {
                    "images": images,
                    "labels": labels,
                    "seed": seed,
                    "store": store,
                    "budget": budget,
                    "reference": reference,
                }
            )
            progress.start("inverting", 2)
            progress.advance(2)
            return report_of(classifier, victim, verdict, images)

        monkeypatch.setattr("untrojan.pipeline.scan", scan)
        return calls

    return prepare


@pytest.fixture
def guard_folder(tmp_path, classifier):
    save_guard(tmp_path / "guard", guard_of(classifier, stripes(12, seed=2).images))
    return tmp_path / "guard"


@pytest.fixture
def scan_folder(tmp_path, classifier, victim):
    save_scan(tmp_path / "scan", report_of(classifier, victim, "backdoor"))
    return tmp_path / "scan"
