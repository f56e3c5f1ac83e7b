"""Which searches a scan makes: a declaration, by kind of trigger, scope and number of classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from untrojan.detection.additive import AdditiveFamily
from untrojan.detection.blend import BlendFamily
from untrojan.detection.family import TriggerFamily
from untrojan.detection.inversion import Budget
from untrojan.detection.patch import PatchFamily
from untrojan.detection.warp import WarpFamily

FAMILIES: dict[str, type[TriggerFamily]] = {
    "patch": PatchFamily,
    "additive": AdditiveFamily,
    "warp": WarpFamily,
    "blend": BlendFamily,
}

MANY = 20
"""With more classes not every pair is searched: their number grows with the square."""


@dataclass(frozen=True, kw_only=True)
class TargetWise:
    """One trigger from all classes into each.

    first: the search for every class, by kind; of_many: the same with more than ``MANY`` classes. again: how the
    ``smallest`` of a kind go on where there are few classes. refined, refining: how many go on where there are many,
    and how. stuck: a search is made once more if an untargeted trigger, of which a share ``alone`` goes to its class,
    is smaller by this factor.

    An attacker's patch moves nine in ten images as easily as three in four, another one has to grow for it; a
    perturbation's search comes to its end in larger steps only; and an attacker's warp is a fraction of any other, even
    on eight images.
    """

    first: Mapping[str, Budget] = field(
        default_factory=lambda: {
            "patch": Budget(steps=50, images=20, level=0.9),
            "additive": Budget(steps=50, images=20, level=0.75, pace=1.5),
            "warp": Budget(steps=50, images=8, level=0.75),
            "blend": Budget(steps=30, images=20, level=0.75),
        }
    )
    of_many: Budget = field(default_factory=lambda: Budget(steps=50, images=20, level=0.75))
    smallest: int = 3
    again: Mapping[str, Budget] = field(
        default_factory=lambda: {"patch": Budget(steps=40, images=24, level=0.95, patience=40)}
    )
    refined: int = 8
    refining: Budget = field(default_factory=lambda: Budget(steps=50, images=40, level=0.75, patience=50))
    stuck: float = 2.0
    alone: float = 0.95


@dataclass(frozen=True, kw_only=True)
class PairWise:
    """One trigger for each pair of classes, or, where these are more than ``most``, from each class to whatever other.

    first: the search for every pair, by kind; refined: how many go on, the same in every kind; refining: how, from the
    trigger of the first and on all images of the class; singled: how many go on once more; blends: the search for a
    blend of all that were refined; sources: the search from each class.
    """

    first: Mapping[str, Budget] = field(
        default_factory=lambda: {
            "patch": Budget(steps=25, images=6, pace=2.5, cost=5.0),
            "additive": Budget(steps=30, images=6, pace=2.0, cost=5.0),
        }
    )
    most: int = 400
    refined: int = 12
    refining: Budget = field(default_factory=lambda: Budget(steps=40, images=8, level=0.85, patience=40))
    singled: int = 4
    blends: Budget = field(default_factory=lambda: Budget(steps=40, images=8, level=0.9, patience=40))
    sources: Budget = field(default_factory=lambda: Budget(steps=50, images=8, level=0.9))


@dataclass(frozen=True, kw_only=True)
class Untargeted:
    """One trigger that moves images of all classes to whatever other one, as an all-to-all attack's does.

    tiles: the search from each part of the image, of at most ``MANY`` classes; search: the one that counts, from
    ``starts`` triggers of pairs, sources or parts, or ``starts_of_many``; at_random: the same by kinds that have none
    of these. trial: images that choose among them.
    """

    starts: int = 4
    starts_of_many: int = 5
    trial: int = 40
    tiles: Budget = field(default_factory=lambda: Budget(steps=20, images=8, level=0.35, pace=3.0))
    search: Budget = field(default_factory=lambda: Budget(steps=50, images=24, level=0.6, patience=40))
    at_random: Mapping[str, tuple[int, Budget]] = field(
        default_factory=lambda: {
            "warp": (2, Budget(steps=50, images=24, level=0.6, patience=40)),
            "blend": (1, Budget(steps=30, images=24, level=0.6, patience=30)),
        }
    )


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """All searches of a scan; kinds: of trigger, by ``FAMILIES``."""

    kinds: tuple[str, ...] = tuple(FAMILIES)
    target_wise: TargetWise = field(default_factory=TargetWise)
    pair_wise: PairWise = field(default_factory=PairWise)
    untargeted: Untargeted = field(default_factory=Untargeted)

    def suited_to(self, classes: int) -> Self:
        """The same without kinds that are not searched for with so many classes."""
        return replace(self, kinds=tuple(k for k in self.kinds if classes <= MANY or FAMILIES[k].for_many))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a record."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class ScanSettings(SearchPlan):
    """A plan, and what is done with what it finds. alpha: the verdict is "backdoor" where the p-value is below; pooled:
    the search for the trigger of a target from all its sources, once these are known."""

    alpha: float = 0.01
    pooled: Budget = field(default_factory=lambda: Budget(steps=38, images=14, level=0.7, patience=38))
