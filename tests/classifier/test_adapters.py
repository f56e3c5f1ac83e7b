"""Classifiers of other packages, with random weights, offline; skipped where a package is absent or does not import."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from untrojan.classifier import as_found, load_classifier
from untrojan.classifier.classifier import Classifier
from untrojan.classifier.corrected import CorrectedClassifier
from untrojan.classifier.sites import batch_norms, find_sites
from untrojan.detection.inversion import Budget, Problem, invert
from untrojan.detection.patch import PatchFamily
from untrojan.errors import MissingExtraError, UsageError
from untrojan.loading import load_classifier as load_by_name


def importable(package: str) -> bool:
    try:
        __import__(package)
    except Exception:
        return False
    return True


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not importable(package), reason=f"{package} is absent, or does not import beside torch")


def works(classifier: Classifier, tmp_path: Path, spec: str, classes: int, size: int) -> None:
    """It answers, its weights make the round trip through a file, and a trigger can be inverted on it."""
    images = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    logits = classifier.predict(images)
    assert logits.shape == (4, classes)
    save_file({k: v.contiguous() for k, v in classifier.module.state_dict().items()}, tmp_path / "weights.safetensors")
    again = load_by_name(spec, tmp_path / "weights.safetensors")
    assert again.sha256() == classifier.sha256()
    assert torch.allclose(again.predict(images), logits, atol=1e-4)
    with as_found(again):
        (found,) = invert(
            again,
            PatchFamily(),
            [Problem(images, 1)],
            Budget(steps=2, images=4, level=0.0),
            generator=torch.Generator().manual_seed(0),
        )
    assert found.trigger is not None


@needs("transformers")
def test_transformers(tmp_path: Path) -> None:
    from transformers import ResNetConfig

    folder = tmp_path / "model"
    ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5
    ).save_pretrained(folder)
    spec = f"transformers:{folder}"
    classifier = load_classifier(model=spec, weights=None, builtins={})
    works(classifier, tmp_path, spec, 5, 32)
    assert batch_norms(classifier.module)
    with pytest.raises(UsageError, match=r"config\.json"):
        load_classifier(model=f"transformers:{tmp_path}/none", weights=None, builtins={})


@needs("transformers")
def test_a_vision_transformer_of_transformers_can_be_corrected(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        image_size=16,
        patch_size=8,
        num_labels=5,
        architectures=["ViTForImageClassification"],
    )
    ViTForImageClassification(config).save_pretrained(tmp_path)
    classifier = load_classifier(model=f"transformers:{tmp_path}", weights=None, builtins={})
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    layers = find_sites(classifier, images)
    kinds = [type(layer).__name__ for layer in layers.values()]
    assert kinds == ["Conv2d", "LayerNorm", *["Linear"] * 4, "LayerNorm", "Linear", "LayerNorm"]
    corrected = CorrectedClassifier(classifier, 2, layers)
    with torch.no_grad():
        assert torch.allclose(corrected(images, torch.tensor([0, 1, 0])), classifier(images), atol=1e-5)


@needs("timm")
def test_timm(tmp_path: Path) -> None:
    spec = "timm:resnet10t?num_classes=5"
    works(load_classifier(model=spec, weights=None, builtins={}), tmp_path, spec, 5, 64)
    with pytest.raises(UsageError, match="timm has no model 'resnet1'"):
        load_classifier(model="timm:resnet1", weights=None, builtins={})


@needs("torchvision")
def test_torchvision(tmp_path: Path) -> None:
    spec = "torchvision:mobilenet_v3_small?num_classes=5"
    works(load_classifier(model=spec, weights=None, builtins={}), tmp_path, spec, 5, 64)
    with pytest.raises(UsageError, match="torchvision has no classifier 'resnet1'"):
        load_classifier(model="torchvision:resnet1", weights=None, builtins={})


@pytest.mark.parametrize("package", ["timm", "torchvision", "transformers"])
def test_an_absent_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf'pip install "untrojan\[{package}\]"'):
        load_classifier(model=f"{package}:thing", weights=None, builtins={})
