"""Files: whole or not at all, and safetensors checked before anything is allocated."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from untrojan.errors import CheckpointError, OutputError


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or nothing: a temporary file beside it, then a rename.

    Raises OutputError (no permission, disk full, ...); nothing half-written stays behind.
    """
    path = Path(path)
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another --out"
        ) from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def pack_safetensors(tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """A safetensors file, the same bytes for the same content: the library writes metadata in a random order."""
    content = safetensors.torch.save(tensors, metadata=metadata)
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    ordered += b" " * (-len(ordered) % 8)
    return len(ordered).to_bytes(8, "little") + ordered + content[8 + length :]


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    The library checks header and offsets against the file's size before it allocates; every way in which a file can
    be wrong is one CheckpointError.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file" if not path.exists() else f"{path}: not a file")
        with safetensors.safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            return tensors, dict(file.metadata() or {})
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError, MemoryError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({_first_line(error)})") from None


def tensors_sha256(tensors: Mapping[str, Tensor], more: str = "") -> str:
    """A hash of tensors with their names, types and shapes, and of a text; it depends on no file format or device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        raw = tensor.detach().cpu().contiguous().flatten()
        digest.update(raw.view(torch.uint8).numpy().tobytes() if raw.numel() else b"")
    digest.update(more.encode())
    return digest.hexdigest()


def require_written_together(tensors: Mapping[str, Tensor], wanted: str | None, path: Path, said_by: str) -> None:
    """Raise CheckpointError if these are not the tensors whose hash another file says, if it says any.

    Two files cannot take the place of earlier ones in one moment: a program killed in between leaves one of each.
    """
    if wanted is not None and tensors_sha256(tensors) != wanted:
        raise CheckpointError(
            f"{path} was not written together with {said_by}, maybe because a run was killed just then; make both anew"
        )


def read_text(path: str | Path, most: int = 64 * 2**20) -> str:
    """A UTF-8 text file of at most ``most`` bytes; raises CheckpointError."""
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path}: cannot be read (not a file)")
        if path.stat().st_size > most:
            raise CheckpointError(f"{path}: larger than {most // 2**20} MiB, this is not a file that untrojan wrote")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise CheckpointError(f"{path}: not a text file") from None


def all_finite(tensors: dict[str, Tensor]) -> bool:
    """Whether no floating-point tensor holds a NaN or an infinity."""
    floats = (t for t in tensors.values() if t.is_floating_point())
    # PyTorch does not compare numbers of 8 bits.
    return all(bool(torch.isfinite(t.float() if t.itemsize == 1 else t).all()) for t in floats)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
