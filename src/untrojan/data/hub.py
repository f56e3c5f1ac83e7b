"""Data sets by their name on the Hugging Face hub, read from the parquet files that it keeps of each. No code of theirs
is run. Needs the extra ``hub``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from untrojan.data.decoding import Picture, reason, shown
from untrojan.data.parquet import ParquetImages
from untrojan.data.source import Source
from untrojan.errors import DataError, MissingExtraError, UsageError

REVISION = "refs/convert/parquet"
"""The branch on which the hub keeps CONFIG/SPLIT/NNNN.parquet of every data set."""


class HubImages(Source):
    """``hf:OWNER/NAME?split=test&config=default``; the split is ``test``, the configuration the only one, unless said.

    Files are kept in the hub's own cache. Raises MissingExtraError without ``huggingface_hub``, UsageError for a split
    or configuration that is not there, DataError if the hub cannot be reached.
    """

    form = "hf:OWNER/NAME?split=..."

    def __init__(self, spec: str, class_names: Sequence[str] | None = None):
        name, _, query = spec.removeprefix("hf:").partition("?")
        asked = dict(part.partition("=")[::2] for part in query.split("&")) if query else {}
        if not name or not asked.keys() <= {"split", "config"}:
            raise UsageError(f"data '{shown(spec)}': expected {self.form}, and &config=... where there are several")
        folder = _fetched(name, asked.get("split", "test"), asked.get("config"))
        self._source = ParquetImages(str(folder), class_names)
        self.labels, self.class_names = self._source.labels, self._source.class_names
        self.where = f"{name} ({asked.get('split', 'test')} split)"

    @classmethod
    def takes(cls, spec: str) -> bool:
        return spec.startswith("hf:")

    def pictures(self, index: Tensor) -> Iterator[tuple[str, Picture]]:
        return self._source.pictures(index)


def _fetched(name: str, split: str, config: str | None) -> Path:
    """The folder that holds the split's files, downloaded if they are not in the cache."""
    try:
        import huggingface_hub
    except ImportError:
        raise MissingExtraError(
            f"data 'hf:{shown(name)}' needs the package huggingface_hub, which is missing; "
            'pip install "untrojan[hub]", or download the set and give its .parquet file'
        ) from None
    try:
        files = huggingface_hub.HfApi().list_repo_files(name, repo_type="dataset", revision=REVISION)
        chosen = choose(files, split, config, name)
        paths = [
            Path(huggingface_hub.hf_hub_download(name, file, repo_type="dataset", revision=REVISION)) for file in chosen
        ]
    except UsageError:
        raise
    except Exception as error:  # the client has dozens of errors, of its own and of the libraries below it
        raise DataError(
            f"data 'hf:{shown(name)}': the hub did not give it ({type(error).__name__}: {reason(error)[:150]}); check "
            "the name and the network, or give a .parquet file"
        ) from None
    return paths[0].parent


def choose(files: Sequence[str], split: str, config: str | None, name: str) -> list[str]:
    """The parquet files ``CONFIG/SPLIT/*.parquet`` of one configuration and split, in order; raises UsageError."""
    parts = [file.split("/") for file in sorted(files) if file.endswith(".parquet") and file.count("/") == 2]
    configs = sorted({part[0] for part in parts})
    if config is None:
        config = configs[0] if len(configs) == 1 else "default"
    if config not in configs:
        raise UsageError(f"data 'hf:{shown(name)}': which &config=? It has {', '.join(configs) or 'none'}")
    splits = sorted({part[1] for part in parts if part[0] == config})
    if split not in splits:
        raise UsageError(f"data 'hf:{shown(name)}': no split '{shown(split)}'; it has {', '.join(splits)}")
    return ["/".join(part) for part in parts if part[:2] == [config, split]]
