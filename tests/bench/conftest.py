"""An untrained network that passes for an attacked victim, images for it, and workers that work in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from untrojan.bench.cell import Cell, cells_of
from untrojan.bench.plan import Plan
from untrojan.bench.victims import victims_of
from untrojan.setting import Setting
from untrojan.triggers import PatchTrigger
from untrojan.victims import convnet
from untrojan.victims.files import save_victim
from untrojan.victims.making import Victim

CellsOf = Callable[..., list[Cell]]


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 grey images of three classes, 8x8."""
    root = tmp_path_factory.mktemp("images")
    noise = torch.Generator().manual_seed(0)
    for number in range(90):
        folder = root / "abc"[number % 3]
        folder.mkdir(exist_ok=True)
        picture = torch.randint(0, 255, (8, 8), generator=noise, dtype=torch.uint8)
        Image.fromarray(picture.numpy()).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def victims(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two folders: an attacked victim and a clean one."""
    root = tmp_path_factory.mktemp("victims")
    torch.manual_seed(0)
    mask = torch.zeros(1, 8, 8)
    mask[0, :2, :2] = 1
    for name in ("attacked", "clean"):
        card = {
            "schema": "untrojan-victim-1",
            "model": "convnet?width=2&classes=3&channels=1",
            "weights": "victim.safetensors",
            "input_shape": (1, 8, 8),
            "class_names": ("a", "b", "c"),
            "attack": "badnet" if name == "attacked" else "none",
            "setting": "a2o:1" if name == "attacked" else None,
            "attack_options": {"size": 2} if name == "attacked" else {},
        }
        trigger, setting = PatchTrigger(mask, mask.clone()), Setting.parse("a2o:1")
        attacked = name == "attacked"
        module = convnet(width=2, classes=3, channels=1).eval()
        save_victim(root / name, Victim(module, trigger if attacked else None, setting if attacked else None, card))
    return [str(root / "attacked"), str(root / "clean")]


@pytest.fixture
def cells(victims: list[str], images: Path) -> CellsOf:
    """``cells(*methods, seeds=..., **settings)``: the cells of both victims."""

    def make(*methods: dict[str, object], seeds: tuple[int, ...] = (0,), **settings: object) -> list[Cell]:
        shared = {"defence": 30, "data": str(images)} | settings
        plan = Plan.model_validate({"victims": victims, "seeds": seeds, "settings": shared, "method": methods})
        return cells_of(plan, victims_of(plan, None))

    return make
