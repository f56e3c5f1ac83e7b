"""Parquet files in the Hugging Face image schema."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from untrojan.data.decoding import Picture, reason, shown
from untrojan.data.source import Source, align_labels
from untrojan.errors import DataError

MAX_ROWS = 20_000_000
_BATCH_ROWS = 64
_BATCH_BYTES = 256 * 2**20
_LABEL_BATCH_ROWS = 65_536


class ParquetImages(Source):
    """A ``.parquet`` file, or all in a folder (sorted by path, one level of sub-folders included), rows in order.

    Images: column ``image`` or ``img``, a struct with ``bytes`` or plain binary. A row with a path instead of bytes
    is refused: a file never decides which other file is opened. Labels: column ``label`` or ``labels``, else the one
    column that the file's ``huggingface`` metadata calls a ClassLabel, else ``fine_label``; integers without nulls.
    Class names come from that metadata. Labels are read at once, images only where drawn, a few rows at a time.

    Raises DataError if a file is malformed, lacks such columns or disagrees with the others on class names.
    """

    form = "a .parquet file or a folder of them"

    def __init__(self, spec: str, class_names: Sequence[str] | None = None):
        root = Path(spec)
        paths = parquet_files(root) if root.is_dir() else [root]
        if not paths:
            raise DataError(f"{shown(root)}: no .parquet file in this folder")
        self._files: list[_File] = []
        labels: list[Tensor] = []
        for path in paths:
            with _opened(path) as file:
                entry = _describe(file, path)
                if sum(f.rows for f in self._files) + entry.rows > MAX_ROWS:
                    raise DataError(f"{shown(path)}: more than {MAX_ROWS} rows; give fewer or smaller files")
                labels.append(_read_labels(file, entry))
            if self._files and entry.class_names != self._files[0].class_names:
                raise DataError(f"{shown(path)}: its class names differ from those of {shown(paths[0])}")
            self._files.append(entry)
        self.where = shown(root) if len(paths) == 1 else f"{shown(root)} ({len(paths)} parquet files)"
        self.labels, self.class_names = align_labels(
            torch.cat(labels), self._files[0].class_names, class_names, self.where
        )

    @classmethod
    def takes(cls, spec: str) -> bool:
        path = Path(spec)
        return bool(parquet_files(path)) if path.is_dir() else path.suffix.lower() == ".parquet"

    def pictures(self, index: Tensor) -> Iterator[tuple[str, Picture]]:
        wanted, first = index.numpy(), 0
        for entry in self._files:
            rows = wanted[(wanted >= first) & (wanted < first + entry.rows)] - first
            first += entry.rows
            if len(rows):
                yield from _read_images(entry, rows)


@dataclass(frozen=True)
class _File:
    """What is known about one file without its images."""

    path: Path
    rows: int
    image_column: str
    label_column: str
    class_names: tuple[str, ...] | None


def parquet_files(folder: Path) -> list[Path]:
    """The ``.parquet`` files in a folder and its direct sub-folders, sorted by path, without hidden ones."""
    try:
        found = [*folder.glob("*.parquet"), *folder.glob("*/*.parquet")]
        visible = [p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
        return sorted(path for path in visible if path.is_file())
    except OSError as error:
        raise DataError(f"{shown(folder)}: the folder cannot be read ({reason(error)})") from None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The open file; whatever Arrow raises on malformed content becomes DataError."""
    if not path.is_file():
        raise DataError(f"{shown(path)}: {'not a file' if path.exists() else 'no such file'}; give a .parquet file")
    try:
        # A stream, not a path: Arrow would take some file names for the address of a remote file system.
        with pa.OSFile(str(path)) as stream, pq.ParquetFile(stream, buffer_size=2**20, pre_buffer=False) as file:
            yield file
    except (pa.ArrowException, ArithmeticError, LookupError, MemoryError, OSError, TypeError, ValueError) as error:
        raise DataError(f"{shown(path)}: not a readable parquet file ({reason(error)})") from None


def _describe(file: Any, path: Path) -> _File:
    rows = file.metadata.num_rows
    if rows < 0:
        raise DataError(f"{shown(path)}: the file claims to have {rows} rows; it is malformed")
    schema = file.schema_arrow
    features = _features(schema.metadata)
    types = {name: features.get(name, {}).get("_type") for name in schema.names}
    images = [name for name in ("image", "img") if name in types] or [n for n in types if types[n] == "Image"]
    class_labels = [name for name in types if types[name] == "ClassLabel"]
    labels = [name for name in ("label", "labels") if name in types]
    labels += class_labels if len(class_labels) == 1 else []
    labels += [name for name in ("fine_label",) if name in types]
    columns = ", ".join(shown(name) for name in schema.names[:20])
    if not images or not labels:
        lacking = "images (image or img)" if not images else "labels (label or labels)"
        raise DataError(f"{shown(path)}: no column with {lacking} among its columns: {columns}")
    if any(schema.names.count(name) > 1 for name in (images[0], labels[0])):
        raise DataError(f"{shown(path)}: two columns have the same name among its columns: {columns}")
    image_type, label_type = schema.field(images[0]).type, schema.field(labels[0]).type
    has_bytes = pa.types.is_struct(image_type) and image_type.get_field_index("bytes") >= 0
    if not has_bytes and not _is_binary(image_type):
        raise DataError(
            f"{shown(path)}: column {shown(images[0])} has the type {shown(image_type)}; expected encoded "
            "images, struct<bytes, path> or binary"
        )
    if not pa.types.is_integer(label_type):
        raise DataError(
            f"{shown(path)}: column {shown(labels[0])} has the type {shown(label_type)}; expected class numbers"
        )
    return _File(path, rows, images[0], labels[0], _class_names(features.get(labels[0], {})))


def _features(metadata: dict[bytes, bytes] | None) -> dict[str, dict[str, Any]]:
    """The columns that the ``huggingface`` metadata describes; empty if it is absent or not what it should be."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}
    return {k: v for k, v in features.items() if isinstance(v, dict)} if isinstance(features, dict) else {}


def _class_names(feature: dict[str, Any]) -> tuple[str, ...] | None:
    names = feature.get("names")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        return None
    return tuple(names)


def _is_binary(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _read_labels(file: Any, entry: _File) -> Tensor:
    """int64 [rows]."""
    parts, count = [np.empty(0, dtype=np.int64)], 0
    for batch in file.iter_batches(_LABEL_BATCH_ROWS, columns=[entry.label_column], use_threads=False):
        column = batch.column(0)
        if column.null_count:
            raise DataError(
                f"{shown(entry.path)}: {column.null_count} labels are missing (null); every image needs one"
            )
        parts.append(column.cast(pa.int64()).to_numpy())
        count += len(column)
        if count > entry.rows:
            break
    if count != entry.rows:
        raise DataError(f"{shown(entry.path)}: {entry.rows} rows announced, another number found; it is malformed")
    labels = np.concatenate(parts)
    names = entry.class_names
    if names is not None and len(labels) and labels.max() >= len(names):
        raise DataError(
            f"{shown(entry.path)}: label {labels.max()}, but the file names only {len(names)} classes; it is malformed"
        )
    return torch.from_numpy(labels)


def _read_images(entry: _File, rows: np.ndarray[Any, Any]) -> Iterator[tuple[str, bytes]]:
    """The encoded images of the given rows, ascending; row groups without any are not read."""
    with _opened(entry.path) as file:
        plain = _is_binary(file.schema_arrow.field(entry.image_column).type)
        first = 0
        for group in range(file.num_row_groups):
            end = first + file.metadata.row_group(group).num_rows
            if len(rows[(rows >= first) & (rows < end)]):
                for batch in _batches(
                    file, group, entry, entry.image_column if plain else f"{entry.image_column}.bytes"
                ):
                    inside = rows[(rows >= first) & (rows < first + len(batch))]
                    if len(inside):
                        encoded = batch.column(0) if plain else pc.struct_field(batch.column(0), "bytes")
                        yield from _named(entry.path, inside, encoded.take(pa.array(inside - first)).to_pylist())
                    first += len(batch)
            first = end


def _batches(file: Any, group: int, entry: _File, column: str) -> Iterator[Any]:
    """Record batches of one row group, small enough for memory.

    A file of a few kilobytes can repeat one huge value in all its rows. No value is larger than what the column
    announces, so that bounds a batch; and a group that unpacks to much more than announced is refused.
    """
    about = file.metadata.row_group(group)
    # Of the whole group: asking a column of a damaged file for its size ends the process inside Arrow.
    announced = max(0, about.total_byte_size)
    rows = min(_BATCH_ROWS, max(1, _BATCH_BYTES // max(announced, 1)))
    unpacked = 0
    for batch in file.iter_batches(rows, [group], columns=[column], use_threads=False):
        unpacked += batch.nbytes
        if unpacked > 4 * announced + _BATCH_BYTES:
            raise DataError(f"{shown(entry.path)}: the images unpack to far more than the file announces; refused")
        yield batch


def _named(path: Path, rows: np.ndarray[Any, Any], encoded: list[bytes | None]) -> Iterator[tuple[str, bytes]]:
    for row, content in zip(rows.tolist(), encoded, strict=True):
        name = f"{shown(path)}, row {row}"
        if content is None:
            raise DataError(f"{name}: no image bytes; files that a row merely points to are never opened")
        yield name, content
