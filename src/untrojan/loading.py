"""Classifiers and victims from files, with the built-in architectures at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from untrojan.classifier import Classifier, load_victim_folder
from untrojan.classifier import load_classifier as load_with
from untrojan.victims import ARCHITECTURES


def load_classifier(
    model: str,
    weights: str | Path | None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_shape: tuple[int, int, int] | None = None,
    class_names: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
) -> Classifier:
    """A classifier from a factory and a file of weights, as ``--model`` and ``--weights`` name it.

    model: ``file.py:callable`` or ``package.module:callable``, whose code runs, or a built-in such as
    ``resnet18?width=16&classes=10``. weights: safetensors or a plain state_dict, read without running code; None keeps
    what the factory made. mean, std: per channel, of inputs in [0, 1]. device: ``auto``, ``cpu`` or ``cuda:N``.
    Raises UsageError, CheckpointError, UnsupportedError or UntrojanError.
    """
    return load_with(
        model=model,
        weights=weights,
        mean=mean,
        std=std,
        input_shape=input_shape,
        class_names=class_names,
        device=device,
        builtins=ARCHITECTURES,
    )


def load_victim(folder: str | Path, *, device: str | torch.device = "cpu") -> Classifier:
    """The victim in a folder with ``victim.json``; raises CheckpointError, UnsupportedError or UsageError."""
    return load_victim_folder(folder, device=device, builtins=ARCHITECTURES)
