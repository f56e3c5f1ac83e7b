"""The record of a measurement: numbers together with what is needed to judge and repeat them.

A committed record is JSON in ``benchmarks/records``. ``tests/test_benchmark_records.py`` reads each of them.
"""

from __future__ import annotations

import hashlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from untrojan.bench.machine import Machine, this_machine

ROOT = Path(__file__).resolve().parent.parent
SHA256, COMMIT = r"^[0-9a-f]{64}$", r"^[0-9a-f]{40}$"
PACKAGES = ("untrojan", "torch", "numpy")


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BenchmarkRecord(Part):
    """``sources``: path in the repository to SHA-256, of the script and what it measures, at the time.

    ``changed``: whether the working tree differed from ``commit`` in ``src`` or in the script; never so in a record
    that is committed.
    """

    schema_: Literal["untrojan-benchmark-1"] = Field("untrojan-benchmark-1", alias="schema")
    name: str = Field(pattern=r"^[a-z0-9_]+$")
    date: datetime
    command: str
    seed: int
    machine: Machine
    versions: dict[str, str]
    commit: str = Field(pattern=COMMIT)
    changed: bool
    sources: dict[str, str]
    results: dict[str, Any]

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)


def write_record(
    path: str | Path, *, name: str, script: str, seed: int, results: Mapping[str, Any], measures: Iterable[str] = ()
) -> BenchmarkRecord:
    """Describe this machine and state of the repository, and write the record as JSON.

    script: the caller's ``__file__``; measures: further files that the numbers depend on, paths in the repository.
    """
    own = Path(script).resolve().relative_to(ROOT).as_posix()
    record = BenchmarkRecord(
        name=name,
        date=datetime.now(UTC).replace(microsecond=0),
        command=shlex.join(["python", own, *(_without_folder(argument) for argument in sys.argv[1:])]),
        seed=seed,
        machine=this_machine(),
        versions={"python": platform.python_version()} | {package: installed(package) for package in PACKAGES},
        commit=commit(),
        changed=bool(_git("status", "--porcelain", "--", "src", own)),
        sources={file: sha256(file) for file in (own, *measures)},
        results=dict(results),
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return record


def kept(
    path: Path, where: str, rows: list[dict[str, Any]], same: Callable[[dict[str, Any]], Any]
) -> list[dict[str, Any]]:
    """The rows of an earlier record's ``results[where]`` that none of ``rows`` replaces; each names its own commit."""
    if not path.is_file():
        return []
    earlier = BenchmarkRecord.model_validate_json(path.read_text(encoding="utf-8"))
    new = [same(one) for one in rows]
    return [{"commit": earlier.commit} | one for one in earlier.results[where] if same(one) not in new]


def sha256(file: str) -> str:
    """Of a file, by its path in the repository."""
    return hashlib.sha256((ROOT / file).read_bytes()).hexdigest()


def commit() -> str:
    """What this working tree is made of, changes aside."""
    return _git("rev-parse", "HEAD")


def _without_folder(argument: str) -> str:
    """Where a file lay on this machine is nobody's business."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
