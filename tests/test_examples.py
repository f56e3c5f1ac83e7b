"""The examples in docstrings are run."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import untrojan

ROOT = Path(untrojan.__file__).parent
SHOWN = sorted(path for path in ROOT.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8"))


def test_there_are_some() -> None:
    assert len(SHOWN) > 10


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.stem)
def test_examples_say_what_comes_out(path: Path) -> None:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    module = importlib.import_module(".".join(part for part in parts if part != "__init__"))
    tried = doctest.testmod(module)
    assert tried.attempted
    assert not tried.failed
