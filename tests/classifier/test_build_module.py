from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from untrojan.classifier.factory import build_module, is_builtin
from untrojan.errors import UnsupportedError, UntrojanError, UsageError


class Built(nn.Linear):
    def __init__(self, **arguments: object):
        super().__init__(2, 2)
        self.arguments = arguments


def small(*, width: int = 4, rate: float = 0.5, bias: bool = True, name: str = "x", extra: object = None) -> nn.Module:
    return Built(width=width, rate=rate, bias=bias, name=name, extra=extra)


def broken(*, width: int = 4) -> nn.Module:
    raise ValueError(f"width {width}\nis wrong")


BUILTINS: dict[str, Callable[..., nn.Module]] = {"small": small, "broken": broken, "anything": Built}


def build(spec: str) -> nn.Module:
    return build_module(spec, builtins=BUILTINS)


def source(folder: Path, text: str, name: str = "model.py") -> Path:
    path = folder / name
    path.write_text("from torch import nn\n" + text)
    return path


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", {}),
        (
            "?width=16&rate=2&bias=false&name=1&extra=7",
            {"width": 16, "rate": 2.0, "bias": False, "name": "1", "extra": 7},
        ),
        ("?rate=1e-3&extra=-2.5", {"rate": 0.001, "extra": -2.5}),
        ("?extra=a2o:9&name=", {"extra": "a2o:9", "name": ""}),
        ("?extra=True", {"extra": True}),
    ],
)
def test_builtin_arguments(query: str, wanted: dict[str, object]) -> None:
    defaults = {"width": 4, "rate": 0.5, "bias": True, "name": "x", "extra": None}
    arguments = build(f"small{query}").arguments
    assert arguments == defaults | wanted
    assert {n: type(v) for n, v in arguments.items()} == {n: type(v) for n, v in (defaults | wanted).items()}  # type: ignore[union-attr, operator]


def test_a_callable_that_takes_anything_gets_anything() -> None:
    assert build("anything?depth=3").arguments == {"depth": 3}


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("vgg", "unknown model 'vgg'; built-in are: anything, broken, small"),
        ("", "unknown model ''"),
        ("model.py", "name its callable too, such as model.py:build"),
        ("small?depth=3", "unknown argument 'depth'; known are: width, rate, bias, name, extra"),
        ("small?width=wide", "'width' takes a value like 4, got 'wide'"),
        ("small?width=1.5", "takes a value like 4"),
        ("small?width=true", "takes a value like 4"),
        ("small?bias=1", "takes a value like True"),
        ("small?rate=high", "takes a value like 0.5"),
        ("small?width", "expected arguments as ?name=value"),
        ("small?width=1&width=2", "given twice"),
        (":build", "expected file.py:callable"),
        ("json:", "expected file.py:callable"),
        ("absent/model.py:build", "there is no Python file 'absent/model.py'"),
        ("./weights.pt:build", "there is no Python file"),
        ("no_such_package_here.models:build", "there is no module"),
        ("json.no_such_module:build", "there is no module"),
        ("json:no_such_name", "'json' has no 'no_such_name'; callables defined there: dump"),
        ("json:__name__", "expected a callable that returns the network, got a str"),
    ],
)
def test_wrong_names_and_arguments(spec: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(spec)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_builtin_raises_is_one_line() -> None:
    with pytest.raises(UntrojanError, match=r"^calling the factory 'broken' failed: ValueError: width 3 is wrong$"):
        build("broken?width=3")


def test_only_names_without_colon_are_builtin() -> None:
    assert is_builtin("resnet18?classes=10&name=a:b")
    assert not is_builtin("model.py:build?width=3")


def test_package_and_arguments() -> None:
    module = build("torch.nn:Linear?in_features=3&out_features=2&bias=false")
    assert isinstance(module, nn.Linear)
    assert (module.in_features, module.bias) == (3, None)


def test_file_with_arguments_and_attributes(tmp_path: Path) -> None:
    path = source(
        tmp_path, "class Zoo:\n    @staticmethod\n    def build(width=2):\n        return nn.Linear(width, 1)\n"
    )
    assert build(f"{path}:Zoo.build").weight.shape == (1, 2)  # type: ignore[union-attr]
    assert build(f"{path}:Zoo.build?width=5").weight.shape == (1, 5)  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="known are: width"):
        build(f"{path}:Zoo.build?depth=5")
    with pytest.raises(UsageError, match="callables defined there: Zoo"):
        build(f"{path}:build")


def test_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source(tmp_path, "def build():\n    return nn.Linear(2, 1)\n")
    monkeypatch.chdir(tmp_path)
    assert isinstance(build("model.py:build"), nn.Linear)


def test_file_may_define_dataclasses(tmp_path: Path) -> None:
    path = source(
        tmp_path,
        "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass Sizes:\n    n: int = 3\n"
        "def build():\n    return nn.Linear(Sizes().n, 1)\n".replace("from __future__ import annotations\n", ""),
    )
    assert build(f"{path}:build").weight.shape == (1, 3)  # type: ignore[union-attr]


def test_neighbours_can_be_imported_and_are_forgotten(tmp_path: Path) -> None:
    for name, size in (("one", 3), ("two", 4)):
        folder = tmp_path / name
        (folder / "parts").mkdir(parents=True)
        (folder / "layers.py").write_text(f"SIZE = {size}\n")
        (folder / "parts" / "__init__.py").write_text("from layers import SIZE\n")
        source(folder, "def build():\n    from parts import SIZE\n    return nn.Linear(SIZE, 1)\n")
    path, names = list(sys.path), {"layers", "parts"}
    shapes = [build(f"{tmp_path / name}/model.py:build").weight.shape[1] for name in ("one", "two")]  # type: ignore[union-attr, index]
    assert shapes == [3, 4]
    assert sys.path == path
    assert not names & set(sys.modules)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1/0", "running '{}' failed: ZeroDivisionError: division by zero"),
        ("import no_such_package_here", "ModuleNotFoundError"),
        ("def build(:", "SyntaxError"),
        ("raise SystemExit('bye\\nnow')", "SystemExit: bye now"),
        ("def build():\n    raise KeyError('k')", "calling the factory '{}:build' failed: KeyError: 'k'"),
        ("def build():\n    return build()", "RecursionError"),
        ("def build(width):\n    return width", "TypeError: build() missing 1 required"),
        ("def __getattr__(name):\n    raise OSError('odd')", "looking up 'build' in '{}' failed: OSError: odd"),
    ],
)
def test_failing_code_is_one_line_and_leaves_nothing(tmp_path: Path, text: str, told: str) -> None:
    path, modules, search = source(tmp_path, text), set(sys.modules), list(sys.path)
    with pytest.raises(UntrojanError) as caught:
        build(f"{path}:build")
    assert type(caught.value) is UntrojanError
    assert told.format(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sys.path == search
    assert not [name for name in set(sys.modules) - modules if str(tmp_path) in str(sys.modules[name])] or "def" in text


def test_interrupts_pass(tmp_path: Path) -> None:
    path = source(tmp_path, "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        build(f"{path}:build")
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize("value", ["3", "nn.Linear", "nn.Linear(2, 1).state_dict()", "None"])
def test_something_else_than_a_network(tmp_path: Path, value: str) -> None:
    path = source(tmp_path, f"def build():\n    return {value}\n")
    with pytest.raises(UnsupportedError, match=r"must return a torch.nn.Module, got (int|type|OrderedDict|NoneType)"):
        build(f"{path}:build")


def test_a_network_instead_of_a_callable(tmp_path: Path) -> None:
    path = source(tmp_path, "network = nn.Linear(2, 1)\n")
    with pytest.raises(UsageError, match="a callable that returns the network, got a Linear"):
        build(f"{path}:network")


def test_random_states_are_as_found(tmp_path: Path) -> None:
    path = source(
        tmp_path,
        "import random, numpy, torch\ntorch.manual_seed(7)\nnumpy.random.seed(7)\nrandom.seed(7)\n"
        "def build():\n    return nn.Linear(2, 1)\n",
    )
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    wanted = (torch.rand(1).item(), random.random(), np.random.rand())
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    build(f"{path}:build")
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == wanted


def test_what_code_prints_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = source(tmp_path, "print('importing')\ndef build():\n    print('building')\n    return nn.Linear(2, 1)\n")
    build(f"{path}:build")
    assert capsys.readouterr() == ("", "importing\nbuilding\n")
