"""A scan on disk: ``scan.json``, ``triggers.safetensors`` and ``search.parquet``."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import ValidationError

from untrojan.detection.table_files import write_tables
from untrojan.errors import CheckpointError
from untrojan.records import ScanReport
from untrojan.storage import pack_safetensors, read_safetensors, read_text, require_written_together, write_bytes
from untrojan.triggers import Trigger, trigger_from_tensors

REPORT, TRIGGERS, TABLE = "scan.json", "triggers.safetensors", "search.parquet"
FORMAT = "untrojan-triggers-1"


def save_scan(directory: str | Path, report: ScanReport) -> None:
    """Write the report, its triggers and, if something was searched, the search table; tensors are named
    ``TARGET/KIND/TENSOR``. Raises OutputError."""
    tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in report.tensors().items()}
    metadata = {"format": FORMAT, "victim": report.victim.sha256}
    write_bytes(Path(directory) / TRIGGERS, pack_safetensors(tensors, metadata))
    if report.table is not None:
        write_tables(Path(directory) / TABLE, [report.table])
    write_bytes(Path(directory) / REPORT, (report.model_dump_json(indent=2) + "\n").encode())


def _require_sound(report: ScanReport, path: Path) -> None:
    """Raise CheckpointError for a report that no scan writes."""
    targets = report.targets
    if len(set(targets)) != len(targets) or not set(targets) <= set(range(report.victim.classes)):
        raise CheckpointError(f"{path}: not a scan report: its targets are not distinct classes: {list(targets)}")
    if (report.verdict == "backdoor") != bool(targets):
        raise CheckpointError(f"{path}: not a scan report: verdict {report.verdict} with {len(targets)} targets")


def load_scan(directory: str | Path) -> ScanReport:
    """Read a scan; raises CheckpointError if a file is missing, malformed or of another victim than the other."""
    directory = Path(directory)
    path = directory / REPORT
    if not path.exists():
        raise CheckpointError(f"{path}: no such file; give the folder that untrojan scan --out wrote")
    try:
        report = ScanReport.model_validate_json(read_text(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "content"
        raise CheckpointError(f"{path}: not a scan report: {place}: {first['msg']}") from None
    _require_sound(report, path)
    tensors, metadata = read_safetensors(directory / TRIGGERS)
    if metadata.get("format") != FORMAT or metadata.get("victim") != report.victim.sha256:
        raise CheckpointError(f"{directory}: {TRIGGERS} does not belong to {REPORT}; scan again")
    grouped: dict[tuple[int, str], dict[str, object]] = {}
    for key, tensor in tensors.items():
        found = re.fullmatch(r"(\d{1,6})/([^/]+)/(.+)", key)
        if not found:
            raise CheckpointError(f"{directory / TRIGGERS}: unexpected tensor {key[:80]!r}")
        grouped.setdefault((int(found[1]), found[2]), {})[found[3]] = tensor
    triggers: dict[tuple[int, str], Trigger] = {
        (target, kind): trigger_from_tensors(kind, parts, str(directory / TRIGGERS))  # type: ignore[arg-type]
        for (target, kind), parts in grouped.items()
    }
    require_written_together(tensors, report.tensors_sha256, directory / TRIGGERS, REPORT)
    return report.with_triggers(triggers)
