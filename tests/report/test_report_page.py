"""report.html: well-formed, self-contained, escaped; and what a browser makes of it."""

from __future__ import annotations

import json
import re
from collections import Counter
from html.parser import HTMLParser

import pytest
from browsers import chromium
from report_folder import (
    TASKS,
    FakeFolder,
    write_comparison,
    write_consistency,
    write_masks,
)

from neurosurgery.report import make_report

pytestmark = pytest.mark.whole

VOID = {"meta", "link", "br", "input", "img", "hr"}
FETCHED = {"src", "href", "xlink:href", "srcset", "data", "poster", "action"}


class Page(HTMLParser):
    """Collects what is open, every id, and what a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[tuple[str, str]] = []
        self.references: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in FETCHED and not value.startswith(("#", "data:")):
                self.fetched.append((tag, value))
            self.references += re.findall(r"url\(#([^)]*)\)", value or "")
            if name.endswith("href") and value.startswith("#"):
                self.references.append(value[1:])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = FakeFolder(
        tasks=TASKS | {"<script>alert(1)</script>&": TASKS["demo_race"]},
        skills=("math", "Race"),
        proportions=(0.001, 0.01, 0.05),
        scalars=(0.0, 1.05, 1.1),
        methods=("mathneuro", "random"),
        repeats=2,
    ).write(tmp_path_factory.mktemp("report"))
    write_masks(path)
    write_consistency(path)
    write_comparison(path)
    return make_report(path)


@pytest.fixture(scope="module")
def text(page):
    return page.read_text(encoding="utf-8")


def test_the_page_is_well_formed(text):
    parsed = Page(text)
    assert parsed.open == []
    assert {name for name, count in Counter(parsed.ids).items() if count > 1} == set()
    assert set(parsed.references) <= set(parsed.ids)


def test_nothing_is_fetched(text):
    assert Page(text).fetched == [("a", "https://arxiv.org/abs/2410.16930")]
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in text


def test_data_are_escaped(text):
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in text
    assert text.count("<script") == 2


def test_every_mark_has_its_facts_and_every_fact_its_mark(text):
    raw = re.search(r'<script type="application/json" id="facts">(.*?)</script>', text)[1]
    facts = json.loads(raw)
    ids = set(Page(text).ids)
    marks = {mark for figure in facts.values() for mark in figure}
    assert len(marks) > 100
    assert marks <= ids
    assert {name for name in ids if re.search(r"-mark\d+$", name)} == marks


def test_it_says_how_it_was_made(text):
    assert "python MathNeuro.py --save_path results/fake --overwrite" in text
    assert "2.13.0" in text
    assert "<dt>random_state</dt><dd>42</dd>" in text


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    yield from chromium(tmp_path_factory.mktemp("chromium"))


@pytest.fixture
def opened(browser, page):
    browser.get(page.as_uri())
    return browser


def point_at(browser, x, y):
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})
    # The tooltip follows with the next frame.
    return browser.execute_async_script(
        "const done = arguments[0];"
        "requestAnimationFrame(() => requestAnimationFrame(() => {"
        "  const tip = document.getElementById('tip');"
        "  done(tip.hidden ? null : tip.innerText);"
        "}));"
    )


def test_figures_are_drawn(opened):
    boxes = opened.execute_script(
        "const facts = JSON.parse(document.getElementById('facts').textContent);"
        "return Object.fromEntries(Object.entries(facts).map(([figure, marks]) => ["
        "  figure, Object.keys(marks).map((id) => {"
        "    const box = document.getElementById(id).getBoundingClientRect();"
        "    const svg = document.querySelector(`#plot-${CSS.escape(figure)} svg`)"
        "      .getBoundingClientRect();"
        "    return [box.width, box.height, box.left >= svg.left && box.right <= svg.right"
        "      && box.top >= svg.top && box.bottom <= svg.bottom];"
        "})]));"
    )
    assert {"isolation", "proportion", "number", "where_map", "where_bars", "consistency"} <= set(
        boxes
    )
    for figure, marks in boxes.items():
        assert marks, figure
        for width, height, inside in marks:
            assert width > 0, figure
            assert height > 0, figure
            assert inside, figure
    assert len(opened.find_elements("css selector", "figure svg")) == len(boxes)


def test_tooltip_by_pointer(opened):
    x, y, facts = opened.execute_script(
        "const mark = document.getElementById('isolation-mark0');"
        "mark.scrollIntoView({block: 'center'});"
        "const box = mark.getBoundingClientRect();"
        "const facts = JSON.parse(document.getElementById('facts').textContent);"
        "return [box.left + box.width / 2, box.top + box.height / 2,"
        "  facts.isolation['isolation-mark0']];"
    )
    told = point_at(opened, x, y)
    for name, value in facts:
        assert name in told
        assert value in told
    assert point_at(opened, 2, 2) is None


def test_tooltip_by_keyboard(opened):
    from selenium.webdriver.common.keys import Keys

    plot = opened.find_element("id", "plot-where_map")
    told = []
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT):
        plot.send_keys(key)
        told.append(opened.find_element("id", "tip").text)
    assert "q_proj" in told[0]
    assert told[0] == told[2] != told[1]
    plot.send_keys(Keys.ESCAPE)
    assert not opened.find_element("id", "tip").is_displayed()


def test_tables_sort_and_filter(opened):
    heads = opened.find_elements("css selector", "#verdicts th")
    names = [head.text for head in heads]
    head = heads[names.index("Value")]
    read = (
        "return [...document.querySelectorAll('#verdicts tbody tr')]"
        ".filter((row) => getComputedStyle(row).display !== 'none')"
        f".map((row) => [Number(row.cells[{names.index('Value')}].dataset.order),"
        f" row.cells[{names.index('Verdict')}].textContent]);"
    )
    head.find_element("css selector", "button").click()
    values = [value for value, _ in opened.execute_script(read)]
    assert values == sorted(values)
    assert head.get_attribute("aria-sort") == "ascending"
    head.find_element("css selector", "button").click()
    assert [value for value, _ in opened.execute_script(read)] == values[::-1]
    moved = {"better", "worse", "worse, within the margin"}
    verdicts = [verdict for _, verdict in opened.execute_script(read)]
    assert set(verdicts) == {"undecided", "within the margin", *moved}
    opened.find_element("id", "beyond").click()
    left = [verdict for _, verdict in opened.execute_script(read)]
    assert sorted(left) == sorted(verdict for verdict in verdicts if verdict in moved)


def test_the_console_is_silent_and_no_request_leaves_the_page(browser, page):
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(page.as_uri())
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requests = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert {url for url in requests if not url.startswith("data:")} == {page.as_uri()}
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


@pytest.mark.parametrize("width", [400, 1200])
def test_the_page_never_scrolls_sideways(browser, page, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())
    across = browser.execute_script("return document.documentElement.scrollWidth")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert across <= width
