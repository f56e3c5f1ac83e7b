from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from test_records import SCAN
from untrojan.errors import CheckpointError, OutputError
from untrojan.records import ScanReport
from untrojan.scan_files import FORMAT, REPORT, TRIGGERS, load_scan, save_scan
from untrojan.triggers import AdditiveTrigger, PatchTrigger


def report() -> ScanReport:
    torch.manual_seed(0)
    patch = PatchTrigger(torch.rand(1, 4, 5), torch.rand(3, 4, 5))
    return SCAN.with_triggers({(2, "patch"): patch, (2, "additive"): AdditiveTrigger(torch.rand(3, 4, 5) - 0.5)})


def test_a_scan_comes_back_with_its_triggers(tmp_path: Path) -> None:
    save_scan(tmp_path / "new", report())
    again = load_scan(tmp_path / "new")
    assert again.model_dump_json() == report().model_dump_json()
    assert {key: t.sha256() for key, t in again.triggers.items()} == {
        k: t.sha256() for k, t in report().triggers.items()
    }


def test_a_clean_scan_has_no_triggers(tmp_path: Path) -> None:
    save_scan(tmp_path, SCAN)
    assert dict(load_scan(tmp_path).triggers) == {}


def test_one_trigger_may_stand_for_two_targets(tmp_path: Path) -> None:
    trigger = AdditiveTrigger(torch.rand(3, 4, 5))
    save_scan(tmp_path, SCAN.with_triggers({(1, "additive"): trigger, (2, "additive"): trigger}))
    assert [t.sha256() for t in load_scan(tmp_path).triggers.values()] == [trigger.sha256()] * 2


def test_scan_json_is_the_public_format(tmp_path: Path) -> None:
    save_scan(tmp_path, report())
    assert json.loads((tmp_path / REPORT).read_text()) == json.loads(report().model_dump_json())


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_scan(tmp_path, report())
    assert not list(tmp_path.iterdir())


def content(**changes: Any) -> bytes:
    return json.dumps(json.loads(SCAN.model_dump_json()) | changes).encode()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "no such file; give the folder"),
        (lambda p: p.write_bytes(b""), "not a scan report"),
        (lambda p: p.write_bytes(p.read_bytes()[:-20]), "not a scan report"),
        (lambda p: p.write_bytes(b"\xff\xfe"), "not a text file"),
        (lambda p: p.write_bytes(b"[1]"), "not a scan report"),
        (lambda p: p.write_bytes(b"[" * 100_000), "not a scan report"),
        (lambda p: p.write_bytes(content(schema="untrojan-scan-1")), "not a scan report: schema"),
        (lambda p: p.write_bytes(content(verdict="maybe")), "not a scan report: verdict"),
        (lambda p: p.write_bytes(content(more=1)), "not a scan report: more"),
        (lambda p: p.write_bytes(content(pairs=[{"source": "x"}])), r"not a scan report: pairs\.0\.source"),
        (lambda p: p.write_bytes(content(victim=SCAN.victim.model_dump() | {"sha256": "00"})), "does not belong to"),
    ],
)
def test_a_malformed_report(tmp_path: Path, damage: Callable[[Path], Any], message: str) -> None:
    save_scan(tmp_path, report())
    damage(tmp_path / REPORT)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_scan(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


DELTA = torch.zeros(3, 4, 5)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"delta": DELTA}, "unexpected tensor 'delta'"),
        ({"2/additive": DELTA}, "unexpected tensor"),
        ({"2/additive/": DELTA}, "unexpected tensor"),
        ({"-1/additive/delta": DELTA}, "unexpected tensor"),
        ({"9" * 5000 + "/additive/delta": DELTA}, "unexpected tensor"),
        ({"x\ny": DELTA}, r"unexpected tensor 'x\\ny'"),
        ({"2/shift/delta": DELTA}, "trigger kind 'shift' is not one of"),
        ({"2/additive/more": DELTA}, "not a valid additive trigger"),
        ({"2/patch/mask": torch.zeros(1, 4, 5)}, "not a valid patch trigger"),
        ({"2/additive/delta": DELTA + 3}, "not a valid additive trigger"),
    ],
)
def test_malformed_triggers(tmp_path: Path, tensors: dict[str, Tensor], message: str) -> None:
    save_scan(tmp_path, report())
    metadata = {"format": FORMAT, "victim": SCAN.victim.sha256}
    (tmp_path / TRIGGERS).write_bytes(safetensors.torch.save(tensors, metadata))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_scan(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_triggers_of_another_scan_or_none(tmp_path: Path) -> None:
    save_scan(tmp_path, report())
    for metadata in ({"format": FORMAT, "victim": "00"}, {"format": "other", "victim": SCAN.victim.sha256}, None):
        (tmp_path / TRIGGERS).write_bytes(safetensors.torch.save({}, metadata))
        with pytest.raises(CheckpointError, match=r"does not belong to scan\.json; scan again"):
            load_scan(tmp_path)
    (tmp_path / TRIGGERS).unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        load_scan(tmp_path)


def test_a_scan_of_two_runs_is_refused(tmp_path: Path) -> None:
    other = SCAN.with_triggers({(2, "additive"): AdditiveTrigger(torch.zeros(3, 4, 5))})
    save_scan(tmp_path, report())
    kept = (tmp_path / REPORT).read_bytes()
    save_scan(tmp_path, other)
    (tmp_path / REPORT).write_bytes(kept)
    with pytest.raises(CheckpointError, match=r"was not written together with scan\.json"):
        load_scan(tmp_path)
