"""What a PyTorch pickle says it holds, found out without executing it.

Unpickling is running a program: its opcodes may import and call anything. Here the opcodes are only read, and the
few that a state_dict needs are interpreted by hand; tensors become descriptions, checked before memory is spent.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass
from typing import Any

import torch

from untrojan.errors import CheckpointError

STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
MAX_DIMENSIONS = 16
ADVICE = "nothing in it was executed; save model.state_dict() alone, as safetensors or with torch.save"


@dataclass(frozen=True)
class StorageOutline:
    """A run of ``numel`` elements of ``dtype``, kept in the archive under ``key``."""

    key: str
    dtype: torch.dtype
    numel: int

    @property
    def nbytes(self) -> int:
        """The size that its record must have."""
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True)
class TensorOutline:
    """A view of a storage that stays inside it and names no more elements than it has."""

    storage: StorageOutline
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Name:
    """A global that the pickle refers to; it is never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return quoted(f"{self.module}.{self.name}")


@dataclass(frozen=True)
class Ignored:
    """A harmless value that is of no use here, such as a device."""


def quoted(text: str, limit: int = 80) -> str:
    """Text from an untrusted file, in quotes, on one line, without control characters, at most ``limit`` long."""
    return repr(text if len(text) <= limit else f"{text[: limit - 3]}...")


def outline(pickled: bytes) -> Any:
    """The object that a pickle describes: dicts, lists, tuples, numbers, strings, TensorOutline, Name and Ignored.

    Raises CheckpointError for every global or opcode that a plain state_dict does not need, and for every tensor that
    does not fit its storage. On damaged streams it may raise whatever ``pickletools.genops`` does.
    """
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "STOP":
            return machine.result()
        machine.step(opcode.name, argument)
    raise CheckpointError("its pickle has no end")


class _Machine:
    """The stack and memo of the pickle virtual machine, for the opcodes that state_dicts are made of."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self.marks.append(len(self.stack))
            case "NONE":
                self.stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                self.stack.append(name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                self.stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8" | "BINBYTES" | "SHORT_BINBYTES":
                self.stack.append(argument)
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.top()
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.top()
            case "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[argument])
            case "EMPTY_TUPLE":
                self.stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.stack.append(tuple(reversed([self.pop() for _ in range(int(name[-1]))])))
            case "TUPLE":
                self.stack.append(tuple(self.pop_to_mark()))
            case "EMPTY_LIST":
                self.stack.append([])
            case "APPEND" | "APPENDS":
                items = [self.pop()] if name == "APPEND" else self.pop_to_mark()
                self.top(list).extend(items)
            case "EMPTY_DICT":
                self.stack.append({})
            case "SETITEM" | "SETITEMS":
                items = [self.pop(), self.pop()][::-1] if name == "SETITEM" else self.pop_to_mark()
                self.set_items(items)
            case "GLOBAL":
                self.stack.append(_allowed(Name(*argument.split(" ", 1))))
            case "STACK_GLOBAL":
                attribute, module = self.pop(), self.pop()
                self.stack.append(_allowed(Name(str(module), str(attribute))))
            case "BINPERSID":
                self.stack.append(_storage(self.pop()))
            case "REDUCE":
                arguments, function = self.pop(), self.pop()
                self.stack.append(_call(function, arguments))
            case "BUILD":
                # An OrderedDict's attributes, such as the _metadata of a state_dict: not needed.
                self.pop()
                self.top(dict)
            case _:
                raise CheckpointError(f"its pickle uses {name}, which a plain state_dict does not need; {ADVICE}")

    def top(self, kind: type = object) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0) or not isinstance(self.stack[-1], kind):
            raise CheckpointError(f"its pickle is malformed: expected a {kind.__name__} on the stack")
        return self.stack[-1]

    def pop(self) -> Any:
        self.top()
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        if not self.marks:
            raise CheckpointError("its pickle is malformed: a mark is missing")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def set_items(self, items: list[Any]) -> None:
        target = self.top(dict)
        keys, values = items[::2], items[1::2]
        # Tuples are refused as keys: hashing nested shared ones takes exponential time.
        if len(keys) != len(values) or not all(isinstance(key, str | int | float | bytes | None) for key in keys):
            raise CheckpointError("its pickle holds a dict whose keys are neither text nor numbers")
        target.update(zip(keys, values, strict=True))

    def result(self) -> Any:
        if len(self.stack) != 1 or self.marks:
            raise CheckpointError("its pickle is malformed: it does not end with one object")
        return self.stack[0]


def _allowed(name: Name) -> Name:
    known = (
        (name.module == "collections" and name.name == "OrderedDict")
        or (name.module == "torch._utils" and name.name in ("_rebuild_tensor_v2", "_rebuild_parameter"))
        or (name.module == "torch" and (name.name in STORAGES or name.name in ("Size", "device")))
        or (name.module == "torch" and isinstance(getattr(torch, name.name, None), torch.dtype))
    )
    if not known:
        raise CheckpointError(f"it refers to {name}, code that would have to be run to read it; {ADVICE}")
    return name


def _call(function: Any, arguments: Any) -> Any:
    if not isinstance(function, Name) or not isinstance(arguments, tuple):
        raise CheckpointError("its pickle is malformed: it calls what is not a function")
    match function.name:
        case "OrderedDict" if not arguments:
            return {}
        case "_rebuild_tensor_v2" if len(arguments) in (6, 7):
            return _tensor(*arguments[:4])
        case "_rebuild_parameter" if len(arguments) == 3 and isinstance(arguments[0], TensorOutline):
            return arguments[0]
        case "Size" | "device":
            return Ignored()
    raise CheckpointError(f"its pickle calls {function} in a way that PyTorch does not; {ADVICE}")


def _storage(reference: Any) -> StorageOutline:
    match reference:
        case ("storage", Name(module="torch", name=kind), str(key), str(), numel) if kind in STORAGES:
            if _is_count(numel):
                return StorageOutline(key, STORAGES[kind], numel)
    raise CheckpointError("its pickle is malformed: a reference to a storage is not one of PyTorch's")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any) -> TensorOutline:
    if not (isinstance(storage, StorageOutline) and isinstance(size, tuple) and isinstance(stride, tuple)):
        raise CheckpointError("its pickle is malformed: a tensor without storage, size or stride")
    if not all(_is_count(value) for value in (offset, *size, *stride)) or len(size) != len(stride):
        raise CheckpointError("it holds a tensor whose offset, size or stride is not made of non-negative integers")
    if len(size) > MAX_DIMENSIONS:
        raise CheckpointError(f"it holds a tensor with {len(size)} dimensions, more than {MAX_DIMENSIONS}")
    # 64 bits each at most (see _is_count), so that products of at most 16 of them stay cheap Python integers.
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if (
        count > storage.numel
        or (count and last >= storage.numel)
        or (not count and math.prod(filter(None, size)) >> 62)
    ):
        raise CheckpointError(
            f"it holds a tensor of size {list(size)}, stride {list(stride)} and offset {offset} "
            f"over a storage of only {storage.numel} elements"
        )
    return TensorOutline(storage, offset, size, stride)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63
