"""The state of a training between two epochs, in a file from which it goes on exactly."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from untrojan.attacks import Game
from untrojan.errors import CheckpointError, UsageError
from untrojan.storage import write_bytes

STATE = "untrojan-training.pt"
"""Its name in a victim's folder, which nobody else's file is likely to have: it goes when the training ends."""

Row = dict[str, float | None]


class OtherTrainingError(UsageError):
    """A kept state is of a training with other settings or data."""


@dataclass(frozen=True)
class State:
    """Everything that a step of training changes."""

    network: nn.Module
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    generator: torch.Generator
    game: Game | None

    def parts(self) -> dict[str, Any]:
        """The states as ``torch.save`` takes them."""
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
            "game": None if self.game is None else self.game.networks.state_dict(),
        }

    def restore(self, parts: dict[str, Any]) -> None:
        """Put the states back."""
        self.network.load_state_dict(parts["network"])
        self.optimiser.load_state_dict(parts["optimiser"])
        self.schedule.load_state_dict(parts["schedule"])
        self.generator.set_state(parts["generator"].cpu())
        if self.game is not None:
            self.game.networks.load_state_dict(parts["game"])


@dataclass(frozen=True)
class Checkpoint:
    """A file, and the ``key`` of the one training that it is of: everything that the result depends on."""

    path: Path
    key: str

    def save(self, state: State, history: list[Row]) -> None:
        """Write the state after ``len(history)`` epochs, whole or not at all; raises OutputError."""
        stream = io.BytesIO()
        torch.save({"key": self.key, "history": history, "state": state.parts()}, stream)
        write_bytes(self.path, stream.getvalue())

    def load(self, state: State) -> list[Row]:
        """Restore the state and return the history so far; empty if there is no file.

        Raises OtherTrainingError if the file is of another training, CheckpointError if it is damaged.
        """
        if not self.path.exists():
            return []
        try:
            found = torch.load(self.path, map_location="cpu", weights_only=True)
            key, history, parts = found["key"], list(found["history"]), found["state"]
        except Exception as error:  # a damaged archive fails in a dozen ways, none of them of interest
            raise CheckpointError(
                f"{self.path}: training cannot go on from this file ({type(error).__name__}); remove it to begin anew"
            ) from None
        if key != self.key:
            raise OtherTrainingError(
                f"{self.path} is of a training with other settings or data; give those again, or leave out --resume"
            )
        state.restore(parts)
        return history

    @property
    def trigger(self) -> Path:
        """A file for the trigger of this very training, which ``forget`` removes too."""
        return self.path.with_name(f"{self.path.stem}.{self.key[:16]}.trigger.safetensors")


def forget(path: Path) -> None:
    """Remove the state of a training, what lies beside it, and what a killed process left of writing them.

    Files of these names alone: others that begin with the same word are the user's.
    """
    own = rf"{re.escape(path.name)}|{re.escape(path.stem)}\.[0-9a-f]{{16}}\.trigger\.safetensors"
    names = re.compile(rf"({own})|\.({own})\.[a-z0-9_]{{8}}")  # those with a dot are temporary, see ``write_bytes``
    for found in path.parent.iterdir() if path.parent.is_dir() else ():
        if names.fullmatch(found.name) and (found.is_file() or found.is_symlink()):
            found.unlink(missing_ok=True)
