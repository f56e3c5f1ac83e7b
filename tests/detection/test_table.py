"""The search table and its file."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from search_tables import network, table
from untrojan.detection.table import from_plain, plain
from untrojan.detection.table_files import packed, read_tables, write_tables
from untrojan.errors import CheckpointError


def test_tables_survive_their_file(tmp_path: Path) -> None:
    made = [table(seed=1), table(5, seed=2, target=3), table(2, seed=3), table(43, seed=4)]
    write_tables(tmp_path / "search.parquet", made)
    again = read_tables(tmp_path / "search.parquet")
    assert len(again) == len(made)
    for one, other in zip(made, again, strict=True):
        assert [(f.scope, f.source, f.target, f.number, f.kind, f.stage, f.sent, f.steps) for f in one.found] == [
            (f.scope, f.source, f.target, f.number, f.kind, f.stage, f.sent, f.steps) for f in other.found
        ]
        assert [f.size for f in other.found] == pytest.approx([f.size for f in one.found], rel=1e-6)
        assert other.network.confusion == one.network.confusion
        assert [math.isnan(x) for x in other.network.logit_gaps] == [math.isnan(x) for x in one.network.logit_gaps]
        assert (other.victim, other.seed, other.schema) == (one.victim, one.seed, one.schema)
    assert packed(again) == packed(again), "the same bytes each time"


def test_what_was_not_measured_stays_none(tmp_path: Path) -> None:
    bare = dataclasses.replace(table().found[0], size=None, off_subspace=None, sent=None)
    write_tables(tmp_path / "t", [dataclasses.replace(table(), found=(bare,), unreached=("something",))])
    (again,) = read_tables(tmp_path / "t")
    assert (again.found[0].size, again.found[0].off_subspace, again.found[0].sent) == (None, None, None)
    assert again.unreached == ("something",)


def test_the_last_search_that_found_something_counts() -> None:
    first = table().rows("pair-wise", "patch", 1)[0]
    later = dataclasses.replace(first, stage=2, size=None)
    both = dataclasses.replace(table(), found=(first, later))
    assert both.latest("pair-wise", "patch")[first.source, first.target, 0] == first
    smaller = dataclasses.replace(later, size=0.1)
    assert (
        dataclasses.replace(both, found=(smaller, first)).latest("pair-wise", "patch")[first.source, first.target, 0]
        == smaller
    )


def test_accuracy_is_the_share_of_the_diagonal() -> None:
    assert network(4, accuracy=0.8).accuracy == pytest.approx(0.8)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "untrojan-search-9"},
        {"network": {"classes": 3}},
        {"found": [{"scope": "target-wise"}]},
        {"likeness": None},
        {"network": plain(table())["network"] | {"input_shape": [3]}},
        {"network": plain(table())["network"] | {"classes": 0}},
        {"network": plain(table())["network"] | {"images": [-1] * 10}},
        {"found": [plain(table())["found"][0] | {"target": 10}]},
        {"found": [plain(table())["found"][0] | {"scope": "sideways"}]},
        {"found": [plain(table())["found"][0] | {"size": float("nan")}]},
        {"found": [plain(table())["found"][0] | {"size": -1.0}]},
        {"found": [plain(table())["found"][0] | {"stage": None}]},
        {"found": [plain(table())["found"][0] | {"kind": None}]},
        {"found": [plain(table())["found"][0] | {"target": None}]},
        {"found": [plain(table())["found"][0] | {"source": 1}]},
        {"found": [plain(table())["found"][0] | {"off_target": -0.5}]},
        {"found": [plain(table())["found"][0] | {"off_subspace": 1.5}]},
        {"likeness": [plain(table())["likeness"][0] | {"inside": (1e30,) * 100}]},
    ],
)
def test_what_is_no_table_is_refused(change: dict) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        from_plain(plain(table()) | change)


def test_a_wrong_file_is_one_line(tmp_path: Path) -> None:
    text = tmp_path / "text.parquet"
    text.write_text("no parquet at all")
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1]}), other)
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(packed([table()])[:5000])
    for path in (text, other, cut, tmp_path / "missing.parquet"):
        with pytest.raises(CheckpointError, match="not a file of search tables") as told:
            read_tables(path)
        assert "\n" not in str(told.value)
