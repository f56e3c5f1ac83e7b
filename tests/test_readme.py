"""What the README says is what the committed record holds."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "benchmarks" / "records" / "end_to_end.json"


@pytest.mark.skipif(not RECORD.exists(), reason="no end-to-end record is committed")
def test_the_table_is_made_from_the_record():
    spec = importlib.util.spec_from_file_location("table", ROOT / "benchmarks" / "table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.table(json.loads(RECORD.read_text())) in (ROOT / "README.md").read_text()


def test_every_command_of_the_readme_exists():
    import typer.main

    from untrojan.cli.entry import app

    commands = typer.main.get_command(app).commands
    text = (ROOT / "README.md").read_text()
    named = {line.split()[2] for line in text.splitlines() if line.startswith("$ untrojan ")}
    assert named
    assert named <= set(commands)
