from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from untrojan.errors import CheckpointError, OutputError
from untrojan.storage import all_finite, read_safetensors, read_text, write_bytes


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_is_written_its_folder_made_an_old_one_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file"
    write_bytes(path, b"first")
    write_bytes(path, b"second, longer")
    assert contents(path.parent) == {"file": b"second, longer"}
    write_bytes(path, b"")
    assert contents(path.parent) == {"file": b""}


def test_others_may_read_it_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "file", b"x")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("step", ["fsync", "fdopen", "chmod", "replace"])
@pytest.mark.parametrize("old", [b"old", None])
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, old: bytes | None
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    monkeypatch.setattr(os, step, full)
    with pytest.raises(OutputError, match=r"cannot write .*file: No space left on device; free some space"):
        write_bytes(path, b"new")
    assert contents(tmp_path) == ({} if old is None else {"file": old})


def test_until_the_end_a_reader_sees_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "file", []
    path.write_bytes(b"old")
    fsync = os.fsync

    def look(descriptor: int) -> None:
        seen.append((path.read_bytes(), sorted(len(content) for content in contents(tmp_path).values())))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    write_bytes(path, b"content")
    assert seen == [(b"old", [3, 7])]
    assert contents(tmp_path) == {"file": b"content"}


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes(tmp_path / "file", b"content")
    assert contents(tmp_path) == {}


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "below", tmp_path / "folder", tmp_path / ("x" * 300)):
        with pytest.raises(OutputError, match="cannot write"):
            write_bytes(path, b"content")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    assert not list((tmp_path / "folder").iterdir())


def saved() -> bytes:
    return safetensors.torch.save({"a": torch.arange(3.0), "b": torch.ones(2, 1, dtype=torch.int64)}, {"said": "yes"})


def test_tensors_and_metadata_are_read(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", saved())
    tensors, metadata = read_safetensors(tmp_path / "file")
    assert metadata == {"said": "yes"}
    assert tensors.keys() == {"a", "b"}
    assert torch.equal(tensors["a"], torch.arange(3.0))
    assert torch.equal(tensors["b"], torch.ones(2, 1, dtype=torch.int64))


def test_a_file_without_metadata(tmp_path: Path) -> None:
    write_bytes(tmp_path / "file", safetensors.torch.save({}))
    assert read_safetensors(tmp_path / "file") == ({}, {})


def test_no_length_of_a_broken_file_is_read(tmp_path: Path) -> None:
    content, path = saved(), tmp_path / "file"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="not a readable safetensors file"):
            read_safetensors(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        read_safetensors(path)


def test_a_header_that_claims_more_than_there_is(tmp_path: Path) -> None:
    header = b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    for size in (len(header), 2**63 - 1, 2**40):
        write_bytes(tmp_path / "file", size.to_bytes(8, "little") + header)
        with pytest.raises(CheckpointError) as caught:
            read_safetensors(tmp_path / "file")
        assert len(str(caught.value).splitlines()) == 1


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]] | CheckpointError:
    try:
        return read_safetensors(path)
    except CheckpointError as error:
        return error


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    result = read(tmp_path / "file")
    assert isinstance(result, tuple) or len(str(result).splitlines()) == 1


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        read_safetensors(tmp_path / "missing")
    with pytest.raises(CheckpointError, match="not a file"):
        read_safetensors(tmp_path)
    for reader in (read_safetensors, read_text):
        with pytest.raises(CheckpointError):
            reader(tmp_path / ("x" * 300))


def test_text(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("ä text\n", encoding="utf-8")
    assert read_text(path) == "ä text\n"
    assert read_text(path, most=8) == "ä text\n"
    with pytest.raises(CheckpointError, match="larger than"):
        read_text(path, most=7)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match="not a text file"):
        read_text(path)
    for missing in (tmp_path / "missing", tmp_path):
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_text(missing)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e5m2])
def test_a_number_that_is_not_finite_is_found(bad: float, dtype: torch.dtype) -> None:
    good = {"count": torch.tensor(3), "weight": torch.ones(2, 2).to(dtype), "empty": torch.ones(0).to(dtype)}
    assert all_finite(good)
    assert not all_finite(good | {"bad": torch.tensor([1.0, bad]).to(dtype)})


def test_no_tensors_are_finite() -> None:
    assert all_finite({})
