"""A cell of the matrix, victim x method x seed x settings: what determines it, and its record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from untrojan.bench.machine import Machine
from untrojan.bench.methods import Method, method_for
from untrojan.bench.plan import MethodSpec, Plan, Settings, every_method, every_setting
from untrojan.bench.victims import BenchVictim
from untrojan.detection.plan import ScanSettings
from untrojan.errors import CheckpointError, UsageError
from untrojan.records import Cost, Evaluation, Record
from untrojan.storage import read_text, write_bytes
from untrojan.version import version

CELLS = "cells"
FORMAT = "untrojan-bench-cell-1"


class CellCost(Record):
    """What each step cost; None for a step that was not taken, or whose first part another run did. The scan is shared
    by all cells of a victim, seed and defence."""

    scan: Cost | None = None
    repair: Cost | None = None
    evaluate: Cost | None = None


class CellImages(Record):
    """How many images each step had; ``left_out``: test images that the defence had seen as well."""

    defence: int
    scan: int | None
    test: int
    left_out: int


class CellRecord(Record):
    """``cells/KEY.json``: what one cell gave, or why it failed.

    found: whether the scan found a backdoor, None without a scan; guarded: whether there was a guard to measure. Where
    a method that needs a verdict made none, the rates after are those before, nothing is flagged, and ``reason`` says
    why. seed: of the choice of defence images, of the scan and of the method.
    """

    schema_: Literal["untrojan-bench-cell-1"] = Field("untrojan-bench-cell-1", alias="schema")
    key: str
    status: Literal["done", "failed"]
    reason: str | None = None
    victim: str
    method: str
    options: dict[str, Any]
    seed: int
    settings: dict[str, Any]
    victim_sha256: str | None = None
    verdict: Literal["backdoor", "clean", "inconclusive"] | None = None
    targets: tuple[int, ...] = ()
    found: bool | None = None
    guarded: bool = False
    images: CellImages | None = None
    evaluation: Evaluation | None = None
    cost: CellCost = CellCost()
    machine: Machine | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    commit: str | None = None

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)


@dataclass(frozen=True)
class Cell:
    """One thing to measure. It can be sent to another process."""

    victim: BenchVictim
    spec: MethodSpec
    seed: int
    settings: Settings

    @cached_property
    def method(self) -> Method:
        """The method with its options."""
        return method_for(self.spec)

    @property
    def data(self) -> str:
        """Where the images are; raises UsageError if nobody says."""
        found = self.settings.data or self.victim.test
        if found is None:
            raise UsageError(
                f"victim {self.victim.name}: its card names no test images; give them as data in [settings]"
            )
        return found

    @property
    def test_limit(self) -> int | None:
        """The method's own, or the settings'."""
        return self.spec.test_limit or self.settings.test_limit

    @cached_property
    def key(self) -> str:
        """A hash of everything that its result depends on."""
        about = self._shared() | {"name": self.victim.name, "method": self.spec.name, "test_limit": self.test_limit}
        about["options"] = self.method.resolved()
        if self.method.needs_scan:
            about["scan"] = self.scan_key
        return _hash(about)

    @cached_property
    def scan_key(self) -> str:
        """A hash of everything that the scan depends on which this cell shares with others."""
        own = {"scan_images": self.settings.scan_images, "scan": ScanSettings().as_dict()}
        return _hash(self._shared() | own)

    @property
    def name(self) -> str:
        """For people."""
        given = ", ".join(f"{name} {value}" for name, value in self.spec.given.items())
        return f"{self.victim.name}, {self.spec.label}{f' ({given})' if given else ''}, seed {self.seed}"

    def facts(self) -> dict[str, Any]:
        """What a table can sort it by; see ``Table``."""
        settings = self.settings.model_dump() | {"test_limit": self.test_limit}
        return {**self.victim.facts, **settings, "seed": self.seed, "recipe": self.spec.recipe, **self.spec.given} | {
            "method": self.spec.label
        }

    def _shared(self) -> dict[str, Any]:
        return {
            "version": version(),
            "victim": self.victim.identity,
            "seed": self.seed,
            "defence": self.settings.defence,
            "data": self.data,
        }


def cells_of(plan: Plan, victims: list[BenchVictim]) -> list[Cell]:
    """Every cell of the plan, victim by victim; raises UsageError for what cannot be measured."""
    specs, settings = every_method(plan), every_setting(plan)
    cells = [
        Cell(victim, spec, seed, chosen)
        for victim in victims
        for seed in plan.seeds
        for chosen in settings
        for spec in specs
    ]
    for cell in cells:
        _ = cell.data
    return cells


def finished(cell: Cell, out: Path) -> CellRecord | None:
    """The cell's record if it is there and done; a file that cannot be read counts as not there."""
    try:
        record = CellRecord.model_validate_json(read_text(out / CELLS / f"{cell.key}.json"))
    except (CheckpointError, ValueError):
        return None
    return record if record.status == "done" and record.key == cell.key else None


def write_record(out: Path, record: CellRecord) -> None:
    """Write ``cells/KEY.json``, whole or not at all. Raises OutputError."""
    write_bytes(out / CELLS / f"{record.key}.json", (record.model_dump_json(indent=2) + "\n").encode())


def described(cell: Cell) -> dict[str, Any]:
    """The fields of a record that are known before the work."""
    settings = cell.settings.model_dump() | {"test_limit": cell.test_limit, "data": cell.data}
    return {
        "key": cell.key,
        "victim": cell.victim.name,
        "method": cell.spec.name,
        "options": json.loads(_json(cell.method.resolved())),
        "seed": cell.seed,
        "settings": settings,
    }


def failed(cell: Cell, reason: str) -> CellRecord:
    """The record of a cell that could not be measured."""
    return CellRecord(status="failed", reason=reason, **described(cell))


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{FORMAT} {_json(content)}".encode()).hexdigest()[:24]


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, default=str)
