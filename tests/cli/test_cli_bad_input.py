"""Whatever is wrong with a file: one line, the right exit code, no traceback, nothing written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image
from tiny_cli import guard_of, stripes, write_folder

from untrojan.data import ImageSet
from untrojan.guard import save_guard
from untrojan.setting import Setting
from untrojan.storage import read_safetensors
from untrojan.triggers import PatchTrigger, save_trigger

MODEL = ["--model", "convnet?width=4&classes=3"]


@pytest.fixture
def weights(victim_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(victim_folder / "victim.safetensors", tmp_path / "w.safetensors"))


@pytest.fixture
def refuse(run, tmp_path):
    """Run a command that must fail without leaving anything under tmp_path; returns its line of error."""

    def command(code, *arguments):
        before = sorted(tmp_path.rglob("*"))
        ended = run(*arguments)
        assert ended.code == code, ended.err
        assert ended.out == ""
        assert sorted(tmp_path.rglob("*")) == before
        return ended.error

    return command


def test_missing_files(refuse, victim_folder, images_folder, tmp_path):
    out = ["--out", tmp_path / "out"]
    assert "no such file" in refuse(2, "scan", tmp_path / "nothing", "--clean", images_folder, *out).lower()
    assert "no such file" in refuse(2, "scan", victim_folder, "--clean", tmp_path / "nothing", *out).lower()
    assert (
        "no such file"
        in refuse(2, "scan", *MODEL, "--weights", tmp_path / "no.pt", "--clean", images_folder, *out).lower()
    )
    assert (
        "no such file"
        in refuse(2, "evaluate", victim_folder, "--test", images_folder, "--guard", tmp_path / "no").lower()
    )
    assert (
        "no such file"
        in refuse(2, "evaluate", victim_folder, "--test", images_folder, "--scan", tmp_path / "no").lower()
    )
    assert (
        "no such file"
        in refuse(2, "evaluate", victim_folder, "--test", images_folder, "--trigger", tmp_path / "no").lower()
    )
    assert (
        "no such file" in refuse(2, "predict", victim_folder, tmp_path / "no.png", "--guard", tmp_path / "no").lower()
    )


def test_text_in_place_of_weights(refuse, images_folder, tmp_path):
    (tmp_path / "w.safetensors").write_text("<html>sign in</html>")
    line = refuse(2, "scan", *MODEL, "--weights", tmp_path / "w.safetensors", "--clean", images_folder)
    assert "expected safetensors" in line


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_weights(refuse, weights, images_folder, share):
    content = weights.read_bytes()
    weights.write_bytes(content[: int(len(content) * share)])
    assert str(weights) in refuse(2, "scan", *MODEL, "--weights", weights, "--clean", images_folder)


def test_truncated_checkpoint_of_torch(refuse, victim, images_folder, tmp_path):
    torch.save(victim.module.state_dict(), tmp_path / "w.pt")
    content = (tmp_path / "w.pt").read_bytes()
    (tmp_path / "w.pt").write_bytes(content[:-200])
    assert "damaged or truncated" in refuse(2, "scan", *MODEL, "--weights", tmp_path / "w.pt", "--clean", images_folder)


def test_keys_that_do_not_fit(refuse, weights, images_folder):
    line = refuse(2, "scan", "--model", "resnet18?width=4", "--weights", weights, "--clean", images_folder)
    assert "do not fit the model" in line


def test_a_card_that_is_none(refuse, victim_folder, images_folder, tmp_path):
    shutil.copytree(victim_folder, tmp_path / "v")
    card = json.loads((tmp_path / "v/victim.json").read_text())
    (tmp_path / "v/victim.json").write_text("{")
    assert "not a victim's card" in refuse(2, "scan", tmp_path / "v", "--clean", images_folder)
    (tmp_path / "v/victim.json").write_text(json.dumps(card | {"class_names": ["a", "b"]}))
    assert "3 logits" in refuse(2, "scan", tmp_path / "v", "--clean", write_folder(tmp_path / "two", two_classes()))


def two_classes() -> ImageSet:
    images = stripes()
    return images.select(images.labels < 2)


def test_nan_weights_are_inconclusive(run, weights, victim_folder, images_folder, guard_nan, tmp_path):
    command = ["scan", *MODEL, "--weights", guard_nan, "--clean", images_folder]
    ended = run(*command, "--format", "json", "--out", tmp_path / "out")
    assert ended.code == 2
    assert json.loads(ended.out)["verdict"] == "inconclusive"
    assert json.loads((tmp_path / "out/scan.json").read_text())["verdict"] == "inconclusive"
    assert "Inconclusive" in run(*command).out
    ended = run("evaluate", *MODEL, "--weights", guard_nan, "--test", images_folder)
    assert ended.code == 2
    assert "not finite" in ended.error


@pytest.fixture
def guard_nan(weights: Path) -> Path:
    tensors = read_safetensors(weights)[0]
    tensors["conv1.weight"][0] = float("nan")
    safetensors.torch.save_file(tensors, weights)
    return weights


def test_folder_without_images(refuse, victim_folder, tmp_path):
    (tmp_path / "empty" / "a").mkdir(parents=True)
    assert "no images" in refuse(2, "scan", victim_folder, "--clean", tmp_path / "empty", "--out", tmp_path / "out")
    assert "no images" in refuse(2, "evaluate", victim_folder, "--test", tmp_path / "empty")


def test_one_class_only(refuse, victim_folder, images_folder, tmp_path):
    shutil.copytree(images_folder / "a", tmp_path / "one" / "a")
    for command, option in (("scan", "--clean"), ("evaluate", "--test")):
        assert "at least two classes" in refuse(2, command, victim_folder, option, tmp_path / "one")


def test_labels_outside_the_range(refuse, weights, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    for label in ("0", "7"):
        (tmp_path / "labelled" / label).mkdir(parents=True)
        shutil.copy(tmp_path / "x.png", tmp_path / "labelled" / label)
    line = refuse(2, "scan", *MODEL, "--weights", weights, "--clean", tmp_path / "labelled")
    assert "label 7" in line
    assert "3 classes" in line


def test_not_an_image(refuse, victim_folder, tmp_path):
    write_folder(tmp_path / "images", stripes(6))
    (tmp_path / "images" / "a" / "0.png").write_text("no picture")
    assert "0.png" in refuse(2, "scan", victim_folder, "--clean", tmp_path / "images")


STIFF = """
import torch
from torch import nn

class Stiff(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 16 * 16, 3)

    def forward(self, x):
        return self.linear(x.flatten(1))

def build():
    return Stiff()
"""


def test_wrong_image_size_and_channels_are_unsupported(refuse, run, images_folder, tmp_path, monkeypatch):
    (tmp_path / "stiff.py").write_text(STIFF)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    safetensors.torch.save_file({"linear.weight": torch.zeros(3, 768), "linear.bias": torch.zeros(3)}, tmp_path / "w")
    model = ["--model", f"{tmp_path}/stiff.py:build", "--weights", tmp_path / "w"]
    line = refuse(3, "scan", *model, "--clean", images_folder)
    assert "1x8x8" in line
    assert "--input" in line
    ended = run("evaluate", *model, "--test", images_folder, "--input", "3x16x16", "-q")
    assert (ended.code, ended.err) == (0, "")


def test_a_network_of_one_logit_is_unsupported(refuse, images_folder, tmp_path):
    (tmp_path / "one.py").write_text(STIFF.replace(", 3)", ", 1)"))
    safetensors.torch.save_file({"linear.weight": torch.zeros(1, 768), "linear.bias": torch.zeros(1)}, tmp_path / "w")
    model = ["--model", f"{tmp_path}/one.py:build", "--weights", tmp_path / "w", "--input", "3x16x16"]
    assert "1 logit" in refuse(3, "scan", *model, "--clean", images_folder)


@pytest.fixture(autouse=True)
def no_bytecode(monkeypatch):
    monkeypatch.setattr("sys.dont_write_bytecode", True)


def test_unwritable_out_is_told_before_anything_is_read(refuse, tmp_path):
    (tmp_path / "file").write_text("mine")
    out = ["--out", tmp_path / "file" / "below"]
    for command in (
        ["scan", "nowhere", "--clean", "nowhere"],
        ["repair", "nowhere", "--clean", "nowhere", "--scan", "nowhere"],
        ["evaluate", "nowhere", "--test", "nowhere"],
        ["predict", "nowhere", "nowhere", "--guard", "nowhere"],
        ["poison", "--dataset", "nowhere", "--setting", "a2a"],
        ["demo"],
    ):
        assert "is not a folder" in refuse(2, *command, *out)


def test_guard_of_another_victim(refuse, victim_folder, classifier, images_folder, tmp_path):
    save_guard(tmp_path / "g", guard_of(classifier, stripes(6).images))
    model = [*MODEL, "--weights", victim_folder / "victim.safetensors", "--mean", "0.1"]
    assert "guard was made for" in refuse(2, "evaluate", *model, "--test", images_folder, "--guard", tmp_path / "g")
    image = images_folder / "a" / "0.png"
    assert "guard was made for" in refuse(2, "predict", *model, image, "--guard", tmp_path / "g")


def test_damaged_guard(refuse, victim_folder, classifier, images_folder, tmp_path):
    save_guard(tmp_path / "g", guard_of(classifier, stripes(6).images))
    content = (tmp_path / "g/guard.safetensors").read_bytes()
    (tmp_path / "g/guard.safetensors").write_bytes(content[:100])
    command = ["evaluate", victim_folder, "--test", images_folder, "--guard", tmp_path / "g"]
    assert "guard.safetensors" in refuse(2, *command)
    (tmp_path / "g/guard.json").write_text("[]")
    assert "guard.json" in refuse(2, *command)


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ({}, 2),
        ({"format": "untrojan-trigger-1"}, 2),
        ({"format": "untrojan-trigger-1", "kind": "patch", "setting": "whatever"}, 2),
        ({"format": "untrojan-trigger-1", "kind": "spell", "setting": "a2o:1"}, 2),
        ({"format": "untrojan-trigger-1", "kind": "additive", "setting": "a2o:1"}, 2),
        ({"format": "untrojan-trigger-1", "kind": "patch", "setting": "a2o:9"}, 2),
    ],
)
def test_trigger_files_that_are_none(refuse, victim_folder, images_folder, tmp_path, metadata, code):
    tensors = {"mask": torch.ones(1, 8, 8), "pattern": torch.ones(1, 8, 8)}
    safetensors.torch.save_file(tensors, tmp_path / "t", metadata=metadata)
    assert str(tmp_path / "t") in refuse(
        code, "evaluate", victim_folder, "--test", images_folder, "--trigger", tmp_path / "t"
    )


def test_trigger_of_another_size(refuse, victim_folder, images_folder, tmp_path):
    save_trigger(tmp_path / "t", PatchTrigger(torch.ones(1, 9, 9), torch.ones(1, 9, 9)), Setting.parse("a2o:1"))
    line = refuse(3, "evaluate", victim_folder, "--test", images_folder, "--trigger", tmp_path / "t")
    assert "1x9x9" in line


def test_scan_that_is_none(refuse, victim_folder, images_folder, tmp_path):
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "scan.json").write_text('{"schema": "untrojan-scan-1"}')
    line = refuse(
        2, "repair", victim_folder, "--clean", images_folder, "--scan", tmp_path / "scan", "--out", tmp_path / "g"
    )
    assert "scan.json" in line


def test_demo_does_not_replace_what_it_did_not_make(refuse, tmp_path):
    (tmp_path / "mine" / "clean").mkdir(parents=True)
    assert "something else than a demo" in refuse(2, "demo", "--out", tmp_path / "mine")


def test_images_of_another_shape_than_the_guards_are_refused(
    refuse, victim_folder, images_folder, classifier, tmp_path
):
    """In another size its own images would not be recognised, and count as unseen."""
    save_guard(tmp_path / "guard", guard_of(classifier, stripes(12, seed=2).images))
    other = [
        "--model",
        "convnet?width=4&classes=3",
        "--weights",
        victim_folder / "victim.safetensors",
        "--input",
        "1x16x16",
    ]
    guard = ["--guard", tmp_path / "guard"]
    image = tmp_path / "image.png"
    Image.new("L", (8, 8)).save(image)
    assert "1x8x8" in refuse(2, "evaluate", *other, "--test", images_folder, *guard)
    assert "1x8x8" in refuse(2, "predict", *other, *guard, image)


def test_poison_touches_none_of_the_users_files(run, tmp_path):
    (tmp_path / "training.log").write_text("mine")
    (tmp_path / "training.ipynb").write_text("mine")
    (tmp_path / "training.d").mkdir()
    (tmp_path / "training.pt").write_text("mine")
    (tmp_path / "untrojan-training.pt").write_text("of an earlier training")
    command = ["poison", "--dataset", tmp_path / "nowhere", "--attack", "none", "--out", tmp_path]
    assert "no such file" in run(*command).error.lower()
    assert (tmp_path / "untrojan-training.pt").is_file()  # before the data are read nothing goes
    data = write_folder(tmp_path / "data", stripes(30))
    command = ["poison", "--dataset", data, "--attack", "none", "--arch", "convnet", "--width", "2", "--epochs", "1"]
    assert run(*command, "--out", tmp_path, "-q").code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("data", "training.d", "training.ipynb", "training.log", "training.pt", "victim.json", "victim.safetensors"),
    ]


SOURCE = """
import torch
from untrojan.victims import ARCHITECTURES

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = ARCHITECTURES["convnet"](classes=3, width=4)
    def forward(self, x):
        {line}
        return self.net(x){end}

def build():
    net = Net()
    net.load_state_dict = lambda state, **how: net.net.load_state_dict(state, **how)
    net.state_dict = lambda *a, **k: net.net.state_dict(*a, **k)
    return net
"""


@pytest.fixture
def wrapped(tmp_path, weights):
    """The victim behind a line of a user's own code."""

    def options(line="pass", end=""):
        (tmp_path / "net.py").write_text(SOURCE.format(line=line, end=end))
        return ["--model", f"{tmp_path / 'net.py'}:build", "--weights", weights]

    return options


@pytest.mark.parametrize(
    ("end", "said"), [(".detach()", "no gradient"), (".softmax(1)", "probabilities"), (".sigmoid()", "probabilities")]
)
def test_a_network_that_cannot_be_scanned_is_unsupported(run, wrapped, images_folder, end, said):
    ended = run("scan", *wrapped(end=end), "--clean", images_folder, "--format", "json")
    assert (ended.code, ended.out) == (3, "")
    assert said in ended.error


def test_what_a_network_prints_is_no_data(run, wrapped, images_folder):
    ended = run("evaluate", *wrapped(line="print('shape', x.shape)"), "--test", images_folder, "--format", "json")
    assert json.loads(ended.out)["schema"] == "untrojan-evaluation-1"
    assert "shape torch.Size" in ended.err
