"""What a scan has finished so far, on disk, so that one that was killed goes on from there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from untrojan.detection.inversion import Inversion
from untrojan.errors import CheckpointError, ShapeError, UsageError
from untrojan.storage import pack_safetensors, read_safetensors, write_bytes
from untrojan.triggers import trigger_from_tensors
from untrojan.version import version

FOLDER = "scan-state"
FORMAT = "untrojan-scan-state-1"
SHARE = re.compile(r"[a-z0-9-]+\.safetensors|\.[a-z0-9-]+\.safetensors\.[a-z0-9_]{8}")
"""Names of its files: a share, and what a killed process left of writing one (see ``write_bytes``)."""


def scan_key(victim_sha256: str, image_hashes: Sequence[str], labels: Tensor, seed: int, settings: object) -> str:
    """A hash of everything that the shares of a scan depend on."""
    digest = hashlib.sha256(f"{FORMAT} {version()} {victim_sha256} {seed} {settings!r}".encode())
    digest.update(" ".join(image_hashes).encode())
    digest.update(labels.cpu().numpy().tobytes())
    return digest.hexdigest()


class ScanState:
    """A ``Store`` in the folder ``scan-state`` of ``out``; files that cannot be read count as not there.

    Raises UsageError if ``resume`` is set and what lies there belongs to another scan; without it that is removed.
    """

    def __init__(self, out: str | Path, key: str, *, resume: bool):
        self.folder, self.key = Path(out) / FOLDER, key
        self.resumed = resume and self.folder.is_dir()
        if not resume:
            self.remove()
        elif any(self._key_of(path) not in (key, None) for path in self._shares()):
            raise UsageError(
                f"the interrupted scan in {out} is of another classifier, of other images, or made with another seed "
                "or version; leave out --resume to begin anew"
            )

    def load(self, name: str) -> list[Inversion] | None:
        """The inversions of a share, or None."""
        try:
            tensors, metadata = read_safetensors(self._path(name))
            if metadata.get("key") != self.key:
                return None
            rows = json.loads(metadata["found"])
            return [_inversion(row, f"{number}/", tensors) for number, row in enumerate(rows)]
        except (CheckpointError, ShapeError, KeyError, TypeError, ValueError):
            return None

    def save(self, name: str, found: Sequence[Inversion]) -> None:
        """Write a share, whole or not at all. Raises OutputError."""
        tensors: dict[str, Tensor] = {}
        rows: list[dict[str, Any]] = []
        for number, inversion in enumerate(found):
            trigger = inversion.trigger
            kind = None if trigger is None else trigger.kind
            rows.append({"kind": kind, "size": inversion.size, "success": inversion.success, "steps": inversion.steps})
            for key, tensor in (trigger.tensors() if trigger is not None else {}).items():
                tensors[f"{number}/{key}"] = tensor.cpu().contiguous().clone()
        metadata = {"format": FORMAT, "key": self.key, "found": json.dumps(rows)}
        write_bytes(self._path(name), pack_safetensors(tensors, metadata))

    def remove(self) -> None:
        """Remove the shares, and the folder if nobody else keeps anything in it."""
        with contextlib.suppress(OSError):
            for path in list(self.folder.iterdir()):
                if SHARE.fullmatch(path.name):
                    path.unlink(missing_ok=True)
            self.folder.rmdir()

    def _path(self, name: str) -> Path:
        return self.folder / (re.sub(r"[^a-z0-9-]+", "-", name.lower()) + ".safetensors")

    def _shares(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))

    def _key_of(self, path: Path) -> str | None:
        with contextlib.suppress(CheckpointError):
            return read_safetensors(path)[1].get("key")
        return None


def _inversion(row: Mapping[str, Any], prefix: str, tensors: Mapping[str, Tensor]) -> Inversion:
    trigger = None
    if row["kind"] is not None:
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        trigger = trigger_from_tensors(row["kind"], own, "a share of a scan")
    size = None if row["size"] is None else float(row["size"])
    return Inversion(trigger, size, float(row["success"]), int(row["steps"]))
