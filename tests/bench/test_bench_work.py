"""Which images a cell uses for what."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from untrojan.bench.cell import Cell
from untrojan.bench.work import _stand_ins, images_of
from untrojan.errors import DataError

CellsOf = Callable[..., list[Cell]]
NONE, STRIP = {"name": "none"}, {"name": "strip", "test_limit": 6}


def test_the_parts_share_no_image_and_are_balanced(cells: CellsOf) -> None:
    images = images_of(cells(NONE, defence=0.3, scan_images=12, test_limit=30)[0])
    parts = [set(part.hashes()) for part in (images.defence, images.scan, images.test)]
    assert [len(part) for part in parts] == [27, 12, 30]
    assert parts[1] < parts[0]
    assert not parts[0] & parts[2]
    for part in (images.defence, images.scan, images.test):
        assert torch.bincount(part.labels).tolist() == [len(part) // 3] * 3


def test_all_methods_have_the_same_images_and_a_limit_takes_some_of_them(cells: CellsOf) -> None:
    alone, strip = (images_of(cell) for cell in cells(NONE, STRIP)[:2])
    assert alone.defence.hashes() == strip.defence.hashes()
    assert len(strip.test) == 6
    assert set(strip.test.hashes()) < set(alone.test.hashes())
    other = images_of(cells(NONE, seeds=(1,))[0])
    assert other.defence.hashes() != alone.defence.hashes()


def test_what_the_defence_has_seen_twice_is_no_test(cells: CellsOf, tmp_path: Path) -> None:
    for number in range(24):
        folder = tmp_path / "abc"[number % 3]
        folder.mkdir(exist_ok=True)
        Image.new("L", (8, 8), 10 * (number // 6)).save(folder / f"{number}.png")
    images = images_of(cells(NONE, defence=3, data=str(tmp_path))[0])
    assert images.left_out == 24 - 3 - len(images.test) > 0
    assert not set(images.defence.hashes()) & set(images.test.hashes())


def test_a_scan_of_many_classes_gets_ten_images_of_each(cells: CellsOf, tmp_path: Path) -> None:
    names = tuple(f"c{number:02}" for number in range(51))
    noise = torch.Generator().manual_seed(1)
    for name in names:
        (tmp_path / name).mkdir()
        for number in range(12):
            picture = torch.randint(0, 255, (8, 8), generator=noise, dtype=torch.uint8)
            Image.fromarray(picture.numpy()).save(tmp_path / name / f"{number}.png")
    few = cells(NONE, defence=561, data=str(tmp_path))[0]
    many = dataclasses.replace(few, victim=dataclasses.replace(few.victim, class_names=names))
    assert torch.bincount(images_of(many).scan.labels).tolist() == [10] * 51


def test_stand_ins_are_shared_by_the_cells_of_one_scan_alone() -> None:
    _stand_ins("one")["anything"] = "made"  # type: ignore[index, assignment]
    assert _stand_ins("one")
    assert not _stand_ins("another")


def test_too_few_images_are_told(cells: CellsOf) -> None:
    with pytest.raises(DataError, match="the defence is to get 90 images, and there are 90"):
        images_of(cells(NONE, defence=90)[0])
