"""A classifier from what the user names: a factory and its weights, or a folder with ``victim.json``."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator, model_validator
from torch import nn

from untrojan.classifier.checkpoint import check_weights, load_weights, read_checkpoint
from untrojan.classifier.classifier import Classifier
from untrojan.classifier.factory import build_module, is_builtin
from untrojan.errors import CheckpointError, UnsupportedError, UntrojanError, UsageError

Builtins = Mapping[str, Callable[..., nn.Module]]
CARD = "victim.json"
MAX_CARD = 2**20

_Side = Annotated[int, Field(gt=0, le=16384)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class VictimCard(BaseModel):
    """``victim.json``: what is needed to load a victim, and whatever else is known about it (kept, never relied on).

    ``model`` is a factory's notation, ``weights`` a file in the same folder, ``input_shape`` is (C, H, W).
    """

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True, serialize_by_alias=True)

    schema_: Literal["untrojan-victim-1"] = Field("untrojan-victim-1", alias="schema")
    model: Annotated[str, Field(max_length=500)]
    weights: Annotated[str, Field(max_length=255)]
    input_shape: tuple[_Side, _Side, _Side]
    mean: tuple[FiniteFloat, ...] | None = None
    std: tuple[_Positive, ...] | None = None
    class_names: tuple[str, ...] | None = None

    @field_validator("weights")
    @classmethod
    def _inside(cls, name: str) -> str:
        if name in ("", ".", "..") or any(separator in name for separator in "/\\:"):
            raise ValueError("expected the name of a file in the same folder, without a path")
        return name

    @model_validator(mode="after")
    def _consistent(self) -> VictimCard:
        # These reach terminals and reports: no escape sequences from a downloaded file.
        if not (
            self.model.isprintable() and self.weights.isprintable() and all(map(printable, self.class_names or ()))
        ):
            raise ValueError("model, weights and class_names must consist of printable characters")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) not in (1, self.input_shape[0]):
                raise ValueError(f"{name} has {len(values)} values for {self.input_shape[0]} channels")
        return self


def printable(name: str) -> bool:
    r"""Whether a class may be called so: no control characters, but spaces of any width and what joins letters or keeps
    them apart, which Persian, Indian scripts and emoji need.

    >>> printable("New\u00a0York"), printable("a\u001b[2J")
    (True, False)
    """
    return all(c.isprintable() or c in "\u200c\u200d" or unicodedata.category(c) == "Zs" for c in name)


def load_classifier(
    *,
    model: str,
    weights: str | Path | None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    input_shape: tuple[int, int, int] | None = None,
    class_names: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
    builtins: Builtins,
) -> Classifier:
    """The classifier that a factory (see ``build_module``) makes, with these weights, in evaluation mode on a device.

    weights: a file for ``read_checkpoint``; None keeps what the factory made, which a built-in cannot do, as its
    initial weights are random. The others are as for ``Classifier``. A built-in's shapes are compared with the file's
    before anything of its size is allocated, so built-ins must be constructible on torch's meta device.
    Raises UsageError, CheckpointError, UnsupportedError or UntrojanError.
    """
    device = parse_device(device) if isinstance(device, str) else device
    _check_preprocessing(mean, std, input_shape)
    if weights is None:
        if is_builtin(model):
            raise UsageError(f"model '{model}' has random weights; give the trained ones with --weights FILE")
        module = build_module(model, builtins=builtins)
    else:
        tensors = read_checkpoint(weights)
        if is_builtin(model):
            with torch.device("meta"):
                check_weights(build_module(model, builtins=builtins), tensors, weights)
        module = build_module(model, builtins=builtins)
        load_weights(module, tensors, weights)
    try:
        module = module.float().to(device)  # images come as float32, whatever the weights are stored as
    except RuntimeError as error:
        text = " ".join(str(error).split())[:200]
        raise UntrojanError(f"the model cannot be moved to {device} ({text}); try --device cpu") from None
    module.eval()
    return Classifier(module, mean=mean, std=std, class_names=class_names, input_shape=input_shape)


def load_victim_folder(path: str | Path, *, device: str | torch.device, builtins: Builtins) -> Classifier:
    """The victim in a folder with ``victim.json``; only built-in models, as a folder from elsewhere must not run code.

    Raises CheckpointError (card or weights missing or malformed), UnsupportedError (model) or UsageError (device).
    """
    folder = Path(path)
    card = read_card(folder)
    name = card.model.partition("?")[0]
    if not is_builtin(card.model) or name not in builtins:
        raise UnsupportedError(
            f"{folder / CARD}: the model {name[:80]!r} is not built in ({', '.join(sorted(builtins))}), "
            "and a folder may not bring code; if you trust its code, give --model FACTORY --weights FILE"
        )
    device = parse_device(device) if isinstance(device, str) else device
    try:
        return load_classifier(
            model=card.model,
            weights=folder / card.weights,
            mean=card.mean,
            std=card.std,
            input_shape=card.input_shape,
            class_names=card.class_names,
            device=device,
            builtins=builtins,
        )
    except UsageError as error:
        raise CheckpointError(f"{folder / CARD}: {error}") from None


def read_card(folder: str | Path) -> VictimCard:
    """The card in a victim's folder; raises CheckpointError if it is missing or malformed."""
    path = Path(folder) / CARD
    try:
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file; a victim's folder holds {CARD} and its weights")
        if path.stat().st_size > MAX_CARD:
            raise CheckpointError(f"{path}: larger than {MAX_CARD} bytes, not a victim's card")
        return VictimCard.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        text = " ".join(first["msg"].split())[:200]
        raise CheckpointError(f"{path}: not a victim's card ({f'{field}: ' if field else ''}{text})") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None


def parse_device(text: str) -> torch.device:
    """``auto`` (CUDA if there is one), ``cpu``, ``cuda`` or ``cuda:N``; raises UsageError if unknown or absent."""
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if text == "cpu":
        return torch.device("cpu")
    found = re.fullmatch(r"cuda(?::([0-9]{1,3}))?", text)
    if found is None:
        raise UsageError(f"device '{text}': expected auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(found[1] or 0) >= count:
        raise UsageError(f"device '{text}': there are {count} CUDA devices; use --device auto or cpu")
    return torch.device(text)


def _check_preprocessing(
    mean: Sequence[float] | None, std: Sequence[float] | None, input_shape: tuple[int, int, int] | None
) -> None:
    if input_shape is None:
        return
    if len(input_shape) != 3 or any(side <= 0 for side in input_shape):
        raise UsageError(f"input shape {input_shape}: expected CxHxW with positive numbers, such as 1x28x28")
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) not in (1, input_shape[0]):
            raise UsageError(
                f"{name} has {len(values)} values for {input_shape[0]} channels; give one for each, or one"
            )
