from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from untrojan.data import NAMED, load_data
from untrojan.errors import DataError, UsageError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every set, as folders, at a size that is not the paper's; two classes, 3 images to train on and 2 to test."""
    for name in NAMED:
        for split, count in (("train", 3), ("test", 2)):
            for number, label in enumerate(("cat", "dog")):
                folder = tmp_path / name / split / label
                folder.mkdir(parents=True)
                for i in range(count):
                    Image.new("RGB", (40, 35), (100 * number, 20 * i, 7)).save(folder / f"{i}.png")
    monkeypatch.setenv("UNTROJAN_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", NAMED)
def test_a_set_has_the_size_of_the_paper(name: str, root: Path) -> None:
    test, train = load_data(name, input_shape=None), load_data(f"{name}?split=train", input_shape=None)
    assert (len(test), len(train)) == (4, 6)
    assert test.images.shape[1:] == (3, *NAMED[name].size)
    assert test.class_names == ("cat", "dog")
    assert test.where == f"{name} (test split)"
    assert not set(test.hashes()) - set(train.hashes())  # the same pictures here, decoded alike


def test_another_size_is_what_the_user_says(root: Path) -> None:
    assert load_data("gtsrb", input_shape=(1, 16, 16)).images.shape == (4, 1, 16, 16)


def test_a_validation_split_serves_as_test(root: Path) -> None:
    shutil.move(root / "imagenette/test", root / "imagenette/validation")
    assert len(load_data("imagenette?split=test", input_shape=(3, 8, 8))) == 4


def test_what_is_missing_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"expected cifar10, cifar10\?split=train or"):
        load_data("cifar10?split=all", input_shape=None)
    shutil.rmtree(root / "cifar10")
    with pytest.raises(DataError, match=r"there is no cifar10/test.parquet in it"):
        load_data("cifar10", input_shape=None)
    monkeypatch.delenv("UNTROJAN_DATA")
    monkeypatch.setattr("untrojan.data.named.find_spec", lambda name: None)
    with pytest.raises(DataError, match="set UNTROJAN_DATA, to the folder"):
        load_data("cifar10", input_shape=None)


def test_a_folder_of_that_name_comes_first(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root / "gtsrb")
    shutil.move(root / "gtsrb/train", root / "gtsrb/cifar10")
    found = load_data("cifar10", input_shape=None)
    assert (len(found), found.images.shape[2]) == (6, 35)


def test_the_first_classes_alone(root: Path) -> None:
    for number in range(3):
        folder = root / "tiny-imagenet/test" / f"x{number}"
        folder.mkdir()
        Image.new("RGB", (8, 8), (0, 0, 40 * number)).save(folder / "0.png")
    whole = load_data("tiny-imagenet", input_shape=(3, 8, 8))
    some = load_data("tiny-imagenet?split=test&classes=3", input_shape=(3, 8, 8))
    assert (len(whole), whole.class_names) == (7, ("cat", "dog", "x0", "x1", "x2"))
    assert (some.labels.tolist(), some.class_names) == ([0, 0, 1, 1, 2], ("cat", "dog", "x0"))
    assert some.hashes() == whole.hashes()[:5]
    with pytest.raises(UsageError, match="at least 2 classes, each once, got 1"):
        load_data("tiny-imagenet?classes=1", input_shape=None)
    with pytest.raises(UsageError, match="expected tiny-imagenet"):
        load_data("tiny-imagenet?classes=ten", input_shape=None)
    with pytest.raises(UsageError, match="&classes=N"):
        load_data("tiny-imagenet?classes=", input_shape=None)


def test_without_a_folder_the_hub_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Hub:
        def __init__(self, spec: str, class_names: object) -> None:
            asked.append(spec)
            if "split=valid" not in spec:
                raise UsageError("no such split")
            raise DataError("found")

    monkeypatch.delenv("UNTROJAN_DATA", raising=False)
    monkeypatch.setattr("untrojan.data.named.find_spec", lambda name: object())
    monkeypatch.setattr("untrojan.data.named.HubImages", Hub)
    with pytest.raises(DataError, match="found"):
        load_data("tiny-imagenet?split=test", input_shape=None)
    name = NAMED["tiny-imagenet"].hub
    assert asked == [f"hf:{name}?split={split}" for split in ("test", "validation")]
