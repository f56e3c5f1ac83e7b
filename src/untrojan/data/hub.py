"""Data sets by their name on the Hugging Face hub: recognised, not loaded yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from untrojan.data.decoding import Picture, shown
from untrojan.data.source import Source
from untrojan.errors import UnsupportedError


class HubImages(Source):
    """``hf:NAME?split=...``: always UnsupportedError, which says what to give instead."""

    form = "hf:NAME?split=... (not in this version)"

    def __init__(self, spec: str, class_names: Sequence[str] | None = None):
        raise UnsupportedError(
            f"'{shown(spec)}': this version does not load from the hub; download the data set and give its .parquet "
            "file, or a folder with one sub-folder per class"
        )

    @classmethod
    def takes(cls, spec: str) -> bool:
        return spec.startswith("hf:")

    def pictures(self, index: Tensor) -> Iterator[tuple[str, Picture]]:
        raise UnsupportedError("this version does not load from the hub")
