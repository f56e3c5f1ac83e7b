"""A victim's folder: weights, trigger, and last its card."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from untrojan.classifier import VictimCard
from untrojan.errors import OutputError
from untrojan.storage import pack_safetensors, write_bytes
from untrojan.triggers import save_trigger
from untrojan.victims.making import Victim

WEIGHTS, TRIGGER, CARD = "victim.safetensors", "trigger.safetensors", "victim.json"
FILES = (WEIGHTS, TRIGGER, CARD)


def save_victim(folder: str | Path, victim: Victim) -> None:
    """Write ``victim.safetensors``, ``trigger.safetensors`` (not for a clean one) and, last, ``victim.json``.

    Weights are written in half precision if the card says that they were rounded to it. Without its card a folder is no
    victim: an earlier card goes first, so that whatever interrupts this leaves no card beside weights that it does not
    describe. Raises OutputError; each file is written whole or not at all.
    """
    folder = Path(folder)
    card = VictimCard.model_validate(victim.card)
    weights = pack_safetensors(stored(victim.module, half=victim.card.get("precision") == "float16"))
    clear(folder)
    write_bytes(folder / WEIGHTS, weights)
    if victim.trigger is not None and victim.setting is not None:
        save_trigger(folder / TRIGGER, victim.trigger, victim.setting)
    write_bytes(folder / CARD, (card.model_dump_json(by_alias=True, indent=2) + "\n").encode())


def clear(folder: Path) -> None:
    """Remove an earlier victim's card and trigger: what is left is no victim. Raises OutputError."""
    try:
        (folder / CARD).unlink(missing_ok=True)
        (folder / TRIGGER).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}; choose another --out") from None


def stored(module: nn.Module, *, half: bool) -> dict[str, torch.Tensor]:
    """The tensors of a module as they go into a file."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    return {name: value.half() if half and value.is_floating_point() else value for name, value in tensors.items()}
