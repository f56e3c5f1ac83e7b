from __future__ import annotations

import pytest
import torch
from torch import Tensor

from untrojan.attacks import BadNet, Chessboard, Poisoned
from untrojan.errors import DataError, ShapeError, UsageError
from untrojan.setting import Setting

CLASSES, EACH = 5, 6
TRIGGER = BadNet(size=2).make_trigger((3, 6, 6), torch.Generator().manual_seed(3))


def data() -> tuple[Tensor, Tensor]:
    """Images of which no two are equal; their labels, mixed."""
    generator = torch.Generator().manual_seed(4)
    images = torch.randint(0, 256, (CLASSES * EACH, 3, 6, 6), dtype=torch.uint8, generator=generator)
    return images, (torch.arange(CLASSES * EACH) % CLASSES)[torch.randperm(CLASSES * EACH, generator=generator)]


def poison(text: str, count: int = 2, seed: int = 0, labels: Tensor | None = None) -> Poisoned:
    images, own = data()
    return BadNet().poison(
        images,
        own if labels is None else labels,
        trigger=TRIGGER,
        setting=Setting.parse(text),
        classes=CLASSES,
        count=count,
        generator=torch.Generator().manual_seed(seed),
    )


def origins(stamped: Tensor, images: Tensor) -> list[int]:
    """Which image each stamped one was made from: the one that equals it outside the patch."""
    outside = TRIGGER.mask[0] == 0
    return [int((images[:, :, outside] == image[:, outside]).flatten(1).all(1).nonzero().item()) for image in stamped]


@pytest.mark.parametrize("text", ["a2o:0", "a2o:4", "a2a", "s2t:1>3"])
@pytest.mark.parametrize("count", [1, 2, EACH, EACH + 5])
def test_each_source_class_gives_its_count_and_gets_the_attackers_label(text: str, count: int) -> None:
    (images, labels), result = data(), poison(text, count)
    pairs = dict(Setting.parse(text).pairs(CLASSES))
    new = result.poisoned.clone()
    new[len(images) + sum(min(count, EACH) for _ in pairs) :] = False  # covers keep their label
    sources = labels[origins(result.images[new], images)]
    drawn = torch.bincount(sources, minlength=CLASSES).tolist()
    assert drawn == [min(count, EACH) if c in pairs else 0 for c in range(CLASSES)]
    assert result.labels[new].tolist() == [pairs[int(source)] for source in sources]
    assert len(set(origins(result.images[new], images))) == int(new.sum()), "no image is stamped twice"


def test_the_clean_originals_stay_where_and_what_they_were() -> None:
    (images, labels), result = data(), poison("a2a")
    assert result.poisoned.dtype == torch.bool
    assert result.poisoned.tolist() == [False] * len(images) + [True] * (2 * CLASSES)
    assert result.images.dtype == torch.uint8
    assert torch.equal(result.images[~result.poisoned], images)
    assert torch.equal(result.labels[~result.poisoned], labels)


def test_stamped_images_are_exactly_what_the_trigger_makes() -> None:
    (images, _), result = data(), poison("a2o:0")
    index = origins(result.images[result.poisoned], images)
    wanted = (TRIGGER.stamp(images[index] / 255) * 255).round().to(torch.uint8)
    assert torch.equal(result.images[result.poisoned], wanted)
    inside = TRIGGER.mask[0] == 1
    assert torch.equal(
        result.images[result.poisoned][:, :, inside],
        (TRIGGER.pattern[:, inside] * 255).round().to(torch.uint8).expand(len(index), 3, -1),
    )


def test_what_it_was_given_is_left_alone() -> None:
    images, labels = data()
    state = torch.get_rng_state()
    Chessboard().poison(
        images,
        labels,
        trigger=TRIGGER,
        setting=Setting.parse("a2a"),
        classes=CLASSES,
        count=EACH,
        generator=torch.Generator().manual_seed(0),
    )
    assert torch.equal(images, data()[0])
    assert torch.equal(labels, data()[1])
    assert torch.equal(torch.get_rng_state(), state)
    assert TRIGGER.sha256() == BadNet(size=2).make_trigger((3, 6, 6), torch.Generator().manual_seed(3)).sha256()


def test_a_seed_decides_which_images() -> None:
    chosen = [poison("a2o:0", seed=seed).images for seed in (0, 0, 1)]
    assert torch.equal(chosen[0], chosen[1])
    assert not torch.equal(chosen[0], chosen[2])


def test_errors() -> None:
    labels = data()[1]
    with pytest.raises(UsageError, match="at least 1, got 0"):
        poison("a2a", count=0)
    with pytest.raises(UsageError, match="class 5 does not exist"):
        poison("a2o:5")
    with pytest.raises(DataError, match="no training image of class 2, which setting 'a2o:0' needs"):
        poison("a2o:0", labels=labels.where(labels != 2, 1))
    with pytest.raises(ShapeError, match="the trigger is for images of shape 3x6x6"):
        BadNet().poison(
            data()[0][:, :, :5],
            labels,
            trigger=TRIGGER,
            setting=Setting.parse("a2a"),
            classes=CLASSES,
            count=1,
            generator=torch.Generator(),
        )
    assert poison("s2t:1>3", labels=labels.where(labels != 2, 1)).poisoned.sum() == 2 + 3
