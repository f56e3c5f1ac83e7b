from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_examples import NAMES, clean_scan, evaluation, full, guard, neuron, picture, scan

from untrojan.records import Rate
from untrojan.report import ReportContent, render_html

VOID = {"meta", "link", "img", "br"}

CONTENTS = {
    "full": full(),
    "scan": ReportContent(scan=scan()),
    "clean": ReportContent(scan=clean_scan()),
    "inconclusive": ReportContent(scan=clean_scan().model_copy(update={"verdict": "inconclusive", "pairs": ()})),
    "evaluation": ReportContent(evaluation=evaluation()),
    "unguarded": ReportContent(evaluation=evaluation(guarded=False)),
    "guard": ReportContent(guard=guard()),
    "nameless": ReportContent(scan=scan(None, classes=3, detected=frozenset())),
    "many classes": ReportContent(scan=scan(tuple(f"class {i}" for i in range(44)), verdict="clean")),
    "nothing": ReportContent(),
}


class Page(HTMLParser):
    """Tags in order, their attributes, the text outside the style sheet; complains about tags that do not nest."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.style = ""
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> does not close the innermost element"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(params=CONTENTS, ids=str)
def page(request: pytest.FixtureRequest) -> Page:
    return Page(render_html(CONTENTS[request.param]))


def test_runs_nothing_and_loads_nothing(page: Page) -> None:
    assert not {"script", "iframe", "object", "embed", "form", "base", "video"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert "style" not in attributes, f"<{tag}> has an inline style, which the policy blocks"
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert "url(" not in page.style
    assert "@import" not in page.style


def test_policy_allows_exactly_the_one_style_sheet(page: Page) -> None:
    policies = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert len(page.all("style")) == len(policies) == 1
    assert f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'" in str(policies[0])
    assert "unsafe" not in str(policies[0])
    assert [m["content"] for m in page.all("meta") if m.get("name") == "referrer"] == ["no-referrer"]


def test_is_accessible(page: Page) -> None:
    assert page.all("html")[0]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert all(image.get("alt") for image in page.all("img"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a} <= set(ids)
    for drawing in page.all("svg"):
        assert drawing.get("aria-hidden") == "true" or (drawing["role"] == "img" and drawing["aria-label"])


def test_every_drawing_that_says_something_has_a_title() -> None:
    text = render_html(full())
    assert text.count('role="img"') == len(re.findall(r'<svg [^>]*role="img"[^>]*><title>[^<]+</title>', text)) > 0


def test_tells_the_verdict_first_and_everything_in_order() -> None:
    text = Page(render_html(full())).text
    parts = [
        "Backdoor found", "images of every other class are sent to class 3 (truck)", "What to do next",
        "Patch triggers: 3 of 12 pairs detected", "Additive triggers", "The triggers that were found",
        "Inside the classifier", "Rates before and after", "99.1% 98.1–100.0%", "floor 2.1%", "Cost", "1 min 34 s",
        "1,234,567", "To get this result again", "untrojan scan --out 'a b'", "4f" * 32, "refine.restarts",
        "asr_before.value", "How to read this",
    ]  # fmt: skip
    place = 0
    for part in parts:
        place = text.find(part, place)
        assert place >= 0, part


def test_what_was_not_measured_says_so() -> None:
    guarded, alone = (render_html(ReportContent(evaluation=evaluation(g))) for g in (True, False))
    missing = '<span class="none">not measured</span>'
    assert guarded.count(missing) == 2  # TPR of successful and FPR over all
    assert alone.count(missing) == 7
    assert "SIA: before 0.4%, interval 0.0–1.4%; reference 80.9%" in alone


def test_a_rate_that_is_not_a_number_is_not_measured() -> None:
    broken = Rate(value=float("nan"), low=float("nan"), high=float("nan"))
    before = evaluation().before.model_copy(update={"acc": broken})
    text = render_html(ReportContent(evaluation=evaluation().model_copy(update={"before": before})))
    assert "nan" not in Page(text).text
    assert "nan%" not in text


def test_a_map_up_to_43_classes_and_a_table_beyond() -> None:
    def drawn(count: int) -> bool:
        return "heatmap" in render_html(ReportContent(scan=scan(None, classes=count))).split("</style>")[1]

    assert drawn(2 + 2)
    assert drawn(43)
    assert not drawn(44)


def test_pictures_state_the_factor_and_what_the_classifier_says() -> None:
    page = Page(render_html(full()))
    assert "difference shown ×50" in page.text
    assert "difference shown as it is (×1)" in page.text
    assert "truly cat" in page.text
    assert len(page.all("img")) == 2 * (1 + 3 * 2)
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in page.all("img"))


HOSTILE = (
    "<script>alert(1)</script>",
    "\" onload='x' & </title></style>",
    "שלום \u202e עולם 👩\u200d👩\u200d👧",
    "x" * 200,
)


def test_hostile_names_stay_text() -> None:
    text = render_html(replace(full(HOSTILE), title="</title><script>", command="<img src=x onerror=y>\x1b[0m"))
    page, plain = Page(text), Page(render_html(full()))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert "<script" not in text
    assert "<script>alert(1)</script>" in page.text
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert any(attributes.get("title") == "x" * 200 for attributes in page.all("bdi"))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.text(st.characters(), max_size=40), min_size=4, max_size=4))
def test_no_name_changes_the_page_around_it(names: list[str]) -> None:
    names = [f"{name}x" for name in names]
    content = ReportContent(
        scan=scan(tuple(n.encode("utf-8", "replace").decode() for n in names)), pictures=(picture(),)
    )
    usual = ReportContent(scan=scan(NAMES), pictures=(picture(),))
    text = render_html(content)
    text.encode("utf-8")
    assert [tag for tag, _ in Page(text).tags] == [tag for tag, _ in Page(render_html(usual)).tags]


def test_same_input_gives_the_same_page() -> None:
    assert render_html(full()) == render_html(full())


def test_without_a_guard_the_neuron_has_two_curves() -> None:
    corrected, alone = (render_html(ReportContent(scan=scan(), neuron=neuron(c))) for c in (True, False))
    assert 'class="curve corrected"' in corrected
    assert 'class="curve corrected"' not in alone
    assert "total variation from clean 0.75" in alone
