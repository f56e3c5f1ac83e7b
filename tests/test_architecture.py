"""The arrows between the rooms, read from the imports: data flows one way, and a defence never sees the attack."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import untrojan

ROOT = Path(untrojan.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

GROUND = {"errors", "version", "progress", "storage", "setting", "triggers", "records", "intervals", "keywords"}
"""Modules that hold what every room talks about; they may import one another."""

ALLOWED = {
    "classifier": GROUND,
    "identity": GROUND | {"classifier"},
    "data": GROUND | {"classifier"},
    "attacks": GROUND | {"classifier", "data"},
    "detection": GROUND | {"classifier", "data", "identity"},
    "correction": GROUND | {"classifier", "data", "identity"},
    "guard": GROUND | {"classifier", "data", "identity"},
    "processes": GROUND,
    "scan_files": GROUND | {"detection"},
    "scan_state": GROUND | {"detection"},
    "verdict": GROUND | {"classifier", "detection"},
    "stand_ins": GROUND | {"classifier", "detection", "correction"},
    "pipeline": GROUND | {"classifier", "data", "identity", "detection", "correction", "guard", "verdict", "stand_ins"},
    "evaluation": GROUND | {"classifier", "data", "identity", "guard"},
    "loading": GROUND | {"classifier", "victims"},
    "victims": GROUND | {"classifier", "data", "attacks", "evaluation", "processes"},
    "bench": GROUND
    | {"classifier", "data", "detection", "correction", "guard", "pipeline", "evaluation", "victims", "loading"}
    | {"scan_files", "scan_state", "stand_ins", "processes"},
    "report": GROUND,
    "theory": GROUND,
    "report_pictures": GROUND | {"classifier", "data", "identity", "guard", "report"},
}
"""What each room may import besides itself. The rooms that only gather (cli, demo, the public API) are free."""

FREE = {"cli", "demo", "__main__", "__init__"}


def room(path: Path) -> str:
    """The package or module directly in ``untrojan`` that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, name) of each import of this package, wherever it stands in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "untrojan")
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level or module.split(".")[0] == "untrojan":
                yield from (("." * node.level + module, alias.name) for alias in node.names)


def rooms_imported(tree: ast.AST) -> set[str]:
    """The rooms that a file imports from; ``untrojan`` itself for a name of the public API."""
    found = set()
    for module, name in imports(tree):
        if module == "untrojan":
            is_room = name and ((ROOT / name / "__init__.py").is_file() or (ROOT / f"{name}.py").is_file())
            found.add(name if is_room else "untrojan")
        else:
            found.add(module.split(".")[1])
    return found


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def params(*rooms: str) -> list[object]:
    """The files of these rooms, or of all, as parameters with readable names."""
    chosen = [path for path in FILES if not rooms or room(path) in rooms]
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in chosen]


def test_every_room_is_known():
    rooms = {room(path) for path in FILES}
    assert rooms <= set(ALLOWED) | GROUND | FREE, "say in ALLOWED what the new room may import"


@pytest.mark.parametrize("path", params(*ALLOWED))
def test_room_imports_only_what_lies_before_it(path):
    strangers = rooms_imported(parse(path)) - ALLOWED[room(path)] - {room(path)}
    assert not strangers


@pytest.mark.parametrize("path", params(*GROUND))
def test_ground_imports_no_room(path):
    assert rooms_imported(parse(path)) <= GROUND


@pytest.mark.parametrize("path", params())
def test_nothing_imports_the_public_api_nor_relatively(path):
    assert "untrojan" not in rooms_imported(parse(path)) or path == ROOT / "__init__.py"
    assert not [module for module, _ in imports(parse(path)) if module.startswith(".")]


@pytest.mark.parametrize("path", params("detection", "correction", "guard", "verdict", "stand_ins", "pipeline"))
def test_defence_never_sees_attacks_or_victims(path):
    assert not rooms_imported(parse(path)) & {"attacks", "victims", "evaluation"}


def test_method_packages_are_strangers_to_one_another():
    methods = {"attacks", "detection", "correction", "guard"}
    for path in FILES:
        if room(path) in methods:
            assert not rooms_imported(parse(path)) & (methods - {room(path)}), path


@pytest.mark.parametrize("path", params("victims"))
def test_victims_take_only_pure_measures_from_evaluation(path):
    taken = {module for module, _ in imports(parse(path)) if module.startswith("untrojan.evaluation")}
    assert taken <= {"untrojan.evaluation.metrics", "untrojan.intervals"}


@pytest.mark.parametrize("path", params())
def test_product_has_no_assert_and_swallows_nothing(path):
    for node in ast.walk(parse(path)):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}"
        if isinstance(node, ast.ExceptHandler):
            assert not all(isinstance(step, ast.Pass) for step in node.body), f"line {node.lineno}"


def test_the_reader_of_imports_sees_them():
    tree = ast.parse("import untrojan\nfrom untrojan import scan\nfrom untrojan.cli import main\nfrom . import errors")
    assert rooms_imported(tree) >= {"untrojan", "cli"}
    assert ("untrojan", "scan") in set(imports(tree))
