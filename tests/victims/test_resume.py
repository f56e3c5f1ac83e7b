"""A training that was interrupted ends as one that was not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from untrojan.attacks import Aim, Game, Wasserstein
from untrojan.data import ImageSet
from untrojan.errors import CheckpointError, UsageError
from untrojan.setting import Setting
from untrojan.victims import ARCHITECTURES
from untrojan.victims.checkpoint import Checkpoint
from untrojan.victims.making import make_victim
from untrojan.victims.training import TrainingSettings, train

CPU = torch.device("cpu")
SETTINGS = TrainingSettings(epochs=4, batch_size=16, augmentation="crop-flip")


def data(count: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator), torch.arange(count) % 3


class Killed(BaseException):
    pass


def run(checkpoint: Checkpoint | None, *, stop_in: int | None = None, joint: bool = False) -> tuple[dict, list]:
    """Train a small network; with ``stop_in``, die in the middle of that epoch."""
    torch.manual_seed(1)
    network = ARCHITECTURES["convnet"](width=2, classes=3, channels=1)
    game: Game | None = None
    if joint:
        game = Wasserstein().game((1, 8, 8), Aim(Setting.parse("a2a"), 3), torch.Generator().manual_seed(2))
    steps = 0

    def on_step() -> None:
        nonlocal steps
        steps += 1
        if stop_in is not None and steps == 3 * stop_in + 2:
            raise Killed

    history = train(network, *data(), SETTINGS, seed=5, device=CPU, game=game, checkpoint=checkpoint, on_step=on_step)
    state = dict(network.state_dict())
    if game is not None:
        state |= {f"game.{name}": value for name, value in game.networks.state_dict().items()}
    return state, history


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("stop_in", [0, 1, 3])
def test_it_ends_in_the_same_weights_and_history(tmp_path: Path, stop_in: int, joint: bool) -> None:
    whole, history = run(None, joint=joint)
    checkpoint = Checkpoint(tmp_path / "state.pt", "key")
    with pytest.raises(Killed):
        run(checkpoint, stop_in=stop_in, joint=joint)
    assert checkpoint.path.exists() == (stop_in > 0)
    again, resumed = run(checkpoint, joint=joint)
    assert resumed == history
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_the_state_of_another_training_is_refused(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "state.pt", "key")
    with pytest.raises(Killed):
        run(checkpoint, stop_in=2)
    with pytest.raises(UsageError, match="other settings or data"):
        run(Checkpoint(checkpoint.path, "another key"))
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="remove it to begin anew"):
        run(checkpoint)


@pytest.mark.parametrize("attack", ["l2-inv", "input-aware", "badnet"])
def test_a_victim_is_the_same_after_an_interruption(attack: str, tmp_path: Path) -> None:
    images, labels = data()
    train_set = ImageSet(images, labels, None, "noise")

    class Interrupting:
        left = 10**6

        def start(self, description: str, total: int) -> None: ...

        def note(self, text: str) -> None: ...

        def advance(self, count: int = 1) -> None:
            self.left -= count
            if self.left < 0:
                raise KeyboardInterrupt

    def make(progress: Interrupting, state: Path | None):
        return make_victim(
            train_set,
            attack=attack,
            setting=Setting.parse("a2o:1"),
            arch="convnet",
            width=2,
            count=None if attack == "input-aware" else 4,
            training=SETTINGS,
            device=CPU,
            progress=progress,
            state=state,
        )

    whole = make(Interrupting(), None)
    early = Interrupting()
    early.left = 14 if attack == "l2-inv" else 8  # the attacker's own network takes 6 steps
    with pytest.raises(KeyboardInterrupt):
        make(early, tmp_path / "untrojan-training.pt")
    assert (tmp_path / "untrojan-training.pt").exists()
    again = make(Interrupting(), tmp_path / "untrojan-training.pt")
    assert again.classifier().sha256() == whole.classifier().sha256()
    assert again.trigger is not None
    assert whole.trigger is not None
    assert again.trigger.sha256() == whole.trigger.sha256()
    assert again.card["history"] == whole.card["history"]
