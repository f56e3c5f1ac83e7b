"""Names, numbers and sentences in the words that every format of a report shares."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from untrojan.records import Rate, VictimInfo

NOT_MEASURED = "not measured"
NAME_LIMIT = 32
SIZE_UNITS = {
    "patch": "pixels, L1 of the mask",
    "additive": "L2 norm",
    "blend": "share of the image",
    "warp": "mean shift in pixels",
}

# Characters that reorder or hide the text around them (left-to-right and right-to-left overrides, isolates).
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def plain(text: object) -> str:
    """Text that is safe to show: control, bidirectional override and unpaired surrogate characters become escapes."""
    characters = str(text)
    if characters.isascii() and characters.isprintable():
        return characters
    return "".join(_visible(c) for c in characters)


def _visible(character: str) -> str:
    if character in _REORDERING or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"
    return character


def shorten(text: str, limit: int) -> str:
    """At most ``limit`` characters, the last one an ellipsis if something was cut; never ends in half an emoji."""
    if len(text) <= limit:
        return text
    cut = text[: limit - 1]
    while cut and (unicodedata.combining(text[len(cut)]) or text[len(cut)] in "\u200d\ufe0f" or cut[-1] == "\u200d"):
        cut = cut[:-1]
    return cut.rstrip() + "…"


@dataclass(frozen=True)
class ClassName:
    """A class as it is written: its number, and its name where it has one."""

    number: int
    name: str | None = None

    @classmethod
    def of(cls, victim: VictimInfo | None, number: int) -> ClassName:
        """The name of a class of this victim; a name that only repeats the number is none."""
        names = victim.class_names if victim is not None else None
        name = plain(names[number]).strip() if names and 0 <= number < len(names) else ""
        return cls(number, name if name and name != str(number) else None)

    @property
    def full(self) -> str:
        """Such as ``9 (truck)``, however long."""
        return str(self.number) if self.name is None else f"{self.number} ({self.name})"

    @property
    def short(self) -> str:
        """``full`` with a long name cut."""
        return str(self.number) if self.name is None else f"{self.number} ({self.short_name})"

    @property
    def short_name(self) -> str:
        """The name alone, cut if it is long; empty if there is none."""
        return "" if self.name is None else shorten(self.name, NAME_LIMIT)

    @property
    def word(self) -> str:
        """The name alone, cut if it is long; ``class 9`` if there is none."""
        return f"class {self.number}" if self.name is None else self.short_name


@dataclass(frozen=True)
class Code:
    """A piece of a sentence to be set as code."""

    text: str


Sentence = tuple["str | ClassName | Code", ...]


def listing(names: Iterable[ClassName], limit: int = 4) -> Sentence:
    """Class names as a list in a sentence: ``a, b and c``, or ``a, b, c and 6 more``."""
    items = list(names)
    shown = items if len(items) <= limit else items[: limit - 1]
    hidden = len(items) - len(shown)
    parts: list[str | ClassName | Code] = []
    for position, item in enumerate(shown):
        if position:
            parts.append(" and " if position == len(items) - 1 else ", ")
        parts.append(item)
    return (*parts, f" and {hidden} more") if hidden else tuple(parts)


def percent(value: float) -> str:
    """A share in percent, one decimal; what is not quite 0 or 1 is not rounded to it.

    >>> percent(0.99512), percent(0.0001), percent(1.0)
    ('99.5%', '<0.1%', '100.0%')
    """
    if 0 < value < 0.0005:
        return "<0.1%"
    if 0.9995 <= value < 1:
        return ">99.9%"
    return f"{100 * value:.1f}%"


def measured(rate: Rate | None) -> Rate | None:
    """The rate, or None if it is not a number."""
    return rate if rate is not None and math.isfinite(rate.value) else None


def interval(rate: Rate) -> str:
    """The 95 % interval of a rate, such as ``98.7–99.1%``."""
    if not (math.isfinite(rate.low) and math.isfinite(rate.high)):
        return "no interval"
    return f"{100 * rate.low:.1f}–{100 * rate.high:.1f}%"


def number(value: float | None, missing: str = "none") -> str:
    """Three significant digits or the whole part, never an exponent below a million.

    >>> number(15.318), number(1234.5), number(-0.0421), number(None)
    ('15.3', '1,234', '−0.0421', 'none')
    """
    if value is None or math.isnan(value):
        return missing
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value < 0:
        return "−" + number(-value)
    if value == 0 or 1e-3 <= value < 999.5:
        return f"{value:.3g}"
    return f"{value:,.0f}" if 1 <= value < 1e6 else f"{value:.2e}"


def score_text(score: float | None) -> str:
    """An anomaly score with one decimal; without one from a thousand on.

    >>> score_text(23.0), score_text(4321.5), score_text(None)
    ('23.0', '4,322', 'none')
    """
    return number(score) if score is None or not abs(score) < 999.95 else f"{score:.1f}".replace("-", "−")


def probability(p_value: float) -> str:
    """A p-value in a sentence.

    >>> probability(0.0312), probability(2e-9)
    ('p-value 0.0312', 'p-value below 0.0001')
    """
    return "p-value below 0.0001" if p_value < 1e-4 else f"p-value {number(p_value)}"


def small(p_value: float) -> str:
    """A p-value in a table.

    >>> small(0.0312), small(2e-9)
    ('0.0312', '<0.0001')
    """
    return "<0.0001" if p_value < 1e-4 else number(p_value)


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(0.42), duration(94), duration(7260)
    ('0.4 s', '1 min 34 s', '2 h 1 min')
    """
    if not math.isfinite(seconds):
        return NOT_MEASURED
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


GLOSSARY: tuple[tuple[str, str], ...] = (
    ("Trigger", "what an attacker adds to an image to make a backdoored classifier give the attacker's answer."),
    (
        "Anomaly score",
        "how much easier one class is turned into another than is usual in this classifier: the distance of "
        "1 / trigger size from the median over all pairs, in units of the median absolute deviation. The verdict "
        "does not rest on it.",
    ),
    (
        "p-value",
        "how often a clean reference model scores as high as this classifier or, in the table, as this finding. A "
        "classifier's score is that of its clearest finding.",
    ),
    (
        "Reference model",
        "a clean classifier that the scan is calibrated on. They are of many architectures, tasks and ways of "
        "training, and each is only ever compared with itself before its score is compared with others'.",
    ),
    (
        "Ratio",
        "how many times smaller a trigger is than the median of this classifier's others for the same: into one class, "
        "or of a pair of classes; of one that sends each class to one other, than those into one class.",
    ),
    ("ACC", "accuracy: share of clean test images that get their true class. High is good."),
    (
        "ASR",
        "attack success rate: share of triggered images that get the attacker's class. Low is good; its floor is the "
        "share of the same images, without the trigger, that get that class anyway.",
    ),
    (
        "SIA",
        "source inference accuracy: share of triggered images that get their true class all the same. High is good; "
        "its ceiling is the accuracy on the same images without the trigger.",
    ),
    (
        "TPR",
        "true positive rate: share of triggered images that the guard flags; “of successful” counts only those on "
        "which the attack works on the unguarded classifier. High is good.",
    ),
    (
        "FPR",
        "false positive rate: share of clean test images of the attacker's target classes that the guard flags by "
        "mistake; “all” counts clean images of every class. Low is good.",
    ),
    (
        "95% interval",
        "where the true rate is to be expected, given how many images it was measured on.",
    ),
)
