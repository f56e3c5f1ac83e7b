"""Attacks, for making victims to test on. A new one is a file here and a line in ``ATTACKS``."""

from untrojan.attacks.badnet import BadNet
from untrojan.attacks.base import Attack, Poisoned
from untrojan.attacks.chessboard import Chessboard

ATTACKS: dict[str, type[Attack]] = {"badnet": BadNet, "chessboard": Chessboard}

__all__ = ["ATTACKS", "Attack", "BadNet", "Chessboard", "Poisoned"]
