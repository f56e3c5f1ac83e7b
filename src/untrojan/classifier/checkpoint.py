"""Weights from a file, without executing anything in it and without allocating more than the file holds."""

from __future__ import annotations

import struct
import sys
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from untrojan.classifier.outline import Ignored, Name, StorageOutline, TensorOutline, outline, quoted
from untrojan.errors import CheckpointError, UnsupportedError
from untrojan.storage import read_safetensors

NESTED = ("state_dict", "model_state_dict", "model", "net")
PREFIXES = ("module.", "_orig_mod.")
MAX_PICKLE = 8 * 2**20
RESAVE = "re-save it as safetensors, or with a current torch.save(model.state_dict(), ...)"


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, as stored (dtype included), from safetensors or from a PyTorch state_dict file.

    The content decides which of the two it is, not the suffix. A state_dict may be nested under ``state_dict``,
    ``model_state_dict``, ``model`` or ``net``; a prefix that all names share because of ``DataParallel`` or
    ``torch.compile`` is dropped. Code in a pickle is never run: the pickle is read as data (see ``outline``) and the
    tensors are made from the archive's records directly, so that no second reader can see another file than the one
    that was checked. Raises CheckpointError, one line, for everything that is wrong with the file.
    """
    path = Path(path)
    try:
        tensors = _read(path)
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error})") from None
    except Exception as error:
        # zipfile, pickletools and torch fail on damaged bytes in a dozen ways, none of them of interest to a user.
        text = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{path}: damaged or truncated ({type(error).__name__}: {text}); get it again") from None
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors; expected the weights of a network by their names")
    return _without_prefix(tensors)


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Copy the tensors into the module's parameters and buffers; names and shapes must match exactly.

    Floating-point tensors of any precision become that of the module. ``num_batches_tracked`` may be missing. NaN and
    infinite weights are loaded as they are. ``where`` names the file in messages. Raises CheckpointError if anything
    does not match, in which case the module is unchanged.
    """
    tensors = _matched(module, tensors, where)
    try:
        module.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        text = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{where}: the model refuses these weights ({text}); check --model") from None


def check_weights(module: nn.Module, tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Raise CheckpointError if ``load_weights`` would; the module may be on the meta device."""
    _matched(module, tensors, where)


def _matched(module: nn.Module, tensors: Mapping[str, Tensor], where: str | Path) -> dict[str, Tensor]:
    if any(is_lazy(parameter) for parameter in module.parameters()):
        raise UnsupportedError("the model has lazy layers without a shape; give them their sizes in the factory")
    wanted = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    prefix = _prefix(wanted)  # of a model that is wrapped itself: ``read_checkpoint`` took it off the file's names
    if prefix and not any(name.startswith(prefix) for name in tensors):
        tensors = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    missing = [n for n in wanted if n not in tensors and not n.endswith("num_batches_tracked")]
    unexpected = [n for n in tensors if n not in wanted]
    shared = {n: (tensors[n], wanted[n]) for n in wanted if n in tensors}
    misshapen = [
        f"{n} (model {_form(w)}, file {_form(t)})"
        for n, (t, w) in shared.items()
        if t.shape != w.shape or not _convertible(n, t, w)
    ]
    problems = [("missing", [quoted(n) for n in missing]), ("unexpected", [quoted(n) for n in unexpected])]
    problems.append(("of another shape or type", misshapen))
    if any(names for _, names in problems):
        told = "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in problems if names)
        raise CheckpointError(f"{where}: the weights do not fit the model, {told}; other --model factory or arguments?")
    return {name: tensor for name, (tensor, _) in shared.items()}


def _prefix(names: Collection[str]) -> str:
    """What wrappers (``PREFIXES``) have put before all of these names."""
    found = ""
    while names and (more := next((p for p in PREFIXES if all(n.startswith(found + p) for n in names)), None)):
        found += more
    return found


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file" if not path.exists() else f"{path}: not a file, expected weights")
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(512)
    if head[:4] == b"PK\x03\x04":
        try:
            return _read_archive(path, size)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
    if head[8:9] == b"{":
        (length,) = struct.unpack("<Q", head[:8])
        if length > size - 8:
            raise CheckpointError(
                f"{path}: not safetensors, or truncated: a header of {length} bytes, a file of {size}"
            )
        return read_safetensors(path)[0]
    if head[:1] == b"\x80" or head[257:262] == b"ustar":
        raise CheckpointError(f"{path}: a legacy PyTorch file, which cannot be read without running code; {RESAVE}")
    came = "an empty file" if not size else "something else (text, HTML, a download pointer?)"
    raise CheckpointError(f"{path}: expected safetensors or a PyTorch state_dict (zip), got {came}")


def _read_archive(path: Path, size: int) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # zipfile only warns of some oddities
        with zipfile.ZipFile(path) as archive:
            sizes = _record_sizes(archive, size)
            root = _root(sizes)
            if sizes[f"{root}/data.pkl"] > MAX_PICKLE:
                raise CheckpointError(f"its data.pkl is larger than {MAX_PICKLE} bytes, no plain state_dict; {RESAVE}")
            if f"{root}/byteorder" in sizes and archive.read(f"{root}/byteorder").decode() != sys.byteorder:
                raise CheckpointError(f"it has another byte order than this machine; {RESAVE}")
            outlines = _state_dict(outline(archive.read(f"{root}/data.pkl")))
            return dict(_tensors(archive, root, sizes, outlines))


def _record_sizes(archive: zipfile.ZipFile, size: int) -> dict[str, int]:
    """Size of each record by name, after the checks that exclude decompression and overlap bombs."""
    sizes: dict[str, int] = {}
    for entry in archive.infolist():
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise CheckpointError(f"its record {quoted(entry.filename)} is compressed, PyTorch's never are; {RESAVE}")
        if entry.flag_bits & 0x1:
            raise CheckpointError(f"its record {quoted(entry.filename)} is encrypted; {RESAVE}")
        if entry.filename in sizes:
            raise CheckpointError(f"it holds two records called {quoted(entry.filename)}; {RESAVE}")
        sizes[entry.filename] = entry.file_size
    if sum(sizes.values()) > size:
        raise CheckpointError(f"its records claim {sum(sizes.values())} bytes, the file has {size}; {RESAVE}")
    return sizes


def _root(sizes: Mapping[str, int]) -> str:
    roots = [name.removesuffix("/data.pkl") for name in sizes if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise CheckpointError("a zip archive without one data.pkl, not a PyTorch checkpoint")
    if any(name.startswith(f"{roots[0]}/code/") or name == f"{roots[0]}/constants.pkl" for name in sizes):
        raise CheckpointError(
            "a TorchScript archive or exported program, which holds code; save its state_dict() instead"
        )
    return roots[0]


def _state_dict(found: object) -> dict[str, TensorOutline]:
    """The mapping from names to tensors, at the top or one level down."""
    if not isinstance(found, dict):
        kind = "one tensor" if isinstance(found, TensorOutline) else "no mapping"
        raise CheckpointError(f"it holds {kind}, expected a state_dict: names and tensors")
    nested = next((found[key] for key in NESTED if isinstance(found.get(key), dict)), None)
    if nested is not None or not any(isinstance(value, TensorOutline) for value in found.values()):
        if nested is None and found:
            raise CheckpointError(
                f"it holds no tensors by name; expected a state_dict, or one under {', '.join(NESTED)}"
            )
        found = nested or {}
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, TensorOutline):
            kind = "something else" if isinstance(value, Name | Ignored) else type(value).__name__
            raise CheckpointError(
                f"its entry {quoted(str(name))} is {kind}, expected a tensor; save model.state_dict()"
            )
    return found


def _tensors(
    archive: zipfile.ZipFile, root: str, sizes: Mapping[str, int], outlines: Mapping[str, TensorOutline]
) -> Iterator[tuple[str, Tensor]]:
    """Views of the storages; each record is read once, however many tensors refer to it."""
    for storage in dict.fromkeys(tensor.storage for tensor in outlines.values()):
        record = sizes.get(f"{root}/data/{storage.key}")
        if record != storage.nbytes:
            have = "is missing" if record is None else f"has {record} bytes"
            raise CheckpointError(f"it claims a storage of {storage.nbytes} bytes whose record {have}")
    buffers: dict[str, bytearray] = {}
    for name, tensor in outlines.items():
        key = tensor.storage.key
        if key not in buffers:
            buffers[key] = bytearray(archive.read(f"{root}/data/{key}"))
        yield name, _view(tensor, tensor.storage, buffers[key])


def _view(tensor: TensorOutline, storage: StorageOutline, buffer: bytearray) -> Tensor:
    if 0 in tensor.size:
        return torch.empty(tensor.size, dtype=storage.dtype)
    return torch.frombuffer(buffer, dtype=storage.dtype).as_strided(tensor.size, tensor.stride, tensor.offset)


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES * 2:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _convertible(name: str, tensor: Tensor, wanted: Tensor) -> bool:
    if name.endswith("num_batches_tracked"):
        return not tensor.is_complex()
    return tensor.is_floating_point() == wanted.is_floating_point() and tensor.is_complex() == wanted.is_complex()


def _form(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
