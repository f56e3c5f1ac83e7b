from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from untrojan.errors import DataError, UsageError
from untrojan.setting import Setting

COUNTS = range(2, 13)


def every_setting(classes: int) -> list[str]:
    ordered = [(s, t) for s in range(classes) for t in range(classes) if s != t]
    return ["a2a", *(f"a2o:{t}" for t in range(classes)), *(f"s2t:{s}>{t}" for s, t in ordered)]


def goal(text: str, label: int, classes: int) -> int:
    """Where the attacker sends one class, from the definition; -1 for nowhere."""
    if text == "a2a":
        return label + 1 if label + 1 < classes else 0
    if text.startswith("a2o:"):
        target = int(text[4:])
        return -1 if label == target else target
    source, target = map(int, text[4:].split(">"))
    return target if label == source else -1


@pytest.mark.parametrize("classes", COUNTS)
def test_every_setting_moves_the_classes_that_it_says(classes: int) -> None:
    for text in every_setting(classes):
        wanted = [goal(text, label, classes) for label in range(classes)]
        setting = Setting.parse(text)
        assert str(setting) == text
        assert setting.pairs(classes) == tuple((s, t) for s, t in enumerate(wanted) if t >= 0)
        assert setting.target_of(torch.arange(classes), classes).tolist() == wanted


def test_labels_come_in_any_order_and_number() -> None:
    labels = torch.tensor([2, 0, 2, 1])
    goals = Setting.parse("a2o:1").target_of(labels, 3)
    assert goals.dtype == torch.int64
    assert goals.tolist() == [1, 1, 1, -1]
    assert Setting.parse("a2a").target_of(labels[:0], 3).shape == (0,)


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0]])
def test_labels_that_do_not_exist(labels: list[int]) -> None:
    with pytest.raises(DataError, match=r"labels must lie in 0\.\.2"):
        Setting.parse("a2a").target_of(torch.tensor(labels), 3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a2o",
        "a2o:",
        "a2o:-1",
        "a2o:x",
        "a2o:1.5",
        "a2o:1 2",
        "A2A",
        "a2a:1",
        "s2t:1",
        "s2t:1>",
        "s2t:>1",
        "s2t:1-2",
    ],
)
def test_what_is_no_setting(text: str) -> None:
    with pytest.raises(UsageError, match="expected a2o:T, a2a or s2t:S>T"):
        Setting.parse(text)


def test_source_and_target_differ() -> None:
    with pytest.raises(UsageError, match="the same class"):
        Setting.parse("s2t:4>4")


@pytest.mark.parametrize(("text", "name"), [("a2o:5", "target"), ("s2t:5>1", "source"), ("s2t:1>5", "target")])
def test_classes_that_do_not_exist(text: str, name: str) -> None:
    setting = Setting.parse(text)
    assert setting.pairs(6)
    with pytest.raises(UsageError, match=f"{name} class 5 does not exist, there are 5 classes"):
        setting.pairs(5)


def test_spaces_around_are_no_mistake() -> None:
    assert Setting.parse(" a2o:3\n") == Setting("a2o", target=3)


def parsed(text: str) -> Setting | UsageError:
    try:
        return Setting.parse(text)
    except UsageError as error:
        return error


@settings(deadline=None)
@given(st.text() | st.from_regex(r"(a2o|s2t|a2a):?[0-9]*>?[0-9]*", fullmatch=True))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    read = parsed(text)
    if isinstance(read, UsageError):
        assert len(str(read).splitlines()) == 1
    else:
        assert Setting.parse(str(read)) == read
