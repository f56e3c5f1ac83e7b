"""What to do with the answer."""

from __future__ import annotations

from untrojan.records import Evaluation, GuardCard
from untrojan.report.content import ReportContent
from untrojan.report.verdict import missed, weakest
from untrojan.report.wording import ClassName, Code, Sentence, measured, percent

HELD_OUT_LIMIT = 0.1
"""A guard that lets more of the held-out triggers through has gaps."""
FALSE_ALARM_LIMIT = 0.2
"""A guard that flags more of the clean images of its target is of little use for that class."""


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
    if scan is not None and scan.verdict == "clean" and missed(content) is not None:
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
    more: Sentence = (
        "Give the scan more time before you make a guard, which is one for the targets that are known: ",
        Code("untrojan scan … --out DIR --resume"),
        " goes on where it stopped.",
    )
    return (
        ("Do not use this classifier as it is.",),
        *((more,) if content.scan is not None and content.scan.unreached else ()),
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
    floor = measured(evaluation.before.asr_floor) if evaluation is not None else None
    works = before is None or floor is None or before.low > floor.high
    if asr is not None and before is not None and works and asr.value >= before.value / 2 > 0:
        return (
            ("Do not rely on this guard: ", f"{percent(asr.value)} of the triggered images still get the attacker's "
             "class behind it."),
            ("Scan and repair again with more clean images, or train the classifier anew on data that you trust.",),
        )  # fmt: skip
    steps: list[Sentence] = [("Use the classifier only behind its guard; the guard fits no other weights.",)]
    alarms = _false_alarms(guard, evaluation)
    if alarms is not None:
        steps.append(alarms)
    if asr is not None and not works:
        steps.append(("This trigger says nothing about the guard: without it, too, it moves no more images to the "
                      "attacker's class than are sent there without a trigger.",))  # fmt: skip
    elif asr is None:
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


def _false_alarms(guard: GuardCard | None, evaluation: Evaluation | None) -> Sentence | None:
    """What to do about a guard that flags many clean images, as measured, else as it was checked when it was made."""
    after = evaluation.after if evaluation is not None else None
    rates = [rate for rate in (measured(after.fpr),) if rate is not None] if after is not None else []
    if not rates and guard is not None:
        rates = [rate for check in guard.checks.values() if (rate := measured(check.fpr)) is not None]
    worst = max(rates, key=lambda rate: rate.value, default=None)
    if worst is None or worst.low <= FALSE_ALARM_LIMIT:
        return None
    return (f"Repair again with another --seed, more clean images or more steps: it takes {percent(worst.value)} of "
            "the clean images of a target class for triggered ones.",)  # fmt: skip
