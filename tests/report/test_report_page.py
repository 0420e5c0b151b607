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
from small_report import marks_in

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
    """What the page links to is the paper, the folder's tables and the figures beside it."""
    links = {value for tag, value in Page(text).fetched if tag == "a"}
    assert len(Page(text).fetched) == len(links)
    links.remove("https://arxiv.org/abs/2410.16930")
    tables, figures = ({link for link in links if link.startswith("../") == up} for up in (1, 0))
    assert {f"../{name}.csv" for name in ("summary", "results", "isolation")} <= tables
    names = set(re.findall(r'<figure id="figure-([^"]*)"', text))
    assert figures == {f"{name}.{end}" for name in names for end in ("png", "pdf")}
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in text


def test_data_are_escaped(text):
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;" in text
    assert text.count("<script") == 1


def test_the_contents_lead_to_every_section(text):
    contents = re.search(r"<nav.*?</nav>", text, re.DOTALL)[0]
    sections = re.findall(r'<section id="([^"]*)"', text)
    assert re.findall(r'href="#([^"]*)"', contents) == sections
    assert len(set(sections)) == len(sections) > 5


def test_the_drawings_are_those_of_the_files(text):
    """Every figure once, with marks that tell their facts, in colours that dark mode has."""
    drawn = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(drawn) == text.count("<figure ") >= 9
    dark = re.search(r"prefers-color-scheme:dark\)\{:root\{(.*?)\}", text)[1]
    for svg in drawn:
        found = marks_in(svg)
        assert found
        fills = {mark.fill for mark in found if "method" in mark.facts}
        # The shares of a map have a scale of their own.
        for colour in {fill for fill in fills if not fill.startswith("rgb(")}:
            assert re.fullmatch(r"var\(--f-([0-9a-f]{6}), #\1\)", colour)
            assert f"{colour[4:14]}:" in dark


def test_it_says_how_it_was_made(text):
    assert "python MathNeuro.py --save_path results/fake --overwrite" in text
    assert "2.13.0" in text
    assert "<dt>random_state</dt><dd>42</dd>" in text


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    yield from chromium(tmp_path_factory.mktemp("chromium"))


@pytest.fixture
def opened(browser, page):
    # Smooth scrolling would move buttons away from a click.
    still = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": still})
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


NAMED = (
    "const marks = (plot) => [...plot.querySelectorAll('[role=\"graphics-symbol\"][aria-label]')]"
    ".filter((mark) => mark.getAttribute('aria-label').includes('\\n'));"
)
"""The marks of a plot, for scripts."""


def test_figures_are_drawn(opened):
    boxes = opened.execute_script(
        NAMED
        + "return Object.fromEntries([...document.querySelectorAll('figure')].map((figure) => {"
        "  const svg = figure.querySelector('svg').getBoundingClientRect();"
        "  return [figure.id, marks(figure).map((mark) => {"
        "    const box = mark.getBoundingClientRect();"
        "    return [box.width, box.height, box.left >= svg.left && box.right <= svg.right"
        "      && box.top >= svg.top && box.bottom <= svg.bottom];"
        "})]}));"
    )
    expected = {"isolation", "proportion", "number", "where_map", "where_bars", "consistency"}
    assert {f"figure-{name}" for name in expected} <= set(boxes)
    assert sum(map(len, boxes.values())) > 100
    for figure, marks in boxes.items():
        assert marks, figure
        for width, height, inside in marks:
            assert width > 0, figure
            # A bar of a share of 0 has no height.
            assert height > 0 or figure == "figure-where_bars", figure
            assert inside, figure


def test_tooltip_by_pointer(opened):
    x, y, name = opened.execute_script(
        NAMED + "const mark = marks(document.getElementById('figure-isolation'))[0];"
        "mark.scrollIntoView({block: 'center', behavior: 'instant'});"
        "const box = mark.getBoundingClientRect();"
        "return [box.left + box.width / 2, box.top + box.height / 2,"
        "  mark.getAttribute('aria-label')];"
    )
    told = point_at(opened, x, y)
    for line in name.split("\n"):
        fact, value = line.split(": ", 1)
        assert fact in told
        assert value in told
    assert point_at(opened, 2, 2) is None


def test_tooltip_by_keyboard(opened):
    from selenium.webdriver.common.keys import Keys

    plot = opened.find_element("css selector", "#figure-where_map .plot")
    told = []
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT):
        plot.send_keys(key)
        told.append(opened.find_element("id", "tip").text)
    assert "q_proj" in told[0]
    assert told[0] == told[2] != told[1]
    plot.send_keys(Keys.ESCAPE)
    assert not opened.find_element("id", "tip").is_displayed()


def test_dark_mode_has_colours_of_its_own(opened):
    """Of marks, of what they stand on, and of the page."""
    read = NAMED + (
        "const mark = marks(document.getElementById('figure-isolation'))"
        "  .find((mark) => getComputedStyle(mark).fill !== 'rgb(255, 255, 255)');"
        "const ground = document.querySelector('#figure-isolation svg > rect');"
        "return [getComputedStyle(mark).fill, getComputedStyle(ground).fill,"
        "  getComputedStyle(document.body).backgroundColor];"
    )
    found = {}
    for mode in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": mode}]
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        found[mode] = opened.execute_script(read)
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert found["light"][1:] == ["rgb(255, 255, 255)"] * 2
    assert found["dark"][1:] == ["rgb(20, 24, 29)"] * 2
    assert found["light"][0] != found["dark"][0]


def test_print_has_every_column(opened):
    """Of the widest table, on a page of A4 across with its margins (96 pixels to an inch)."""
    metrics = {"width": 1046, "height": 718, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    right, across = opened.execute_script(
        "const cells = [...document.querySelectorAll('#table-verdicts :is(th, td)')];"
        "return [Math.max(...cells.map((cell) => cell.getBoundingClientRect().right)),"
        "  document.documentElement.scrollWidth];"
    )
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert right <= 1046
    assert across <= 1046


def test_tables_sort_and_filter(opened):
    heads = opened.find_elements("css selector", "#table-verdicts th")
    # Not what is painted at this moment: a page that is laid out anew has no text for a while.
    names = [head.get_attribute("textContent").strip() for head in heads]
    head = heads[names.index("Value")]
    read = (
        "return [...document.querySelectorAll('#table-verdicts tbody tr')]"
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
    moved = {"better", "worse"}
    verdicts = [verdict for _, verdict in opened.execute_script(read)]
    small = {"undecided", "within the margin", "worse, within the margin"}
    assert set(verdicts) == {*small, *moved}
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


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_never_scrolls_sideways(browser, page, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())
    across = browser.execute_script("return document.documentElement.scrollWidth")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert across <= width
