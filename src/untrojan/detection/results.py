"""What the searches of one kind of trigger found."""

from __future__ import annotations

from dataclasses import dataclass, field

from untrojan.detection.anomaly import log_sizes
from untrojan.detection.evidence import Finding
from untrojan.detection.inversion import Inversion


@dataclass
class KindResults:
    """The inversions of one kind of trigger, by what they were for; empty where it was not searched.

    ``refined_targets``, ``refined``: a few of ``targets`` and ``pairs``, searched on; ``singled``: a few of
    ``refined``, searched on again. ``spills``: what the triggers of ``refined``, or of ``singled``, do to images of
    other classes (``spill.spill``). ``mapped``: how much the class of an image that a trigger of ``probes`` moves says
    of where it goes (``mapping.information``). ``foreign``: of triggers into a class, by the class, and of pairs, how
    much of what they change inside the network is foreign to the classes (``foreign.foreign_shares``).
    """

    targets: dict[int, Inversion] = field(default_factory=dict)
    refined_targets: dict[int, Inversion] = field(default_factory=dict)
    probes: dict[int, Inversion] = field(default_factory=dict)
    pairs: dict[tuple[int, int], Inversion] = field(default_factory=dict)
    refined: dict[tuple[int, int], Inversion] = field(default_factory=dict)
    singled: dict[tuple[int, int], Inversion] = field(default_factory=dict)
    sources: dict[int, Inversion] = field(default_factory=dict)
    spills: dict[tuple[int, int], float] = field(default_factory=dict)
    mapped: dict[int, float] = field(default_factory=dict)
    foreign: dict[int | tuple[int, int], float] = field(default_factory=dict)

    @property
    def latest(self) -> dict[tuple[int, int], Inversion]:
        """Of each pair the trigger that was searched the longest."""
        found = self.pairs
        for later in (self.refined, self.singled):
            found = found | {pair: i for pair, i in later.items() if i.size is not None}
        return found


def inversion_of(finding: Finding, result: KindResults) -> Inversion:
    """What a finding is about."""
    if finding.source is not None and finding.target is not None:
        pair = finding.source, finding.target
        return result.latest[pair] if finding.test == "single" else result.refined[pair]
    if finding.source is not None:
        return result.sources[finding.source]
    return result.probes[finding.number] if finding.target is None else trigger_into(finding.target, result)


def trigger_into(target: int, result: KindResults) -> Inversion:
    """From all classes, as it ended."""
    return result.refined_targets.get(target, result.targets[target])


def shrinkage(first: Inversion, refined: Inversion) -> float:
    """By how much the size became smaller, as a log ratio; both have one."""
    before, after = log_sizes([first.size, refined.size])
    return float(before - after)
