"""Attacks, for making victims to test on. A new one is a file here and a line in ``ATTACKS``."""

from untrojan.attacks.badnet import BadNet
from untrojan.attacks.base import Attack, Poisoned
from untrojan.attacks.blended import Blended
from untrojan.attacks.chessboard import Chessboard
from untrojan.attacks.sig import SIG
from untrojan.attacks.single_pixel import SinglePixel
from untrojan.attacks.wanet import WaNet

ATTACKS: dict[str, type[Attack]] = {
    attack.name: attack for attack in (BadNet, Chessboard, SinglePixel, WaNet, Blended, SIG)
}

__all__ = ["ATTACKS", "SIG", "Attack", "BadNet", "Blended", "Chessboard", "Poisoned", "SinglePixel", "WaNet"]
