"""The answer in plain language: what was found, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from untrojan.records import Evaluation, GuardCard, ScanReport, TargetCheck
from untrojan.report.content import ReportContent
from untrojan.report.wording import ClassName, Sentence, listing, measured, percent, probability

Tone = Literal["bad", "good", "unsure", "neutral"]

TARGETS_SHOWN = 6
HEADLINE_LIMIT = 90


@dataclass(frozen=True)
class Verdict:
    """A headline, the sentences under it, and what a careful reader wants to know about them."""

    tone: Tone
    headline: str
    sentences: tuple[Sentence, ...]
    reason: str | None = None
    warning: Sentence | None = None


def verdict(content: ReportContent) -> Verdict:
    """The first thing that a reader should see."""
    scan, outcome = content.scan, _outcome(content.guard, content.evaluation)
    if scan is None:
        return _without_scan(content, outcome)
    reason = scan.reason if scan.p_value is None else f"{scan.reason} ({probability(scan.p_value)})"
    if scan.verdict == "backdoor":
        return Verdict("bad", "Backdoor found", _moves(scan) + _cut_short(scan) + outcome, reason)
    unseen = missed(content)
    if scan.verdict == "inconclusive":
        refusal = ("The scan could not decide. That does not mean that the classifier is clean.",)
        headline = f"Inconclusive: {scan.reason}" if len(scan.reason) <= HEADLINE_LIMIT else "Inconclusive"
        rest = None if scan.reason in headline else scan.reason
        return Verdict("unsure", headline, (refusal, *outcome), rest, unseen)
    if unseen is not None:
        return Verdict("bad", "The scan missed a backdoor", outcome, reason, unseen)
    kinds = sorted({pair.kind for pair in scan.pairs} | set(map(str, scan.settings.get("kinds", ()))))
    searched = f" ({', '.join(kinds)})" if kinds else ""
    sentence = (f"No class is unusually easy to reach with a trigger of the kinds searched for{searched}.",)
    return Verdict("good", "No backdoor found", (sentence, *outcome), reason)


def _cut_short(scan: ScanReport) -> tuple[Sentence, ...]:
    """What the time did not suffice for: a guard is one for the targets that are known."""
    if not scan.unreached:
        return ()
    more = f" and {len(scan.unreached) - 1} more" if len(scan.unreached) > 1 else ""
    return ((f"The time allowed did not suffice for {scan.unreached[0]}{more}: there may be more targets.",),)


def _moves(scan: ScanReport) -> tuple[Sentence, ...]:
    """One sentence per target class."""
    sentences: list[Sentence] = []
    for target in scan.targets[:TARGETS_SHOWN]:
        sources = scan.sources(target)
        start: Sentence
        if not sources:
            start = ("With a trigger, images are sent to class ",)
        elif len(sources) > 2 and len(sources) == scan.victim.classes - 1:
            start = ("With a trigger, images of every other class are sent to class ",)
        else:
            names = listing(ClassName.of(scan.victim, source) for source in sources)
            word = "class" if len(sources) == 1 else "classes"
            start = (f"With a trigger, images of {word} ", *names, " are sent to class ")
        sentences.append((*start, ClassName.of(scan.victim, target), "."))
    hidden = len(scan.targets) - len(sentences)
    if hidden:
        sentences.append((f"{hidden} more target class{'es are' if hidden > 1 else ' is'} among the pairs below.",))
    return tuple(sentences)


def _outcome(guard: GuardCard | None, evaluation: Evaluation | None) -> tuple[Sentence, ...]:
    """What the guard achieved, as far as it was measured."""
    after = evaluation.after if evaluation is not None else None
    before_asr = measured(evaluation.before.asr) if evaluation is not None else None
    after_asr = measured(after.asr) if after is not None else None
    if before_asr is not None and after_asr is not None:
        return ((f"Behind its guard, {percent(after_asr.value)} of the triggered images get the attacker's class; "
                 f"without it, {percent(before_asr.value)} do.",),)  # fmt: skip
    if guard is not None:
        if guard.form == "replacement":
            return ((f"Another network was made of it by {guard.method}, which answers for every image; whether it is "
                     "rid of the trigger was not measured.",),)  # fmt: skip
        made = (f"A guard was made for {len(guard.targets)} target class{'es' * (len(guard.targets) != 1)}.",)
        return (made, *_checked(guard))
    return ()


def _checked(guard: GuardCard) -> tuple[Sentence, ...]:
    """The guard on triggers that it was not made with: the worst target."""
    worst = weakest(guard)
    if worst is None:
        return ()
    target, check = worst
    asr, before = measured(check.asr), measured(check.asr_before)
    if asr is None or before is None:
        return ()
    return (
        (f"Checked with {len(check.held_out)} inverted triggers into ", ClassName.of(guard.victim, target),
         f" that it was not made with: behind it they move {percent(asr.value)} of the images, without it "
         f"{percent(before.value)}."),
    )  # fmt: skip


def weakest(guard: GuardCard) -> tuple[int, TargetCheck] | None:
    """The target whose held-out triggers still work on the most images; None if there were none."""
    tried = [(t, c, asr.value) for t, c in guard.checks.items() if (asr := measured(c.asr)) is not None]
    return max(tried, key=lambda item: item[2])[:2] if tried else None


def missed(content: ReportContent) -> Sentence | None:
    """The warning that a trigger works on most images although the scan did not find it."""
    before = content.evaluation.before if content.evaluation is not None else None
    asr = measured(before.asr) if before is not None else None
    floor = measured(before.asr_floor) if before is not None else None
    if asr is None or asr.low <= max(0.5, floor.high if floor is not None else 0.0):
        return None
    return (f"The trigger of the evaluation moves {percent(asr.value)} of its images to the attacker's class: "
            "there is a backdoor that the scan did not find.",)  # fmt: skip


def _without_scan(content: ReportContent, outcome: tuple[Sentence, ...]) -> Verdict:
    evaluation, guard = content.evaluation, content.guard
    if evaluation is not None:
        asr, acc = measured(evaluation.before.asr), measured(evaluation.before.acc)
        sentences = list(outcome) if evaluation.after is not None else []
        if not sentences and asr is not None:
            sentences.append((f"The trigger moves {percent(asr.value)} of its images to the attacker's class.",))
        if acc is not None:
            sentences.append((f"On clean images the classifier alone is right on {percent(acc.value)}.",))
        return Verdict("neutral", "Evaluation", tuple(sentences))
    if guard is not None:
        names = listing(ClassName.of(guard.victim, target) for target in guard.targets)
        word = "class" if len(guard.targets) == 1 else "classes"
        if guard.form == "replacement":
            return Verdict("neutral", "Network replaced", _outcome(guard, None))
        about = ((f"It checks every image that is sent to {word} ", *names, "."), *_checked(guard))
        return Verdict("neutral", "Guard made", about)
    return Verdict("neutral", "Nothing was measured", ())
