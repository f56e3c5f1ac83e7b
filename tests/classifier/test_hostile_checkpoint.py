"""Checkpoints made to do harm: each is one CheckpointError, nothing runs, nothing large is allocated."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import event, given, settings
from hypothesis import strategies as st

from untrojan.classifier.checkpoint import read_checkpoint
from untrojan.classifier.outline import outline
from untrojan.errors import CheckpointError


class Storage:
    def __init__(self, key: Any = "0", numel: Any = 4, kind: Any = torch.FloatStorage, word: str = "storage"):
        self.reference = (word, kind, key, "cpu", numel)


class Claim:
    """Pickles as a tensor with whatever it claims."""

    def __init__(self, size: Any, stride: Any, offset: Any = 0, storage: Any = None):
        self.arguments = (storage or Storage(), offset, size, stride, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.arguments


class Runs:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any):
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def pickled(found: object, protocol: int = 2) -> bytes:
    class Pickler(pickle.Pickler):
        def persistent_id(self, value: object) -> Any:
            return value.reference if isinstance(value, Storage) else None

    stream = io.BytesIO()
    Pickler(stream, protocol).dump(found)
    return stream.getvalue()


def archive(path: Path, pickle_: bytes, records: Mapping[str, bytes] | None = None, compression: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", compression) as made:
        made.writestr("archive/data.pkl", pickle_)
        for key, content in (records if records is not None else {"0": bytes(16)}).items():
            made.writestr(f"archive/data/{key}", content)
    return path


def refused(path: Path) -> str:
    """The message; memory beyond a few MB would mean that a claim was believed."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            read_checkpoint(path)
        assert tracemalloc.get_traced_memory()[1] < 32e6
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def attempt(path: Path) -> dict[str, torch.Tensor] | None:
    """What was read, or None if it was refused in due form. Any other exception fails the test."""
    try:
        return read_checkpoint(path)
    except CheckpointError as error:
        message = str(error)
    assert "\n" not in message
    return None


def test_the_crafted_form_is_valid_when_it_tells_the_truth(tmp_path: Path) -> None:
    path = archive(tmp_path / "w.pt", pickled({"a": Claim((2, 2), (2, 1))}))
    assert torch.equal(read_checkpoint(path)["a"], torch.zeros(2, 2))


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
@pytest.mark.parametrize("place", ["value", "nested", "beside", "key argument"])
def test_code_is_never_run(tmp_path: Path, protocol: int, place: str) -> None:
    marker = tmp_path / "marker"
    call = Runs(os.system, f"touch {marker}")
    found: Any = {
        "value": {"a": call},
        "nested": {"state_dict": {"a": Claim((4,), (1,)), "b": call}},
        "beside": {"state_dict": {"a": Claim((4,), (1,))}, "epoch": call},
        "key argument": {"a": Claim((4,), (1,), storage=Storage(key=call))},
    }[place]
    message = refused(archive(tmp_path / "w.pt", pickled(found, protocol)))
    assert "nothing in it was executed" in message
    assert not marker.exists()


def test_the_marker_test_can_fail(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    pickle.loads(pickled({"a": Runs(os.system, f"touch {marker}")}))
    assert marker.exists()


@pytest.mark.parametrize(
    "call",
    [
        Runs(eval, "1"),
        Runs(getattr, torch, "ones"),
        Runs(torch.hub.load, "x", "y"),
        Runs(torch.load, "x"),
        Runs(torch.FloatStorage, 10**12),
        Runs(torch.Tensor, 10**12),
        Runs(OrderedDict, [["a", 1]]),
        Runs(bytearray, 10**12),
        Runs(torch._utils._rebuild_parameter, 1, True, OrderedDict()),
        Runs(torch._utils._rebuild_tensor_v2),
        Runs(torch._utils._rebuild_tensor, Storage(), 0, (4,), (1,)),
    ],
    ids=lambda call: call.call[0].__name__,
)
def test_calls_that_a_state_dict_does_not_need(tmp_path: Path, call: Runs) -> None:
    try:
        content = pickled({"a": call})
    except (pickle.PicklingError, TypeError):  # a module cannot be pickled by value: name something else of it
        content = pickled({"a": Runs(getattr, "torch", "ones")})
    assert "w.pt" in refused(archive(tmp_path / "w.pt", content))


@pytest.mark.parametrize(
    "claim",
    [
        Claim((10**12,), (0,)),
        Claim((10**6, 10**6), (0, 0)),
        Claim((5,), (1,)),
        Claim((5,), (0,)),
        Claim((2,), (4,)),
        Claim((4,), (1,), offset=1),
        Claim((), (), offset=4),
        Claim((1,), (1,), offset=2**62),
        Claim((2**62,), (1,)),
        Claim((2**64,), (1,)),
        Claim((1,), (2**70,)),
        Claim((0, 2**62, 2**62), (1, 1, 1)),
        Claim((-4,), (1,)),
        Claim((4,), (-1,)),
        Claim((4,), (1,), offset=-1),
        Claim((4.0,), (1,)),
        Claim((True,), (1,)),
        Claim(("4",), (1,)),
        Claim((4,), ()),
        Claim([4], [1]),
        Claim(4, 1),
        Claim((1,) * 17, (1,) * 17),
        Claim((4,), (1,), storage="0"),
        Claim((4,), (1,), storage=Storage(numel=10**12)),
        Claim((10**12,), (1,), storage=Storage(numel=10**12)),
        Claim((4,), (1,), storage=Storage(numel=-4)),
        Claim((4,), (1,), storage=Storage(numel=4.0)),
        Claim((2,), (1,), storage=Storage(numel=3)),
        Claim((4,), (1,), storage=Storage(kind=torch.DoubleStorage)),
        Claim((4,), (1,), storage=Storage(kind=torch.float32)),
        Claim((4,), (1,), storage=Storage(kind="FloatStorage")),
        Claim((4,), (1,), storage=Storage(key="1")),
        Claim((4,), (1,), storage=Storage(key="../data.pkl")),
        Claim((4,), (1,), storage=Storage(key=0)),
        Claim((4,), (1,), storage=Storage(word="module")),
        Claim((0,), (1,), storage=Storage(key="absent", numel=0)),
    ],
    ids=lambda claim: f"{claim.arguments[1:4]}-{getattr(claim.arguments[0], 'reference', '')}"[:80],
)
def test_tensors_that_do_not_fit_their_storage(tmp_path: Path, claim: Claim) -> None:
    # "damaged" would mean that torch refused it, after it was believed here
    assert "damaged" not in refused(archive(tmp_path / "w.pt", pickled({"a": claim})))


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b".",
        b"}",
        b"}}.",
        b"}(.",
        b"0.",
        b"u.",
        b"}(u.",
        b"}(K\x01u.",
        b"(}u.",
        b"]K\x01K\x02s.",
        b"R.",
        b"K\x01)R.",
        b"}K\x01b.",
        b"K\x01}b.",
        b"h\x05.",
        b"r\xff\xff\xff\x7f.",
        b"}r\xff\xff\xff\x7f",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.",
        b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x8b\xff\xff\xff\x7f.",
        b"I" + b"9" * 10000 + b"\n.",
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"\x82\x01.",
        b"Pkey\n.",
        b"\x80\x63}.",
        b"}))s.",
        b"}](u.",
        b"K\x00Q.",
        b"(lp0\n.",
        b"\x8c\x02os\x8c\x06system\x93.",
        b"K\x01K\x02\x93.",
    ],
)
def test_malformed_programs(tmp_path: Path, program: bytes) -> None:
    assert "w.pt" in refused(archive(tmp_path / "w.pt", program))


def test_nested_tuples_do_not_take_exponential_time(tmp_path: Path) -> None:
    doubling = b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(200))
    assert "keys" in refused(archive(tmp_path / "w.pt", b"}" + doubling + b"K\x01s."))
    beside = pickled({"a": Claim((4,), (1,))})[:-1] + b"X\x01\0\0\0b" + doubling + b"s."
    assert "'b' is tuple" in refused(archive(tmp_path / "w.pt", beside))


def test_deeply_nested_objects(tmp_path: Path) -> None:
    assert "no mapping" in refused(archive(tmp_path / "w.pt", b"]" + b"\x85" * 30_000 + b"."))


def test_names_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    message = refused(archive(tmp_path / "w.pt", pickled({"a": Claim((4,), (1,)), "\x1b[2J\n" + "b" * 500: 1})))
    assert message.isprintable()
    assert len(message) < 400


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_records(tmp_path: Path, compression: int) -> None:
    storage = Storage(numel=2**26)
    content = pickled({"a": Claim((2**26,), (1,), storage=storage)})
    path = archive(tmp_path / "w.pt", content, compression=compression)
    assert "is compressed" in refused(path)


def test_duplicate_names(tmp_path: Path) -> None:
    path = archive(tmp_path / "w.pt", pickled({"a": Claim((4,), (1,))}))
    with zipfile.ZipFile(path, "a") as made, pytest.warns(UserWarning, match="Duplicate"):
        made.writestr("archive/data.pkl", pickled({}))
    assert "two records" in refused(path)


def test_two_pickles(tmp_path: Path) -> None:
    path = archive(tmp_path / "w.pt", pickled({"a": Claim((4,), (1,))}))
    with zipfile.ZipFile(path, "a") as made:
        made.writestr("other/data.pkl", pickled({}))
    assert "without one data.pkl" in refused(path)


def test_encrypted_flag(tmp_path: Path) -> None:
    path = archive(tmp_path / "w.pt", pickled({"a": Claim((4,), (1,))}))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    assert "is encrypted; re-save it" in refused(path)


def test_overlapping_records(tmp_path: Path) -> None:
    path = archive(tmp_path / "w.pt", pickled({"a": Claim((4,), (1,))}), {"0": bytes(4096)})
    content = path.read_bytes()
    start = content.index(b"PK\x01\x02")
    start = content.index(b"PK\x01\x02", start + 1)
    end = content.index(b"PK\x05\x06")
    entry, count = content[start:end], 50
    directory = content[content.index(b"PK\x01\x02") : start]
    directory += b"".join(entry.replace(b"data/0", b"data/%c" % (48 + i)) for i in range(count))
    first = content.index(b"PK\x01\x02")
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count + 1, count + 1, len(directory), first, 0)
    path.write_bytes(content[:first] + directory + tail)
    with zipfile.ZipFile(path) as made:
        assert len(made.infolist()) == count + 1
    assert "the file has" in refused(path)


def test_large_pickle(tmp_path: Path) -> None:
    assert "data.pkl is larger" in refused(archive(tmp_path / "w.pt", b"}" * (8 * 2**20 + 1)))


def test_byte_order(tmp_path: Path) -> None:
    path = archive(tmp_path / "w.pt", pickled({"a": Claim((4,), (1,))}))
    with zipfile.ZipFile(path, "a") as made:
        made.writestr("archive/byteorder", b"big")
    assert "byte order" in refused(path)


def test_unused_claims_are_not_believed(tmp_path: Path) -> None:
    # Optimiser state is not loaded, so that its record does not matter; what is loaded stays right.
    unused = Claim((10**12,), (1,), storage=Storage(key="9", numel=10**12))
    path = archive(tmp_path / "w.pt", pickled({"net": {"a": Claim((4,), (1,))}, "optimizer": {"m": unused}}))
    assert read_checkpoint(path)["a"].tolist() == [0.0] * 4


def safetensors_file(path: Path, header: bytes, length: int | None = None, data: bytes = b"") -> Path:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
    return path


@pytest.mark.parametrize("length", [108, 10**5, 2**40, 2**63, 2**64 - 1])
def test_safetensors_header_longer_than_the_file(tmp_path: Path, length: int) -> None:
    message = refused(safetensors_file(tmp_path / "w.safetensors", b'{"a":1}' + b" " * 100, length))
    assert f"a header of {length} bytes, a file of 115" in message


@pytest.mark.parametrize("length", [0, 1, 3, 100])
def test_safetensors_header_cut_short(tmp_path: Path, length: int) -> None:
    message = refused(safetensors_file(tmp_path / "w.safetensors", b'{"a":1}' + b" " * 100, length))
    assert "not a readable safetensors file" in message


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 10**12]},
        {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]},
        {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [0, 0]},
        {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]},
        {"dtype": "F32"},
        7,
    ],
)
def test_safetensors_entries(tmp_path: Path, entry: object) -> None:
    header = json.dumps({"a": entry}).encode()
    assert "w.safetensors" in refused(safetensors_file(tmp_path / "w.safetensors", header, data=bytes(16)))


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F8_E4M3", "F8_E5M2", "F8_E8M0", "U16", "U64", "C64", "BOOL", "I8"])
def test_safetensors_of_rare_types_are_read_or_refused(tmp_path: Path, dtype: str) -> None:
    header = json.dumps({"a": {"dtype": dtype, "shape": [0], "data_offsets": [0, 0]}}).encode()
    found = attempt(safetensors_file(tmp_path / "w", header))
    assert found is None or found["a"].numel() == 0


@cache
def honest(kind: str) -> bytes:
    tensors = {"conv.weight": torch.arange(12.0).view(3, 4), "conv.bias": torch.ones(3), "n": torch.tensor(5)}
    if kind == "safetensors":
        return safetensors.torch.save(tensors)
    stream = io.BytesIO()
    torch.save(tensors, stream)
    return stream.getvalue()


SHAPES = [(), (3,), (3, 4)]


def read_or_refused(path: Path, content: bytes) -> bool:
    """Whether it was read; then the shapes are the honest ones."""
    path.write_bytes(content)
    found = attempt(path)
    assert found is None or sorted(tuple(tensor.shape) for tensor in found.values()) == SHAPES
    return found is not None


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_every_truncation_is_refused(tmp_path: Path, kind: str) -> None:
    content = honest(kind)
    lengths = [*range(0, len(content) - 1, 7), len(content) - 1]
    read = [n for n in lengths if read_or_refused(tmp_path / "w", content[:n])]
    assert read == []
    assert read_or_refused(tmp_path / "w", content)


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_flipped_bytes(kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = bytearray(honest(kind))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    read = read_or_refused(tmp_path_factory.getbasetemp() / f"flipped-{kind}", bytes(content))
    event("read" if read else "refused")


@settings(deadline=None, max_examples=100)
@given(
    content=st.binary(max_size=80), head=st.sampled_from([b"", b"PK\x03\x04", struct.pack("<Q", 30) + b"{", b"\x80"])
)
def test_any_bytes(content: bytes, head: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(head + content)
    assert attempt(path) is None


@settings(deadline=None, max_examples=300)
@given(program=st.binary(max_size=60), damage=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4))
def test_damaged_pickles_inside_a_sound_archive(
    program: bytes, damage: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    # The archive's checksums catch damage; an attacker computes them anew.
    content = bytearray(pickled({"a": Claim((2, 2), (2, 1)), "b": Claim((4,), (1,))}))
    for place, value in damage:
        content[place % len(content)] = value
    for pickle_ in (bytes(content), program + b"."):
        path = archive(tmp_path_factory.getbasetemp() / "damaged-pickle", pickle_)
        found = attempt(path)
        assert found is None or all(tensor.numel() <= 4 for tensor in found.values())


def test_outline_never_imports() -> None:
    with pytest.raises(CheckpointError, match=r"'antigravity\.fly'"):
        outline(b"cantigravity\nfly\n.")
