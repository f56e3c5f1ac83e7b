"""The answer in plain language: what was found, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from untrojan.records import Evaluation, GuardCard, ScanReport, TargetCheck
from untrojan.report.content import ReportContent
from untrojan.report.wording import ClassName, Code, Sentence, listing, measured, percent, probability

Tone = Literal["bad", "good", "unsure", "neutral"]

TARGETS_SHOWN = 6
HEADLINE_LIMIT = 90
HELD_OUT_LIMIT = 0.1
"""A guard that lets more of the held-out triggers through has gaps."""


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
        return Verdict("bad", "Backdoor found", _moves(scan) + outcome, reason)
    missed = _missed(content)
    if scan.verdict == "inconclusive":
        refusal = ("The scan could not decide. That does not mean that the classifier is clean.",)
        headline = f"Inconclusive: {scan.reason}" if len(scan.reason) <= HEADLINE_LIMIT else "Inconclusive"
        rest = None if scan.reason in headline else scan.reason
        return Verdict("unsure", headline, (refusal, *outcome), rest, missed)
    if missed is not None:
        return Verdict("bad", "The scan missed a backdoor", outcome, reason, missed)
    kinds = sorted({pair.kind for pair in scan.pairs} | set(map(str, scan.settings.get("kinds", ()))))
    searched = f" ({', '.join(kinds)})" if kinds else ""
    sentence = (f"No class is unusually easy to reach with a trigger of the kinds searched for{searched}.",)
    return Verdict("good", "No backdoor found", (sentence, *outcome), reason)


def next_steps(content: ReportContent) -> tuple[Sentence, ...]:
    """What to do with the answer, the most important first."""
    scan, guard, evaluation = content.scan, content.guard, content.evaluation
    if scan is not None and scan.verdict == "inconclusive" and scan.unreached:
        return (
            ("Do not treat this classifier as safe.",),
            ("Give the scan more time: ", Code("untrojan scan … --out DIR --resume"), " goes on where it stopped."),
        )
    if scan is not None and scan.verdict == "inconclusive":
        return (
            ("Do not treat this classifier as safe.",),
            ("Remove the reason given above, then scan again; more clean images of every class often help.",),
        )
    if scan is not None and scan.verdict == "clean" and _missed(content) is not None:
        return (
            ("Do not use this classifier.",),
            ("Scan again with more clean images and more kinds of trigger, or train anew on data that you trust.",),
        )
    if scan is not None and scan.verdict == "clean" and guard is None:
        return (
            ("Keep this report with the weights: their hash is below, and it answers for no others.",),
            ("Scan again whenever the weights change.",),
            ("Remember what a scan can tell: it searched for triggers of certain kinds with ",
             f"{scan.images:,} clean images, and a backdoor of another kind can escape it."),
        )  # fmt: skip
    if guard is None and (evaluation is None or evaluation.after is None):
        measure = (("Compare with the rates behind a guard: ", Code("untrojan evaluate … --guard DIR"), "."),)
        return _unguarded(content) if scan is not None else measure
    return _guarded(content)


def _unguarded(content: ReportContent) -> tuple[Sentence, ...]:
    look: Sentence = (
        "Look at the pictures below: a trigger that is a natural feature of the class, such as a wheel for a car, "
        "points to an intrinsic weakness rather than to an attack.",
    )
    return (
        ("Do not use this classifier as it is.",),
        ("Make a guard for it: ", Code("untrojan repair … --scan DIR"), "; then measure what the guard does: ",
         Code("untrojan evaluate … --guard DIR"), "."),
        *((look,) if content.pictures else ()),
        ("Find out where the weights and their training data came from.",),
    )  # fmt: skip


def _guarded(content: ReportContent) -> tuple[Sentence, ...]:
    evaluation, guard = content.evaluation, content.guard
    after = evaluation.after if evaluation is not None else None
    asr = measured(after.asr) if after is not None else None
    before = measured(evaluation.before.asr) if evaluation is not None else None
    if asr is not None and before is not None and asr.value >= before.value / 2 > 0:
        return (
            ("Do not rely on this guard: ", f"{percent(asr.value)} of the triggered images still get the attacker's "
             "class behind it."),
            ("Scan and repair again with more clean images, or train the classifier anew on data that you trust.",),
        )  # fmt: skip
    steps: list[Sentence] = [("Use the classifier only behind its guard; the guard fits no other weights.",)]
    if asr is None:
        worst = weakest(guard) if guard is not None else None
        if worst is not None and worst[1].asr is not None and worst[1].asr.low > HELD_OUT_LIMIT:
            steps.append(("Repair again with another --seed or more clean images: triggers into ",
                          ClassName.of(content.victim, worst[0]),
                          " that this guard was not made with still get through."))  # fmt: skip
        steps.append(("Measure what the guard does before you rely on it: ", Code("untrojan evaluate … --guard DIR"))
                     if after is None else
                     ("How many triggered images get through was not measured: that takes the attacker's trigger, ",
                      Code("untrojan evaluate … --trigger FILE"), ". Without it, the guard's own check with triggers "
                      "that it was not made with stands in."))  # fmt: skip
    else:
        steps.append((f"Expect what is left: {percent(asr.value)} of the triggered images still get the attacker's "
                      "class.",))  # fmt: skip
    if guard is not None and guard.form == "replacement":
        steps.append(("It flags no images; a guard made with the method bna does.",))
    else:
        steps.append(("Keep and look at the images that the guard flags: they show who uses the backdoor, and how.",))
    return tuple(steps)


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


def _missed(content: ReportContent) -> Sentence | None:
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
