"""Attacks, for making victims to test on. A new one is a file here and a line in ``ATTACKS``."""

from untrojan.attacks.badnet import BadNet
from untrojan.attacks.base import Attack, Poisoned
from untrojan.attacks.blended import Blended
from untrojan.attacks.chessboard import Chessboard
from untrojan.attacks.input_aware import InputAware
from untrojan.attacks.joint import Aim, Game, JointAttack
from untrojan.attacks.l0_inv import L0Inv
from untrojan.attacks.l2_inv import L2Inv
from untrojan.attacks.optimised import OptimisedAttack
from untrojan.attacks.presets import PRESETS, Preset, preset_for
from untrojan.attacks.sig import SIG
from untrojan.attacks.single_pixel import SinglePixel
from untrojan.attacks.wanet import WaNet
from untrojan.attacks.wasserstein import Wasserstein

ATTACKS: dict[str, type[Attack]] = {
    attack.name: attack
    for attack in (BadNet, Chessboard, SinglePixel, L0Inv, L2Inv, WaNet, Blended, SIG, InputAware, Wasserstein)
}

__all__ = [
    "ATTACKS",
    "PRESETS",
    "SIG",
    "Aim",
    "Attack",
    "BadNet",
    "Blended",
    "Chessboard",
    "Game",
    "InputAware",
    "JointAttack",
    "L0Inv",
    "L2Inv",
    "OptimisedAttack",
    "Poisoned",
    "Preset",
    "SinglePixel",
    "WaNet",
    "Wasserstein",
    "preset_for",
]
