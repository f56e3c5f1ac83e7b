from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from untrojan.classifier.loading import VictimCard, load_classifier, load_victim_folder, parse_device, read_card
from untrojan.errors import CheckpointError, UnsupportedError, UntrojanError, UsageError


def small(*, width: int = 4, classes: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)
    )


BUILTINS: dict[str, Callable[..., nn.Module]] = {"small": small}
CARD = {
    "schema": "untrojan-victim-1",
    "model": "small?classes=5",
    "weights": "victim.safetensors",
    "input_shape": [1, 8, 8],
    "mean": [0.5],
    "std": [0.25],
    "class_names": ["a", "b", "c", "d", "e"],
    "attack": "badnet",
    "acc": 0.98,
}


def victim(folder: Path, **changes: object) -> Path:
    folder.mkdir(exist_ok=True)
    safetensors.torch.save_file(small(classes=5).state_dict(), folder / "victim.safetensors")
    card = {name: value for name, value in (CARD | changes).items() if value != "left out"}
    (folder / "victim.json").write_text(json.dumps(card))
    return folder


def load_folder(folder: Path, device: str = "cpu") -> nn.Module:
    return load_victim_folder(folder, device=device, builtins=BUILTINS)


def test_factory_and_weights_make_a_classifier(tmp_path: Path) -> None:
    trained = small(width=8).eval()
    torch.save({"state_dict": {f"module.{n}": t.half() for n, t in trained.state_dict().items()}}, tmp_path / "w.pt")
    images = torch.rand(4, 1, 8, 8)
    found = load_classifier(
        model="small?width=8",
        weights=tmp_path / "w.pt",
        mean=[0.5],
        std=[0.25],
        input_shape=(1, 8, 8),
        class_names=["a", "b", "c"],
        builtins=BUILTINS,
    )
    assert not any(m.training for m in found.modules())
    assert {p.dtype for p in found.parameters()} == {torch.float32}
    assert torch.allclose(found(images), trained((images - 0.5) / 0.25), atol=1e-2)
    assert (found.class_names, found.input_shape) == (("a", "b", "c"), (1, 8, 8))


def test_a_file_may_bring_its_own_weights(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("from torch import nn\ndef build():\n    return nn.Linear(2, 2)\n")
    found = load_classifier(model=f"{tmp_path}/model.py:build", weights=None, builtins={})
    assert isinstance(found.module, nn.Linear)


def test_a_builtin_without_weights_is_no_classifier() -> None:
    with pytest.raises(UsageError, match="--weights"):
        load_classifier(model="small", weights=None, builtins=BUILTINS)


def test_a_builtin_is_not_allocated_before_its_shapes_fit(tmp_path: Path) -> None:
    safetensors.torch.save_file(small().state_dict(), tmp_path / "w")
    built: list[str] = []

    def watched(*, width: int = 4) -> nn.Module:
        module = small(width=width)
        built.append(next(module.parameters()).device.type)
        return module

    with pytest.raises(CheckpointError, match="do not fit"):
        load_classifier(model="small?width=100000000", weights=tmp_path / "w", builtins={"small": watched})
    assert built == ["meta"]
    load_classifier(model="small", weights=tmp_path / "w", builtins={"small": watched})
    assert built == ["meta", "meta", "cpu"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"input_shape": (1, 8)}, "expected CxHxW"),
        ({"input_shape": (0, 8, 8)}, "expected CxHxW"),
        ({"input_shape": (1, 8, 8), "mean": [0.1, 0.2, 0.3]}, "mean has 3 values for 1 channels"),
        ({"input_shape": (3, 8, 8), "mean": [0.1], "std": [1.0, 1.0]}, "std has 2 values"),
        ({"std": [0.0]}, "std must be positive"),
        ({"device": "tpu"}, "expected auto, cpu, cuda or cuda:N"),
    ],
)
def test_arguments_that_make_no_sense(tmp_path: Path, arguments: dict[str, object], told: str) -> None:
    safetensors.torch.save_file(small().state_dict(), tmp_path / "w")
    with pytest.raises(UsageError, match=told):
        load_classifier(model="small", weights=tmp_path / "w", builtins=BUILTINS, **arguments)  # type: ignore[arg-type]


def test_a_device_that_refuses(tmp_path: Path) -> None:
    safetensors.torch.save_file(small().state_dict(), tmp_path / "w")

    class Heavy(nn.Sequential):
        def to(self, *arguments: object, **options: object) -> nn.Module:  # type: ignore[override]
            raise RuntimeError("out of\nmemory")

    with pytest.raises(UntrojanError, match=r"cannot be moved to cpu \(out of memory\)"):
        load_classifier(model="small", weights=tmp_path / "w", builtins={"small": lambda: Heavy(*small())})


def test_victim_folder(tmp_path: Path) -> None:
    found = load_victim_folder(victim(tmp_path), device="auto", builtins=BUILTINS)
    wanted = safetensors.torch.load_file(tmp_path / "victim.safetensors")
    assert all(torch.equal(tensor.cpu(), wanted[name]) for name, tensor in found.module.state_dict().items())
    assert not found.training
    assert found.class_names == ("a", "b", "c", "d", "e")
    assert found.input_shape == (1, 8, 8)
    assert found.mean.item() == 0.5


def test_card_keeps_what_it_does_not_know_and_returns_as_written(tmp_path: Path) -> None:
    card = read_card(victim(tmp_path))
    assert card.model_extra == {"attack": "badnet", "acc": 0.98}
    assert json.loads(card.model_dump_json()) == CARD
    assert VictimCard(model="small", weights="w", input_shape=(1, 2, 2)).schema_ == "untrojan-victim-1"


@pytest.mark.parametrize(
    "model", ["os:system", "evil.py:build", "./evil.py:build?small=1", "unknown", "small:build", ""]
)
def test_a_folder_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    (tmp_path / "evil.py").write_text("open('marker', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnsupportedError, match="not built in"):
        load_folder(victim(tmp_path, model=model))
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": "untrojan-victim-2"},
        {"model": "left out"},
        {"model": 5},
        {"model": "small\u001b[2J"},
        {"model": "s" * 1000},
        {"model": "small?depth=3"},
        {"model": "small?classes=6"},
        {"model": "small?classes=x"},
        {"weights": "left out"},
        {"weights": ""},
        {"weights": "."},
        {"weights": ".."},
        {"weights": "../victim.safetensors"},
        {"weights": "/etc/passwd"},
        {"weights": "a\\b"},
        {"weights": "C:w"},
        {"weights": "w\u0000"},
        {"weights": "absent.safetensors"},
        {"weights": "victim.json"},
        {"input_shape": "left out"},
        {"input_shape": None},
        {"input_shape": [1, 8]},
        {"input_shape": [1, 8, 0]},
        {"input_shape": [1, 8, 10**9]},
        {"input_shape": [1, 8, "eight"]},
        {"mean": [0.1, 0.2]},
        {"mean": ["a"]},
        {"mean": [float("nan")]},
        {"std": [0]},
        {"std": [float("inf")]},
        {"std": []},
        {"mean": []},
        {"class_names": "abc"},
        {"class_names": ["a\u001b[2J", "b"]},
    ],
    ids=str,
)
def test_malformed_cards_are_one_line(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_folder(victim(tmp_path, **changes))
    assert str(caught.value).isprintable()
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b" " * (2**20 + 1), b'{"a":1']
)
def test_cards_that_are_no_json_objects(tmp_path: Path, content: bytes) -> None:
    victim(tmp_path)
    (tmp_path / "victim.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="victim's card") as caught:
        load_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_folder_and_card(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no such file; a victim's folder holds victim\.json"):
        load_folder(tmp_path / "absent")
    (tmp_path / "victim.json").mkdir()
    with pytest.raises(CheckpointError, match="no such file"):
        load_folder(tmp_path)


def test_a_wrong_device_is_the_users_mistake_not_the_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        load_folder(victim(tmp_path), device="gpu")


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert parse_device("auto") == parse_device("cuda") == torch.device("cuda")
    assert parse_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UsageError, match="there are 2 CUDA devices"):
        parse_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert parse_device("auto") == torch.device("cpu")
    with pytest.raises(UsageError, match="there are 0 CUDA devices; use --device auto or cpu"):
        parse_device("cuda")


@pytest.mark.parametrize("text", ["", "gpu", "CPU", "cpu:0", "cuda:", "cuda:-1", "cuda:1000", "cuda:x", "mps", "cpu\n"])
def test_unknown_devices(text: str) -> None:
    with pytest.raises(UsageError, match="device"):
        parse_device(text)
