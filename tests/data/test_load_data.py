from __future__ import annotations

from pathlib import Path

import pytest

from untrojan.data import SOURCES, image_paths, load_data, load_images
from untrojan.errors import DataError, UnsupportedError, UsageError


def test_limit_draws_balanced_by_seed(write_folder):
    root = write_folder({"a": range(20), "b": range(20, 40), "c": range(40, 42)})
    draws = [load_data(str(root), input_shape=None, limit=12, seed=seed) for seed in (1, 1, 2)]
    assert draws[0].labels.bincount().tolist() == [5, 5, 2]
    assert draws[0].hashes() == draws[1].hashes()
    assert draws[0].hashes() != draws[2].hashes()
    assert len(load_data(str(root), input_shape=None, limit=100)) == 42


@pytest.mark.parametrize("limit", [0, -1])
def test_a_senseless_limit_is_wrong_usage(write_folder, limit):
    with pytest.raises(UsageError, match="--limit"):
        load_data(str(write_folder({"a": [1], "b": [2]})), input_shape=None, limit=limit)


def test_mixed_images_need_an_input_shape(write_folder, png):
    root = write_folder({"a": [1], "b": [2]})
    (root / "b" / "large.png").write_bytes(png(3, (9, 7)))
    with pytest.raises(DataError, match="--input 3x4x4"):
        load_data(str(root), input_shape=None)
    assert load_data(str(root), input_shape=(1, 5, 6)).images.shape == (3, 1, 5, 6)


@pytest.mark.parametrize("shape", [(4, 8, 8), (3, 0, 8)])
def test_impossible_shapes_are_unsupported(write_folder, shape):
    with pytest.raises(UnsupportedError, match="1xHxW or 3xHxW"):
        load_data(str(write_folder({"a": [1]})), input_shape=shape)


def test_a_missing_path_says_what_there_is_and_what_is_expected(write_folder, tmp_path):
    write_folder({"a": [1]})
    with pytest.raises(DataError, match="no such file or folder") as caught:
        load_data(str(tmp_path / "sett"), input_shape=None)
    assert "holds set" in str(caught.value)
    assert all(source.form in str(caught.value) for source in SOURCES.values())
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty is empty"):
        load_data(str(tmp_path / "empty" / "x" / "y"), input_shape=None)


def test_a_missing_parquet_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"x\.parquet: no such file"):
        load_data(str(tmp_path / "x.parquet"), input_shape=None)


def test_other_files_and_senseless_names_are_refused(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="of a kind that is not read; expected"):
        load_data(str(tmp_path / "x.zip"), input_shape=None)
    for spec in ("a\0b", "x" * 5000, "x/" * 5000):
        with pytest.raises(DataError) as caught:
            load_data(spec, input_shape=None)
        assert "\0" not in str(caught.value)
        assert len(str(caught.value)) < 1500


def test_no_name_is_not_the_current_folder(write_folder, monkeypatch):
    monkeypatch.chdir(write_folder({"a": [1], "b": [2]}))
    with pytest.raises(UsageError, match="no data was given"):
        load_data("", input_shape=None)
    assert len(load_data(".", input_shape=None)) == 2


def test_a_folder_called_digits_needs_a_path(write_folder, monkeypatch, tmp_path):
    write_folder({"a": [1], "b": [2]}, name="digits")
    monkeypatch.chdir(tmp_path)
    assert len(load_data("./digits", input_shape=None)) == 2


def test_images_to_predict_keep_their_order_and_folders_expand(write_folder, png, tmp_path):
    root = write_folder({"a": [5, 6]})
    (root / "a" / "notes.txt").write_text("no image")
    (tmp_path / "z.bin").write_bytes(png(9))
    paths = [tmp_path / "z.bin", root / "a"]
    assert image_paths(paths) == [tmp_path / "z.bin", root / "a" / "00.png", root / "a" / "01.png"]
    assert load_images(paths, input_shape=None)[:, 0, 0, 0].tolist() == [9, 5, 6]
    assert load_images(paths, input_shape=(1, 8, 8)).shape == (3, 1, 8, 8)


@pytest.mark.parametrize("name", ["missing.png", "a\0b", "x" * 5000])
def test_a_missing_image_to_predict_is_refused(tmp_path, name):
    with pytest.raises(DataError):
        load_images([tmp_path / name], input_shape=None)


def test_nothing_to_predict_is_refused(tmp_path):
    with pytest.raises(DataError, match="no images directly in this folder"):
        load_images([tmp_path], input_shape=None)
    with pytest.raises(DataError, match="no images were given"):
        load_images([], input_shape=None)


def test_images_to_predict_that_differ_need_a_shape(png, tmp_path):
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "b.png").write_bytes(png(1, (5, 5)))
    with pytest.raises(DataError, match="differ in shape"):
        load_images([Path(tmp_path)], input_shape=None)
