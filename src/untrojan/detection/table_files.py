"""Search tables as parquet: one network a row, so that a reference set is one small file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from untrojan.detection.table import SearchTable, from_plain, plain
from untrojan.errors import CheckpointError
from untrojan.storage import write_bytes

MOST_BYTES = 2**30
"""What the content of a file may take when it is unpacked: a thousand tables are some 50 MB."""

FOUND = pa.struct(
    [
        ("scope", pa.string()),
        ("kind", pa.string()),
        ("size", pa.float32()),
        ("success", pa.float32()),
        ("steps", pa.int32()),
        ("source", pa.int32()),
        ("target", pa.int32()),
        ("number", pa.int32()),
        ("stage", pa.int32()),
        ("off_subspace", pa.float32()),
        ("off_target", pa.float32()),
        ("sent", pa.list_(pa.int16())),
    ]
)
NETWORK = pa.struct(
    [
        ("classes", pa.int32()),
        ("images", pa.list_(pa.int32())),
        ("confusion", pa.list_(pa.int32())),
        ("input_shape", pa.list_(pa.int32())),
        ("parameters", pa.int64()),
        ("layers", pa.list_(pa.struct([("kind", pa.string()), ("count", pa.int32())]))),
        ("logit_gaps", pa.list_(pa.float32())),
        ("reach", pa.list_(pa.float32())),
        ("distance", pa.float32()),
        ("contrast", pa.float32()),
        ("sureness", pa.float32()),
        ("alternatives", pa.list_(pa.struct([("way", pa.string()), ("right", pa.float32())]))),
    ]
)
LIKENESS = pa.struct([("kind", pa.string()), ("look", pa.list_(pa.float32())), ("inside", pa.list_(pa.float32()))])
COLUMNS = pa.schema(
    [
        ("schema", pa.string()),
        ("victim", pa.string()),
        ("seed", pa.int64()),
        ("version", pa.string()),
        ("unreached", pa.list_(pa.string())),
        ("network", NETWORK),
        ("found", pa.list_(FOUND)),
        ("likeness", pa.list_(LIKENESS)),
    ]
)


def packed(tables: Sequence[SearchTable]) -> bytes:
    """The content of a parquet file of these tables, in their order; numbers are rounded to float32."""
    sink = pa.BufferOutputStream()
    rows = pa.Table.from_pylist([plain(table) for table in tables], schema=COLUMNS)
    pq.write_table(rows, sink, compression="zstd", compression_level=12)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def write_tables(path: str | Path, tables: Sequence[SearchTable]) -> None:
    """Write a parquet file of these tables, whole or not at all. Raises OutputError."""
    write_bytes(path, packed(tables))


def read_tables(path: str | Path) -> list[SearchTable]:
    """The tables of a parquet file, in their order. Raises CheckpointError for what is no such file."""
    try:
        with pq.ParquetFile(path) as file:
            parts = [file.metadata.row_group(n).total_byte_size for n in range(file.metadata.num_row_groups)]
            if sum(parts) > MOST_BYTES:
                raise ValueError(f"{sum(parts) >> 20} MiB when it is unpacked, and {MOST_BYTES >> 20} are read at most")
            content = file.read().cast(COLUMNS).to_pylist()
        return [from_plain(row) for row in content]
    except (OSError, pa.ArrowException, KeyError, IndexError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: not a file of search tables ({reason}); a scan writes search.parquet") from None
