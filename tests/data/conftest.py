"""Small images, folders and parquet files, made anew for each test."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


def _png(value: int, size: tuple[int, int] = (4, 4), mode: str = "RGB", form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value, 0, 0)).save(stream, form)
    return stream.getvalue()


@pytest.fixture
def png() -> Callable[..., bytes]:
    """An encoded image of one colour: (value, 0, 0), or grey."""
    return _png


@pytest.fixture
def write_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write ``{class: [value of each image]}`` as ROOT/class/00.png, ...; returns ROOT."""

    def write(classes: dict[str, Sequence[int]], name: str = "set") -> Path:
        root = tmp_path / name
        for folder, values in classes.items():
            (root / folder).mkdir(parents=True)
            for number, value in enumerate(values):
                (root / folder / f"{number:02}.png").write_bytes(_png(value))
        return root

    return write


@pytest.fixture
def write_parquet(tmp_path: Path) -> Callable[..., Path]:
    """Write images (encoded) and labels in the Hugging Face schema; returns the file."""

    def write(
        images: Sequence[Any],
        labels: Sequence[Any],
        *,
        names: Sequence[str] | None = None,
        name: str = "set.parquet",
        image_column: str = "image",
        label_column: str = "label",
        plain: bool = False,
        rows_per_group: int = 3,
        extra: dict[str, Any] | None = None,
        metadata: bytes | None = None,
    ) -> Path:
        features: dict[str, Any] = {image_column: {"_type": "Image"}}
        if names is not None:
            features[label_column] = {"_type": "ClassLabel", "names": list(names)}
        rows = list(images) if plain else [i if isinstance(i, dict) else {"bytes": i, "path": None} for i in images]
        kind = pa.binary() if plain else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        columns = {image_column: pa.array(rows, kind), label_column: pa.array(labels)} | (extra or {})
        described = metadata or json.dumps({"info": {"features": features}}).encode()
        table = pa.table(columns).replace_schema_metadata({b"huggingface": described})
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, row_group_size=rows_per_group)
        return path

    return write


@pytest.fixture
def noise() -> np.ndarray[Any, Any]:
    """uint8 [24, 32, 3], reproducible."""
    return np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
