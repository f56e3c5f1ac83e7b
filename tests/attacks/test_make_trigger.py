from __future__ import annotations

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from untrojan.attacks import ATTACKS, Attack, BadNet, Chessboard
from untrojan.errors import UsageError
from untrojan.triggers import to_grid

SHAPES = [(1, 8, 8), (3, 9, 6)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_attack_is_determined_by_its_seed(name: str, shape: tuple[int, int, int]) -> None:
    attack = ATTACKS[name]()
    assert isinstance(attack, Attack)
    assert attack.name == name
    state = torch.get_rng_state()
    first = attack.make_trigger(shape, generator(1))
    assert torch.equal(torch.get_rng_state(), state), "it draws from the generator that it is given alone"
    assert first.sha256() == ATTACKS[name]().make_trigger(shape, generator(1)).sha256()
    assert first.image_shape[1:] == shape[1:]
    assert first.image_shape[0] in (shape[0], 1)  # 1: suits any number of channels
    assert first.size > 0
    assert first.stamp(torch.full((2, *shape), 0.5)).shape == (2, *shape)


@pytest.mark.parametrize("name", ATTACKS)
def test_constructors_take_keywords_with_defaults_alone(name: str) -> None:
    for parameter in list(inspect.signature(ATTACKS[name].__init__).parameters.values())[1:]:
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default is not inspect.Parameter.empty


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(5, 9), st.integers(5, 9), st.integers(0, 1000))
def test_a_badnet_patch_is_a_square_inside(size: int, height: int, width: int, seed: int) -> None:
    trigger = BadNet(size=size).make_trigger((3, height, width), generator(seed))
    mask, pattern = trigger.mask[0], trigger.pattern
    assert set(mask.flatten().tolist()) <= {0.0, 1.0}
    assert trigger.size == size * size
    rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
    assert rows.tolist() == list(range(int(rows[0]), int(rows[0]) + size))
    assert columns.tolist() == list(range(int(columns[0]), int(columns[0]) + size))
    assert torch.equal(pattern, to_grid(pattern))
    assert not pattern[:, mask == 0].any()


def test_badnet_seeds_give_other_places_and_colours_and_reach_every_place() -> None:
    triggers = [BadNet(size=2).make_trigger((1, 4, 3), generator(seed)) for seed in range(200)]
    places = {tuple(trigger.mask[0].nonzero()[0].tolist()) for trigger in triggers}
    assert places == {(i, j) for i in range(3) for j in range(2)}
    assert len({trigger.sha256() for trigger in triggers}) > 190


def test_a_given_place_is_taken_and_leaves_the_colours() -> None:
    free = BadNet().make_trigger((3, 8, 8), generator(2))
    for row, column in [(0, 0), (5, 5), (1, 4)]:
        trigger = BadNet(row=row, column=column).make_trigger((3, 8, 8), generator(2))
        assert trigger.mask[0].nonzero()[0].tolist() == [row, column]
        assert torch.equal(trigger.pattern[:, trigger.mask[0] == 1], free.pattern[:, free.mask[0] == 1])


def test_a_patch_may_fill_the_image() -> None:
    assert BadNet(size=8).make_trigger((3, 8, 8), generator()).mask.all()


@pytest.mark.parametrize("options", [{"size": 9}, {"size": 7}, {"row": 4}, {"column": 6}, {"row": -1}, {"column": -1}])
def test_badnet_patches_that_do_not_fit(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="badnet: "):
        BadNet(**options).make_trigger((3, 6, 8), generator())


def test_impossible_sizes_and_amplitudes() -> None:
    for size in (0, -1):
        with pytest.raises(UsageError, match="at least 1"):
            BadNet(size=size)
    for amplitude in (0, -2, 256, float("nan"), float("inf")):
        with pytest.raises(UsageError, match=r"in \(0, 255\]"):
            Chessboard(amplitude=amplitude)


@pytest.mark.parametrize("amplitude", [2, 6.0, 255])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_chessboard_adds_its_amplitude_to_every_second_pixel(shape: tuple[int, int, int], amplitude: float) -> None:
    trigger = Chessboard(amplitude=amplitude).make_trigger(shape, generator())
    for channel in trigger.delta:
        for i, row in enumerate(channel.tolist()):
            assert row == pytest.approx([amplitude / 255 if (i + j) % 2 == 0 else 0 for j in range(shape[2])])
    grey = torch.full((1, *shape), 100 / 255)
    levels = (trigger.stamp(grey) * 255).round().unique().tolist()
    assert levels == [100, min(100 + amplitude, 255)]
