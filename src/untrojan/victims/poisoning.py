"""From an attack and a clean training set to what a victim is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from untrojan.attacks import Aim, Attack, Game, JointAttack, OptimisedAttack
from untrojan.data import ImageSet
from untrojan.setting import Setting
from untrojan.triggers import AdditiveTrigger, Trigger, load_trigger, save_trigger


@dataclass(frozen=True)
class Backdoor:
    """The images to train on, uint8 [N, C, H, W], with their labels int64 [N]; the attack's game, if it has one."""

    images: Tensor
    labels: Tensor
    game: Game | None = None
    fixed: Trigger | None = None

    @property
    def trigger(self) -> Trigger | None:
        """The trigger; of a game, as far as it is trained by now. None: nothing was poisoned."""
        return self.fixed if self.game is None else self.game.trigger()


def plant(
    attack: Attack,
    train_set: ImageSet,
    *,
    setting: Setting,
    classes: int,
    count: int | float,
    seed: int,
    reference: Callable[[], nn.Module],
    keep: Path | None,
) -> Backdoor:
    """Make the trigger and poison the training set with it.

    reference: trains a clean network on the same images; called where an attack optimises its trigger on one. keep:
    where such a trigger lies while the training lasts: on a GPU it would not come out the same a second time.
    """
    channels, height, width = train_set.images.shape[1:]
    generator = torch.Generator().manual_seed(seed)
    trigger = attack.make_trigger((channels, height, width), generator)
    game = None
    if isinstance(attack, OptimisedAttack) and isinstance(trigger, AdditiveTrigger):
        trigger = _optimised(attack, trigger, train_set, setting, seed, reference, keep)
    elif isinstance(attack, JointAttack):
        game = attack.game((channels, height, width), Aim(setting, classes), generator)
    made = attack.poison(
        train_set.images,
        train_set.labels,
        trigger=trigger,
        setting=setting,
        classes=classes,
        count=count,
        generator=generator,
    )
    return Backdoor(made.images, made.labels, game, trigger)


def _optimised(
    attack: OptimisedAttack,
    start: AdditiveTrigger,
    train_set: ImageSet,
    setting: Setting,
    seed: int,
    reference: Callable[[], nn.Module],
    keep: Path | None,
) -> AdditiveTrigger:
    if keep is not None and keep.is_file():
        kept, _ = load_trigger(keep)
        if isinstance(kept, AdditiveTrigger):
            return kept
    trigger = attack.optimise(start, reference(), train_set.images, torch.Generator().manual_seed(seed))
    if keep is not None:
        save_trigger(keep, trigger, setting)
    return trigger
