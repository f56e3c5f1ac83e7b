"""Classifiers of timm, torchvision and transformers, by their name there. The packages are optional extras.

Networks are made with random weights, offline; the trained ones come from the user's file like any other's.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from untrojan.errors import MissingExtraError, UsageError


def timm_model(name: str, **arguments: Any) -> nn.Module:
    """``timm:NAME?num_classes=10``: ``timm.create_model(NAME, ...)``."""
    timm = _package("timm")
    if not timm.is_model(name):
        raise UsageError(f"timm has no model '{name}'; timm.list_models() names them")
    module: nn.Module = timm.create_model(name, **{**arguments, "pretrained": False})
    return module


def torchvision_model(name: str, **arguments: Any) -> nn.Module:
    """``torchvision:NAME?num_classes=10``: ``torchvision.models.get_model(NAME, ...)``."""
    models = _package("torchvision.models")
    if name not in models.list_models(module=models):
        raise UsageError(f"torchvision has no classifier '{name}'; torchvision.models.list_models() names them")
    module: nn.Module = models.get_model(name, **{**arguments, "weights": None})
    return module


def transformers_model(folder: str) -> nn.Module:
    """``transformers:FOLDER``: the image classifier whose ``config.json`` lies in FOLDER, answering with its logits.

    No code from the folder is run. Weights are its ``model.safetensors``, given with ``--weights``.
    """
    transformers = _package("transformers")
    if not (Path(folder) / "config.json").is_file():
        raise UsageError(f"transformers:{folder}: expected a folder with the model's config.json")
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    module: nn.Module = transformers.AutoModelForImageClassification.from_config(config, trust_remote_code=False)
    # A hook and not a wrapper: the weights keep the names that they have in the user's file.
    module.register_forward_hook(lambda _module, _inputs, output: output.logits)
    return module


ADAPTERS: dict[str, Callable[..., nn.Module]] = {
    "timm": timm_model,
    "torchvision": torchvision_model,
    "transformers": transformers_model,
}


def _package(name: str) -> ModuleType:
    top = name.partition(".")[0]
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == top:
            raise MissingExtraError(f'this model needs the package {top}; pip install "untrojan[{top}]"') from None
        raise
