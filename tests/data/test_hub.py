from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from untrojan.data import load_data
from untrojan.data.hub import REVISION, choose
from untrojan.errors import DataError, MissingExtraError, UsageError

FILES = ["README.md", "default/train/0000.parquet", "default/test/0001.parquet", "default/test/0000.parquet"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, write_parquet, png) -> SimpleNamespace:
    """A client that knows one data set, whose files lie in a cache."""
    asked: list[tuple[object, ...]] = []

    def listed(name: str, **how: object) -> list[str]:
        asked.append((name, how))
        if name != "me/set":
            raise OSError("404")
        return FILES

    def downloaded(name: str, file: str, **how: object) -> str:
        asked.append((name, file, how))
        return str(write_parquet([png(1), png(2)], [0, 1], name=f"cache/{file}"))

    client = SimpleNamespace(
        HfApi=lambda: SimpleNamespace(list_repo_files=listed), hf_hub_download=downloaded, asked=asked
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    return client


def test_a_set_is_read_from_the_hubs_parquet_files(hub: SimpleNamespace) -> None:
    found = load_data("hf:me/set?split=test", input_shape=None)
    assert found.labels.tolist() == [0, 1, 0, 1]
    assert found.where == "me/set (test split)"
    how = {"repo_type": "dataset", "revision": REVISION}
    assert hub.asked == [
        ("me/set", how),
        *(("me/set", f"default/test/000{i}.parquet", how) for i in (0, 1)),
    ]
    assert len(load_data("hf:me/set?split=train", input_shape=None)) == 2


def test_what_the_hub_does_not_give_is_one_line(hub: SimpleNamespace) -> None:
    with pytest.raises(DataError, match="'hf:me/other': the hub did not give it"):
        load_data("hf:me/other", input_shape=None)
    with pytest.raises(UsageError, match=r"no split 'val'; it has test, train"):
        load_data("hf:me/set?split=val", input_shape=None)
    with pytest.raises(UsageError, match="expected hf:OWNER/NAME"):
        load_data("hf:me/set?revision=main", input_shape=None)


def test_which_configuration() -> None:
    files = ["a/test/0.parquet", "b/test/0.parquet"]
    assert choose(files, "test", "b", "x") == ["b/test/0.parquet"]
    with pytest.raises(UsageError, match=r"which &config=\? It has a, b"):
        choose(files, "test", None, "x")
    assert choose([*files, "default/test/0.parquet"], "test", None, "x") == ["default/test/0.parquet"]


def test_without_the_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r'pip install "untrojan\[hub\]"'):
        load_data("hf:me/set", input_shape=None)
