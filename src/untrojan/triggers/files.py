"""The trigger file (``interface.md``: format untrojan-trigger-1)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from untrojan.errors import CheckpointError, ShapeError, UsageError
from untrojan.setting import Setting
from untrojan.storage import pack_safetensors, read_safetensors, write_bytes
from untrojan.triggers.additive import AdditiveTrigger
from untrojan.triggers.base import Trigger
from untrojan.triggers.blend import BlendTrigger
from untrojan.triggers.generator import InputAwareTrigger, WassersteinTrigger
from untrojan.triggers.patch import PatchTrigger
from untrojan.triggers.warp import WarpTrigger

FORMAT = "untrojan-trigger-1"

TRIGGER_KINDS: dict[str, type[Trigger]] = {
    kind.kind: kind
    for kind in (PatchTrigger, AdditiveTrigger, BlendTrigger, WarpTrigger, InputAwareTrigger, WassersteinTrigger)
}


def trigger_from_tensors(kind: str, tensors: Mapping[str, Tensor], where: str) -> Trigger:
    """Build a trigger of a registered kind; raises CheckpointError, naming ``where``, if the tensors do not fit it."""
    if kind not in TRIGGER_KINDS:
        raise CheckpointError(f"{where}: trigger kind {kind[:80]!r} is not one of {', '.join(TRIGGER_KINDS)}")
    try:
        return TRIGGER_KINDS[kind](**tensors)
    except TypeError:
        raise CheckpointError(f"{where}: not a valid {kind} trigger: it has too few or too many tensors") from None
    except ShapeError as error:
        raise CheckpointError(f"{where}: not a valid {kind} trigger: {error}") from None


def save_trigger(path: str | Path, trigger: Trigger, setting: Setting) -> None:
    """Write a trigger file (``interface.md``: format untrojan-trigger-1), all of it or nothing."""
    # A copy of each: the file format has no tensors that share memory, such as a mask that is its own pattern.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in trigger.tensors().items()}
    metadata = {"format": FORMAT, "kind": trigger.kind, "setting": str(setting)}
    write_bytes(path, pack_safetensors(tensors, metadata))


def load_trigger(path: str | Path) -> tuple[Trigger, Setting]:
    """Read a trigger file; raises CheckpointError if it is not one."""
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a trigger file, its metadata has no format '{FORMAT}'")
    try:
        setting = Setting.parse(metadata.get("setting", ""))
    except UsageError as error:
        raise CheckpointError(f"{path}: not a valid trigger file: {error}") from None
    return trigger_from_tensors(metadata.get("kind", ""), tensors, str(path)), setting
