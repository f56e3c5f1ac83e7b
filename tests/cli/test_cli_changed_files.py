"""Files that were changed by hand, or moved between networks; labels in another order; what is not this program's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_cli import guard_of, stripes, write_folder

from untrojan.data import ImageSet
from untrojan.errors import CheckpointError
from untrojan.guard import save_guard

FACTORIES = """
import sys, threading, torch

def network():
    from untrojan.victims import ARCHITECTURES
    return ARCHITECTURES["convnet"](width=4, classes=3, channels=1)

def with_a_lock():
    made = network()
    made.lock = threading.Lock()
    return made

class Talkative(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = network()
    def forward(self, images):
        return self.inner(images)
    def get_extra_state(self):
        return {"said": "something that is no tensor"}
    def set_extra_state(self, state):
        pass

class Quitting(torch.nn.Module):
    def forward(self, images):
        sys.exit("no licence")
"""


@pytest.fixture
def nameless(victim_folder: Path, tmp_path: Path) -> list[Any]:
    """The victim as one that says no class names."""
    weights = shutil.copy(victim_folder / "victim.safetensors", tmp_path / "w.safetensors")
    return ["--model", "convnet?width=4&classes=3&channels=1", "--weights", weights]


@pytest.fixture
def factories(tmp_path: Path) -> Path:
    path = tmp_path / "factories.py"
    path.write_text(FACTORIES)
    return path


def changed(folder: Path, to: Path, name: str, **values: Any) -> Path:
    """A copy of a folder whose JSON file says something else."""
    shutil.copytree(folder, to)
    content = json.loads((to / name).read_text())
    for key, value in values.items():
        outer, _, inner = key.partition("__")
        if inner:
            content[outer][inner] = value
        else:
            content[outer] = value
    (to / name).write_text(json.dumps(content))
    return to


def without_the_first_class(root: Path) -> Path:
    images = stripes(90, seed=5)
    return write_folder(root, images.select(images.labels > 0))


@pytest.mark.parametrize("command", ["scan", "evaluate"])
def test_fewer_folders_than_classes_are_not_numbered_by_their_order(run, nameless, images_folder, tmp_path, command):
    """One is missing, and those after it would be taken for the class before."""
    some = shutil.copytree(images_folder, tmp_path / "some")
    shutil.rmtree(sorted(path for path in some.iterdir() if path.is_dir())[1])
    data = ["--clean", some, "--out", tmp_path / "s"] if command == "scan" else ["--test", some]
    ended = run(command, *nameless, *data)
    assert ended.code == 2
    assert "2 sub-folders for a network of 3 classes" in ended.error
    assert "name them by the classes' numbers" in ended.error


def test_labels_go_by_the_class_names_of_the_guard(run, nameless, guard_folder, tmp_path):
    data = without_the_first_class(tmp_path / "two")
    ended = run("evaluate", *nameless, "--test", data, "--guard", guard_folder, "--format", "json", "-q")
    assert ended.code == 0
    assert json.loads(ended.out)["before"]["acc"]["value"] > 0.9


def test_labels_go_by_the_class_names_of_the_scan(run, nameless, scan_folder, tmp_path):
    data = without_the_first_class(tmp_path / "two")
    ended = run("evaluate", *nameless, "--test", data, "--scan", scan_folder, "--format", "json", "-q")
    assert ended.code == 0
    assert json.loads(ended.out)["before"]["acc"]["value"] > 0.9


def test_a_repair_after_labels_in_another_order_is_refused(run, nameless, scan_folder, tmp_path):
    images = stripes(90, seed=5)
    rolled = ImageSet(images.images, (images.labels + 1) % 3, images.class_names, "rolled")
    data = write_folder(tmp_path / "rolled", rolled)
    for name, other in zip("abc", "xyz", strict=True):
        (data / name).rename(data / other)
    ended = run("repair", *nameless, "--clean", data, "--scan", scan_folder, "--out", tmp_path / "g", "-q")
    assert ended.code == 2
    assert "order of the classes" in ended.error
    assert not (tmp_path / "g").exists()


def test_a_limit_counts_images_that_the_guard_has_not_seen(run, victim_folder, classifier, images_folder, tmp_path):
    save_guard(tmp_path / "guard", guard_of(classifier, stripes(48, seed=2).images[:36]))
    command = ["evaluate", victim_folder, "--test", images_folder, "--guard", tmp_path / "guard", "--limit", "12"]
    ended = run(*command, "--format", "json", "-q")
    assert ended.code == 0
    assert json.loads(ended.out)["counts"]["clean"] == 12


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"victim__class_names": ["a"]}, "names 1 of 3 classes"),
        ({"victim__classes": 4, "victim__class_names": None}, "4 classes, and the network returns 3"),
    ],
)
def test_a_guards_card_must_suit_the_network(run, victim_folder, guard_folder, tmp_path, values, said):
    guard = changed(guard_folder, tmp_path / "own", "guard.json", **values)
    image = tmp_path / "image.png"
    Image.fromarray(stripes(1).images[0, 0].numpy()).save(image)
    ended = run("predict", victim_folder, image, "--guard", guard)
    assert ended.code == 2
    assert said in ended.error


@pytest.mark.parametrize(
    "values", [{"targets": []}, {"targets": [1, 1]}, {"targets": [7]}, {"verdict": "clean"}], ids=str
)
def test_a_scan_that_no_scan_writes_is_malformed(run, victim_folder, images_folder, scan_folder, tmp_path, values):
    scan = changed(scan_folder, tmp_path / "own", "scan.json", **values)
    ended = run("repair", victim_folder, "--clean", images_folder, "--scan", scan, "--out", tmp_path / "g", "-q")
    assert ended.code == 2
    assert "not a scan report" in ended.error


def test_an_unknown_kind_of_trigger_in_a_scan_is_told(run, victim_folder, images_folder, scan_folder, tmp_path):
    pairs = json.loads((scan_folder / "scan.json").read_text())["pairs"]
    pairs = [pair | {"kind": "foo"} for pair in pairs]
    scan = changed(scan_folder, tmp_path / "own", "scan.json", pairs=pairs)
    ended = run("repair", victim_folder, "--clean", images_folder, "--scan", scan, "--out", tmp_path / "g", "-q")
    assert ended.code == 2
    assert "'foo'" in ended.error


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_is_no_card(run, victim_folder, guard_folder, tmp_path):
    (guard_folder / "guard.json").unlink()
    os.mkfifo(guard_folder / "guard.json")
    assert "not a file" in run("predict", victim_folder, tmp_path, "--guard", guard_folder).error


@pytest.mark.parametrize("content", ["[]", '{"acc": 0.9}', '{"asr": {"value": "high"}}'])
def test_a_zoos_card_must_be_one(run, tmp_path, content):
    (tmp_path / "zoo/one").mkdir(parents=True)
    (tmp_path / "zoo/one/victim.json").write_text(content)
    ended = run("zoo", "list", "--zoo", tmp_path / "zoo")
    assert ended.code == 2
    assert "victim.json" in ended.error
    assert "fault of untrojan" not in ended.error


def test_a_network_that_cannot_be_copied_is_refused_before_the_search(
    run, factories, nameless, images_folder, scan_folder, tmp_path
):
    model = ["--model", f"{factories}:with_a_lock", *nameless[2:]]
    command = ["repair", *model, "--input", "1x8x8", "--clean", images_folder, "--scan", scan_folder]
    ended = run(*command, "--out", tmp_path / "g", "-q")
    assert ended.code == 3
    assert "cannot be copied" in ended.error


def test_what_a_module_keeps_beside_its_tensors_is_no_matter(run, factories, images_folder):
    command = ["evaluate", "--model", f"{factories}:Talkative", "--input", "1x8x8", "--test", images_folder]
    ended = run(*command, "--format", "json", "-q")
    assert ended.code == 0
    assert json.loads(ended.out)["before"]["acc"] is not None


def test_a_network_that_ends_the_program_is_told(run, factories, images_folder):
    ended = run("evaluate", "--model", f"{factories}:Quitting", "--test", images_folder)
    assert ended.code == 2
    assert "no licence" in ended.error


def test_a_users_folder_of_a_results_name_stays(run, victim_folder, images_folder, tmp_path):
    (tmp_path / "out/evaluation.json").mkdir(parents=True)
    (tmp_path / "out/evaluation.json/mine").write_text("mine")
    ended = run("evaluate", victim_folder, "--test", images_folder, "--out", tmp_path / "out", "-q")
    assert ended.code == 2
    assert "evaluation.json is a folder" in ended.error
    assert (tmp_path / "out/evaluation.json/mine").read_text() == "mine"


def test_a_users_files_beside_the_state_of_a_scan_stay(run, scanned, victim_folder, images_folder, tmp_path):
    (tmp_path / "out/scan-state").mkdir(parents=True)
    (tmp_path / "out/scan-state/notes.txt").write_text("mine")
    scanned("clean")
    ended = run("scan", victim_folder, "--clean", images_folder, "--out", tmp_path / "out", "-q")
    assert ended.code == 0
    assert (tmp_path / "out/scan-state/notes.txt").read_text() == "mine"


def test_files_that_were_written_need_no_standard_output(run, victim_folder, images_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdout", None)
    command = ["evaluate", victim_folder, "--test", images_folder, "-q"]
    assert run(*command, "--out", tmp_path / "out").code == 0
    assert (tmp_path / "out/evaluation.json").is_file()
    assert "no standard output" in run(*command).error


def test_an_empty_argument_is_wrong_usage(run, victim_folder, images_folder):
    ended = run("evaluate", victim_folder, "--test", images_folder, "--out", "")
    assert ended.code == 4
    assert "empty" in ended.error


def test_a_poisoned_victim_without_test_images_says_so(run, images_folder, tmp_path):
    command = ["poison", "--dataset", images_folder, "--arch", "convnet", "--width", "2", "--epochs", "1"]
    ended = run(*command, "--attack", "badnet", "--setting", "a2o:1", "--count", "5", "--out", tmp_path / "v", "-q")
    assert ended.code == 0
    assert "accuracy not measured, its success not" in ended.out


def test_moments_of_a_guard_are_numbers(classifier):
    guard = guard_of(classifier, stripes().images)
    theta = {name: value.clone() for name, value in guard.corrected.theta().items()}
    first = next(name for name in theta if name.endswith("|log_std"))
    theta[first][0, 0] = torch.inf
    with pytest.raises(CheckpointError, match="infinite"):
        guard.corrected.load_theta(theta)


def test_standard_output_is_data_alone_whatever_the_network_writes(factories, images_folder, tmp_path):
    noise = "os.write(1, b'raw')", "os.system('echo from a child')", "print('printed')"
    factories.write_text("\n".join([FACTORIES, "import os", *noise]))
    command = [sys.executable, "-m", "untrojan", "evaluate", "--model", f"{factories}:network", "--input", "1x8x8"]
    more = ["--test", str(images_folder), "--format", "json", "-q"]
    ended = subprocess.run([*command, *more], capture_output=True, text=True)
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["schema"] == "untrojan-evaluation-1"
    assert all(said in ended.stderr for said in ("raw", "from a child", "printed"))
