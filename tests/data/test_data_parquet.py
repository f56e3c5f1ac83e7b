from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import untrojan.data.parquet
from untrojan.data import ImageSet, balanced_sample, load_data
from untrojan.errors import DataError

REAL = os.environ.get("UNTROJAN_DATA")
needs_real_data = pytest.mark.skipif(REAL is None, reason="UNTROJAN_DATA does not name a folder with real data")


def values(images):
    return images.images[:, 0, 0, 0].tolist()


def test_rows_come_in_order_with_labels_and_names(write_parquet, png):
    path = write_parquet([png(v) for v in range(8)], [v % 3 for v in range(8)], names=["a", "b", "c"])
    images = load_data(str(path), input_shape=None)
    assert values(images) == list(range(8))
    assert images.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert images.class_names == ("a", "b", "c")
    assert images.where == str(path)


@pytest.mark.parametrize("rows_per_group", [1, 7, 1000])
def test_a_limit_reads_the_right_rows(write_parquet, png, rows_per_group, monkeypatch):
    monkeypatch.setattr(untrojan.data.parquet, "_BATCH_ROWS", 4)
    path = write_parquet([png(v) for v in range(40)], [v % 4 for v in range(40)], rows_per_group=rows_per_group)
    images = load_data(str(path), input_shape=None, limit=10, seed=5)
    assert len(images) == 10
    assert [v % 4 for v in values(images)] == images.labels.tolist()
    assert images.where == f"10 of 40 images of {path}, seed 5"


def test_only_the_images_drawn_are_decoded(write_parquet, png):
    labels = torch.tensor([0, 1, 0, 1])
    sound = next(seed for seed in range(50) if labels[balanced_sample(labels, 1, seed)].item() == 0)
    path = write_parquet([png(1), b"broken", png(2), b"broken"], labels.tolist())
    assert values(load_data(str(path), input_shape=None, limit=1, seed=sound))[0] in (1, 2)
    with pytest.raises(DataError, match="row 1: not an image"):
        load_data(str(path), input_shape=None)


@pytest.mark.parametrize(
    "layout",
    [
        {"plain": True},
        {"image_column": "img", "label_column": "labels"},
        {"image_column": "picture", "label_column": "kind", "names": ["a", "b"]},
        {"label_column": "fine_label", "extra": {"coarse_label": [1, 0, 1]}},
        {"extra": {"fine_label": [1, 0, 1], "id": ["x", "y", "z"]}},
        {"plain": True, "image_column": "img", "metadata": b"not json"},
        {"metadata": b'{"info": [1]}'},
        {"metadata": b'{"info": {"features": {"label": {"_type": ["x"], "names": [1, 2]}}}}'},
        {"metadata": b"[" * 100_000},
    ],
)
def test_layouts_that_are_read(write_parquet, png, layout):
    images = load_data(str(write_parquet([png(1), png(2), png(3)], [0, 1, 0], **layout)), input_shape=None)
    assert values(images) == [1, 2, 3]
    assert images.labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"image_column": "photo", "metadata": b"{}"}, "no column with images .* photo, label"),
        ({"label_column": "y"}, "no column with labels .* image, y"),
        ({"label_column": "y", "extra": {"z": [0, 1]}}, "no column with labels"),
    ],
)
def test_other_layouts_list_the_columns(write_parquet, png, layout, message):
    with pytest.raises(DataError, match=message):
        load_data(str(write_parquet([png(1), png(2)], [0, 1], **layout)), input_shape=None)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, None], "1 labels are missing"),
        (["cat", "dog"], "type string; expected class numbers"),
        ([0.0, 1.0], "type double"),
        (np.array([0, 2**63], dtype=np.uint64), "not a readable parquet file"),
    ],
)
def test_labels_that_are_no_class_numbers_are_refused(write_parquet, png, labels, message):
    with pytest.raises(DataError, match=message):
        load_data(str(write_parquet([png(1), png(2)], labels)), input_shape=None)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.uint64])
def test_all_integers_are_labels(write_parquet, png, kind):
    images = load_data(str(write_parquet([png(1), png(2)], np.array([1, 0], dtype=kind))), input_shape=None)
    assert images.labels.tolist() == [1, 0]


def test_a_label_beyond_the_names_is_refused(write_parquet, png):
    with pytest.raises(DataError, match="label 2, but the file names only 2 classes"):
        load_data(str(write_parquet([png(1), png(2)], [0, 2], names=["a", "b"])), input_shape=None)


def test_labels_follow_the_classifiers_names(write_parquet, png):
    path = write_parquet([png(1), png(2)], [0, 1], names=["dog", "cat"])
    images = load_data(str(path), input_shape=None, class_names=["cat", "cow", "dog"])
    assert images.labels.tolist() == [2, 0]
    assert images.class_names == ("cat", "cow", "dog")


@pytest.mark.parametrize("row", [{"bytes": None, "path": "secret.png"}, None])
def test_a_path_in_a_row_is_never_opened(write_parquet, png, tmp_path, row, monkeypatch):
    (tmp_path / "secret.png").write_bytes(png(9))
    monkeypatch.chdir(tmp_path)
    path = write_parquet([png(1), {"bytes": None, "path": "secret.png"} if row else None], [0, 1])
    with pytest.raises(DataError, match="row 1: no image bytes"):
        load_data(str(path), input_shape=None)


def test_a_null_struct_is_refused_too(png, tmp_path):
    table = pa.table({"image": pa.array([None, {"bytes": png(1)}]), "label": [0, 1]})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DataError, match="row 0: no image bytes"):
        load_data(str(tmp_path / "x.parquet"), input_shape=None)


@pytest.mark.parametrize("kind", [pa.string(), pa.list_(pa.int64()), pa.struct([("path", pa.string())])])
def test_an_image_column_of_another_type_is_refused(tmp_path, kind):
    pq.write_table(pa.table({"image": pa.nulls(2, kind), "label": [0, 1]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="expected encoded images"):
        load_data(str(tmp_path / "x.parquet"), input_shape=None)


def test_a_folder_is_read_in_sorted_order(write_parquet, png):
    for name, value in (("set/b.parquet", 2), ("set/a.parquet", 1), ("set/data/c.parquet", 3), ("set/.x.parquet", 9)):
        path = write_parquet([png(value), png(value)], [0, 1], names=["u", "v"], name=name)
    images = load_data(str(path.parent), input_shape=None)
    assert values(images) == [1, 1, 2, 2, 3, 3]
    assert images.where == f"{path.parent} (3 parquet files)"
    drawn = load_data(str(path.parent), input_shape=None, limit=4, seed=1)
    assert sorted(drawn.labels.tolist()) == [0, 0, 1, 1]


def test_files_must_agree_on_class_names(write_parquet, png):
    write_parquet([png(1)], [0], names=["u", "v"], name="set/a.parquet")
    path = write_parquet([png(1)], [1], names=["v", "u"], name="set/b.parquet")
    with pytest.raises(DataError, match="class names differ"):
        load_data(str(path.parent), input_shape=None)


def test_no_rows_are_no_data(write_parquet):
    with pytest.raises(DataError, match="no images"):
        load_data(str(write_parquet([], pa.array([], pa.int64()))), input_shape=None)


def test_too_many_rows_are_refused_before_any_is_read(tmp_path):
    count = untrojan.data.parquet.MAX_ROWS + 1
    table = pa.table({"image": pa.nulls(count, pa.binary()), "label": pa.array(np.zeros(count, dtype=np.uint8))})
    pq.write_table(table, tmp_path / "x.parquet")
    assert (tmp_path / "x.parquet").stat().st_size < 2**20
    with pytest.raises(DataError, match="more than 20000000 rows"):
        load_data(str(tmp_path / "x.parquet"), input_shape=None)


@pytest.mark.parametrize("plain", [True, False])
def test_a_small_file_that_repeats_a_large_value_is_refused(tmp_path, plain, monkeypatch):
    monkeypatch.setattr(untrojan.data.parquet, "_BATCH_BYTES", 2**20)
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 500, pa.int32()), pa.array([b"\0" * 2**20], pa.binary()))
    column = repeated if plain else pa.StructArray.from_arrays([repeated], ["bytes"])
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": column, "label": [0, 1] * 250}), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 10_000
    with pytest.raises(DataError, match="unpack to far more than the file announces"):
        list(untrojan.data.parquet.ParquetImages(str(path)).pictures(torch.tensor([499])))


@pytest.mark.parametrize("content", [b"", b"hello", b"PAR1", b"PAR1" + b"\xff" * 100 + b"PAR1", b"text\n" * 1000])
def test_what_is_no_parquet_is_refused(tmp_path, content):
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.parquet: not a readable parquet file"):
        load_data(str(tmp_path / "x.parquet"), input_shape=None)


def test_a_folder_or_pipe_named_parquet_is_refused(tmp_path):
    (tmp_path / "folder.parquet").mkdir()
    os.mkfifo(tmp_path / "pipe.parquet")
    for name in ("folder.parquet", "pipe.parquet"):
        with pytest.raises(DataError):
            load_data(str(tmp_path / name), input_shape=None)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8), st.integers(0, 300))
def test_damaged_files_give_images_or_our_own_errors(write_parquet, png, changes, cut):
    path = write_parquet([png(v, (2, 2)) for v in range(4)], [0, 1, 0, 1], names=["a", "b"])
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[-1 - place % len(content)] = value
    path.write_bytes(content[: len(content) - cut])
    loaded = images_or_message(path)
    assert loaded.isprintable() if isinstance(loaded, str) else loaded.images.shape[1:] == (3, 2, 2)


def images_or_message(path: Path) -> ImageSet | str:
    try:
        return load_data(str(path), input_shape=(3, 2, 2), limit=3)
    except DataError as error:
        return str(error)


def test_an_image_may_be_of_any_format_that_is_read(write_parquet, noise):
    encoded = []
    for form in ("PNG", "WEBP", "JPEG"):
        stream = io.BytesIO()
        Image.fromarray(noise).save(stream, form)
        encoded.append(stream.getvalue())
    assert load_data(str(write_parquet(encoded, [0, 1, 0])), input_shape=(1, 8, 8)).images.shape == (3, 1, 8, 8)


@needs_real_data
@pytest.mark.parametrize(
    ("name", "classes", "shape"),
    [("cifar10", 10, (3, 32, 32)), ("gtsrb", 43, (3, 32, 32)), ("tiny-imagenet", 200, (3, 64, 64))],
)
def test_real_data(name, classes, shape):
    path = Path(REAL or "") / name / "test.parquet"
    if not path.exists():
        pytest.skip(f"{name} is not in UNTROJAN_DATA")
    images = load_data(str(path), input_shape=shape, limit=2 * classes)
    assert images.images.shape == (2 * classes, *shape)
    assert images.labels.bincount().tolist() == [2] * classes
    images.require_labels(classes)
    assert len(images.class_names) == classes
