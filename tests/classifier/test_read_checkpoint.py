"""Reading honest checkpoints: the same tensors as torch.load and safetensors give."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from untrojan.classifier.checkpoint import read_checkpoint
from untrojan.errors import CheckpointError


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> bool:
    return list(found) == list(wanted) and all(
        torch.equal(found[n], wanted[n]) and found[n].dtype == wanted[n].dtype for n in wanted
    )


def test_state_dict_is_read_as_torch_load_reads_it(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "w.pt")
    assert same(read_checkpoint(tmp_path / "w.pt"), torch.load(tmp_path / "w.pt", weights_only=True))


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_other_pickle_protocols(tmp_path: Path, protocol: int) -> None:
    torch.save(network().state_dict(), tmp_path / "w.pt", pickle_protocol=protocol)
    assert same(read_checkpoint(tmp_path / "w.pt"), dict(network().state_dict()))


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8, torch.int32, torch.bool, torch.complex64],
)
def test_dtypes_are_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"a": torch.tensor([[0, 1], [1, 0]]).to(dtype)}
    torch.save(tensors, tmp_path / "w.pt")
    assert same(read_checkpoint(tmp_path / "w.pt"), tensors)


def test_views_parameters_scalars_and_empty_tensors(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    tensors = {
        "transposed": base.view(3, 4).t(),
        "slice": base[5:9:2],
        "scalar": base[7],
        "empty": torch.empty(0, 3),
        "parameter": nn.Parameter(torch.ones(2)),
    }
    torch.save(tensors, tmp_path / "w.pt")
    found = read_checkpoint(tmp_path / "w.pt")
    assert same(found, tensors)
    assert found["slice"].untyped_storage().data_ptr() == found["scalar"].untyped_storage().data_ptr()
    found["slice"].add_(1)  # the memory is ours to write to


def test_safetensors_under_any_suffix(tmp_path: Path) -> None:
    tensors = dict(network().state_dict())
    safetensors.torch.save_file(tensors, tmp_path / "w.pth")
    assert same(read_checkpoint(tmp_path / "w.pth"), dict(sorted(tensors.items())))


def test_zip_under_the_safetensors_suffix(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "w.safetensors")
    assert same(read_checkpoint(tmp_path / "w.safetensors"), dict(network().state_dict()))


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_nested_with_training_state_around_it(tmp_path: Path, key: str) -> None:
    module = network()
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.zeros(2, 1, 4, 4)).sum().backward()
    optimizer.step()
    around = {"epoch": 3, "acc": 93.5, "best": True, "arch": "net", "history": [1, 2.0, None], "shape": torch.Size([1])}
    around |= {"optimizer": optimizer.state_dict(), "dtype": torch.float32, "device": torch.device("cpu"), "big": 2**40}
    torch.save(around | {key: module.state_dict()}, tmp_path / "w.pt")
    assert same(read_checkpoint(tmp_path / "w.pt"), dict(module.state_dict()))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_common_prefix_is_dropped(tmp_path: Path, prefix: str, kind: str) -> None:
    tensors = {f"{prefix}{name}": tensor for name, tensor in network().state_dict().items()}
    (torch.save if kind == "pt" else safetensors.torch.save_file)(tensors, tmp_path / "w")
    assert set(read_checkpoint(tmp_path / "w")) == set(network().state_dict())


def test_a_nested_state_dict_counts_beside_tensors(tmp_path: Path) -> None:
    torch.save({"best": torch.tensor(0.9), "model": network().state_dict()}, tmp_path / "w.pt")
    assert same(read_checkpoint(tmp_path / "w.pt"), dict(network().state_dict()))


def test_prefix_of_some_names_only_is_kept(tmp_path: Path) -> None:
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "w.pt")
    assert list(read_checkpoint(tmp_path / "w.pt")) == ["module.a", "b"]


def test_nan_weights_are_read(tmp_path: Path) -> None:
    torch.save({"a": torch.tensor([float("nan"), float("inf")])}, tmp_path / "w.pt")
    assert read_checkpoint(tmp_path / "w.pt")["a"].isnan().tolist() == [True, False]


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "absent.pt")
    assert "not a file" in refused(tmp_path)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "w.pt").touch()
    monkeypatch.setattr(Path, "open", denied)
    assert "cannot be read (Permission denied)" in refused(tmp_path / "w.pt")


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"<html>", b"\xff" * 600])
@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_other_content(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert "expected safetensors or a PyTorch state_dict" in refused(tmp_path / name)


@pytest.mark.parametrize("kind", ["pickle", "torch", "tar"])
def test_legacy_formats_get_an_advice(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "w.pt"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"a": 1}))
    elif kind == "torch":
        torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=False)
    else:
        with tarfile.open(path, "w") as archive:
            archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    assert "re-save it as safetensors" in refused(path)


@pytest.mark.parametrize(
    ("saved", "told"),
    [
        (torch.ones(2), "holds one tensor"),
        ([torch.ones(2)], "holds no mapping"),
        ({}, "holds no tensors"),
        ({"state_dict": {}}, "holds no tensors"),
        ({"a": 1, "b": "text"}, "no tensors by name"),
        ({"a": torch.ones(2), "b": 1}, "'b' is int"),
        ({"a": torch.ones(2), 7: torch.ones(1)}, "'7'"),
        ({"net": {"a": torch.ones(2), "b": torch.Size([1])}}, "'b' is something else"),
        ({"state_dict": OrderedDict(a=[torch.ones(2)])}, "'a' is list"),
    ],
)
def test_not_a_state_dict(tmp_path: Path, saved: object, told: str) -> None:
    torch.save(saved, tmp_path / "w.pt")
    assert told in refused(tmp_path / "w.pt")


def test_pickled_module_is_refused_with_an_advice(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "w.pt")
    message = refused(tmp_path / "w.pt")
    assert "'torch.nn.modules.container.Sequential'" in message
    assert "save model.state_dict()" in message


def test_torchscript_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        for name in ("m/data.pkl", "m/code/__torch__.py", "m/constants.pkl"):
            archive.writestr(name, b"")
    assert "TorchScript" in refused(tmp_path / "w.pt")


def test_other_zip(tmp_path: Path) -> None:
    with (tmp_path / "w.pt").open("wb") as stream:
        np.savez(stream, a=np.ones(2))
    assert "not a PyTorch checkpoint" in refused(tmp_path / "w.pt")
