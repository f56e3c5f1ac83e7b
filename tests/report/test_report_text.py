from __future__ import annotations

import io

import pytest
from report_examples import check, clean_scan, evaluation, full, guard, rate, scan
from rich.console import Console

from untrojan.records import PairScore, Rate, TargetCheck
from untrojan.report import ReportContent, print_text, render_text
from untrojan.report.advice import next_steps
from untrojan.report.verdict import verdict
from untrojan.report.wording import ClassName, Code, Sentence


def said(*sentences: Sentence) -> str:
    return " ".join(
        "".join(p.short if isinstance(p, ClassName) else p.text if isinstance(p, Code) else p for p in sentence)
        for sentence in sentences
    )


def shown(content: ReportContent, encoding: str = "utf-8", **options: object) -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    print_text(content, Console(file=stream, width=100, force_terminal=True, color_system="standard", **options))  # type: ignore[arg-type]
    stream.flush()
    return raw.getvalue().decode(encoding)


def test_says_everything_that_matters() -> None:
    text = render_text(full())
    for part in (
        "Backdoor found", "every other class are sent to class 3 (truck)", "three pairs stand out (p-value 0.03)",
        "Trigger kind patch: 3 of 12 pairs detected", "Trigger kind additive", "detected", "99.1% (98.1–100.0%)",
        "not measured", "floor 2.1%", "ceiling 80.9%", "1 min 34 s", "1,234,567", "seed 7",
    ):  # fmt: skip
        assert part in text
    assert max(map(len, text.splitlines())) <= 100
    assert text.endswith("\n")
    assert not [line for line in text.splitlines() if line != line.rstrip()]


def test_plain_text_has_no_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    names = ("\x1b[31mred\x1b[0m", "\r\n\x07bell", "a\u202eb", "d")
    text = render_text(ReportContent(scan=scan(names), title="t"))
    assert {c for c in text if not c.isprintable()} <= {"\n"}
    assert "\\x1b[31mred" in text
    assert "\\u202e" in text


def test_names_are_not_markup() -> None:
    text = render_text(ReportContent(scan=scan(("[red]a[/red]", "[/]", ":smile:", "[link=x]t"))))
    for name in ("[red]a[/red]", "[/]", ":smile:", "[link=x]t"):
        assert f"({name})" in text


def test_colours_are_the_consoles_business() -> None:
    assert "\x1b[1;31mBackdoor found" in shown(full())
    assert "\x1b[1;31m" not in shown(full(), no_color=True)


def test_a_console_without_unicode_still_gets_its_text() -> None:
    text = shown(ReportContent(scan=scan(("é", "שלום", "b", "c")), evaluation=None), encoding="ascii")
    assert "0 (?)" in text


@pytest.mark.parametrize("count", [2, 200])
def test_at_most_ten_pairs_of_a_kind(count: int) -> None:
    pairs = tuple(
        PairScore(source=s, target=0, kind="patch", size=1.0, score=float(s), detected=False) for s in range(1, count)
    )
    text = render_text(ReportContent(scan=scan(None, frozenset(), "clean", classes=count, pairs=pairs)))
    rows = [line.split() for line in text.split("score\n")[1].split("\n\n")[0].splitlines()]
    assert [float(row[3]) for row in rows] == sorted((float(s) for s in range(1, count)), reverse=True)[:10]


def test_nothing_at_all_is_said_too() -> None:
    assert render_text(ReportContent()) == "Nothing was measured\n"


def test_verdict_of_a_backdoor_names_sources_and_target() -> None:
    one = verdict(ReportContent(scan=scan(detected=frozenset({(1, 0)}))))
    assert (one.tone, one.headline) == ("bad", "Backdoor found")
    assert said(*one.sentences) == "With a trigger, images of class 1 (cat) are sent to class 0 (airplane)."
    two = verdict(ReportContent(scan=scan(detected=frozenset({(1, 0), (2, 0)}))))
    assert "images of classes 1 (cat) and 2 (ship) are sent" in said(*two.sentences)


def test_verdict_of_many_classes_is_short() -> None:
    many = scan(None, frozenset((s, (s + 1) % 30) for s in range(30)), classes=30)
    sentences = verdict(ReportContent(scan=many)).sentences
    assert len(sentences) == 7
    assert said(sentences[-1]) == "24 more target classes are among the pairs below."
    wide = scan(None, frozenset((s, 0) for s in range(1, 20)), classes=30)
    assert "images of classes 1, 2, 3 and 16 more are sent" in said(*verdict(ReportContent(scan=wide)).sentences)


def test_a_clean_verdict_says_what_was_searched_for() -> None:
    answer = verdict(ReportContent(scan=clean_scan()))
    assert (answer.tone, answer.headline) == ("good", "No backdoor found")
    assert "additive, patch" in said(*answer.sentences)
    assert "900 clean images" in said(*next_steps(ReportContent(scan=clean_scan())))


def test_inconclusive_gives_its_reason_and_never_sounds_clean() -> None:
    content = ReportContent(scan=clean_scan().model_copy(update={"verdict": "inconclusive", "reason": "NaN weights"}))
    answer = verdict(content)
    assert (answer.tone, answer.headline) == ("unsure", "Inconclusive: NaN weights")
    assert "not mean that the classifier is clean" in said(*answer.sentences)
    long = content.scan.model_copy(update={"reason": "word " * 40}) if content.scan else None
    assert verdict(ReportContent(scan=long)).headline == "Inconclusive"
    assert verdict(ReportContent(scan=long)).reason == "word " * 40


def test_a_scan_that_missed_a_working_trigger_is_not_called_clean() -> None:
    missed = ReportContent(scan=clean_scan(), evaluation=evaluation(guarded=False))
    assert verdict(missed).headline == "The scan missed a backdoor"
    assert verdict(missed).tone == "bad"
    assert said(*next_steps(missed)).startswith("Do not use")
    weak = ReportContent(scan=clean_scan(), evaluation=evaluation(guarded=False, asr=0.04))
    assert verdict(weak).headline == "No backdoor found"


def test_next_steps_follow_what_was_measured() -> None:
    found = said(*next_steps(ReportContent(scan=scan())))
    assert "Do not use this classifier as it is" in found
    assert "untrojan repair" in found
    guarded = said(*next_steps(ReportContent(scan=scan(), guard=guard())))
    assert "Measure what the guard does" in guarded
    assert "images that the guard flags" in guarded
    replaced = said(*next_steps(ReportContent(scan=scan(), guard=guard(form="replacement", method="nad"))))
    assert "flags no images" in replaced
    assert "images that the guard flags" not in replaced
    no_trigger = evaluation(asr_after=0.9)
    rates = {"asr": None, "sia": None}
    no_trigger = no_trigger.model_copy(
        update={
            "before": no_trigger.before.model_copy(update=rates),
            "after": no_trigger.after.model_copy(update=rates),
        }
    )
    without = said(*next_steps(ReportContent(guard=guard(), evaluation=no_trigger)))
    assert "Measure what the guard does" not in without
    assert "untrojan evaluate … --trigger FILE" in without
    measured = said(*next_steps(full()))
    assert "1.2% of the triggered images still get" in measured
    useless = ReportContent(scan=scan(), guard=guard(), evaluation=evaluation(asr_after=0.9))
    assert said(*next_steps(useless)).startswith("Do not rely on this guard: 90.0%")


def test_evaluation_and_guard_alone_have_a_headline() -> None:
    alone = verdict(ReportContent(evaluation=evaluation()))
    assert (alone.tone, alone.headline) == ("neutral", "Evaluation")
    assert "Behind its guard, 1.2%" in said(*alone.sentences)
    made = verdict(ReportContent(guard=guard()))
    assert said(*made.sentences).startswith("It checks every image that is sent to class 3 (truck).")
    assert "behind it they move 1.3% of the images, without it 98.0%" in said(*made.sentences)


def test_a_guard_with_gaps_gets_advice() -> None:
    assert "Repair again" not in said(*next_steps(ReportContent(guard=guard())))
    assert "Repair again" in said(*next_steps(ReportContent(guard=guard(checks={3: check(0.4)}))))
    unchecked = guard(checks={3: TargetCheck(surrogates=())})
    assert "Repair again" not in said(*next_steps(ReportContent(guard=unchecked)))


def test_a_guard_that_flags_many_clean_images_gets_advice() -> None:
    often = check().model_copy(update={"fpr": rate(0.95)})
    assert "takes 95.0% of the clean images" in said(*next_steps(ReportContent(guard=guard(checks={3: often}))))
    unsure = check().model_copy(update={"fpr": Rate(value=0.5, low=0.1, high=0.9)})
    assert "Repair again" not in said(*next_steps(ReportContent(guard=guard(checks={3: unsure}))))
    found = evaluation()
    measured = found.model_copy(update={"after": found.after.model_copy(update={"fpr": rate(0.4)})})
    told = said(*next_steps(ReportContent(guard=guard(checks={3: often}), evaluation=measured)))
    assert "takes 40.0% of the clean images" in told, "what was measured counts, not the check"
    assert "Repair again" not in said(*next_steps(ReportContent(guard=guard(checks={3: often}), evaluation=found)))


def test_a_trigger_that_does_not_work_says_nothing_against_a_guard() -> None:
    idle = ReportContent(guard=guard(), evaluation=evaluation(asr=0.025, asr_after=0.02))
    told = said(*next_steps(idle))
    assert "Do not rely" not in told
    assert "This trigger says nothing about the guard" in told
    weak = ReportContent(guard=guard(), evaluation=evaluation(asr=0.1, asr_after=0.09))
    assert "Do not rely" in said(*next_steps(weak))


def test_a_scan_that_was_cut_short_says_so_whatever_it_found() -> None:
    short = ReportContent(scan=scan(unreached=("warp triggers: each pair (4 of 9)", "margins (10 of 10)")))
    assert "did not suffice for warp triggers: each pair (4 of 9) and 1 more" in said(*verdict(short).sentences)
    assert "untrojan scan … --out DIR --resume" in said(*next_steps(short))
    assert "did not suffice" not in said(*verdict(ReportContent(scan=scan())).sentences)
    assert "--resume" not in said(*next_steps(ReportContent(scan=scan())))
