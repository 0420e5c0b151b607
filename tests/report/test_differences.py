"""The figure of differences: a mark per row, on a row of its own."""

from __future__ import annotations

import math

from small_report import marks, words

from neurosurgery.report.figures.differences import plot_differences
from neurosurgery.report.figures.figure import GROUND, svg_of
from neurosurgery.report.figures.looks import COLOURS, dark_colours


def row(name, difference, verdict, label="B", unit="share", reach=0.05):
    return {
        "name": name, "label": label, "unit": unit, "difference": difference,
        "ci_low": difference - reach, "ci_high": difference + reach, "value": 0.5 + difference,
        "reference": 0.5, "verdict": verdict, "direction": "higher", "margin": 0.03,
        "documents": 200.0,
    }  # fmt: skip


def test_a_mark_tells_its_row_and_its_filling_the_verdict():
    rows = [row("t acc", -0.2, "lower"), row("u acc", 0.0, "within the margin", reach=0.01),
            row("v acc", 0.1, "undecided", reach=0.2)]  # fmt: skip
    found = marks(plot_differences(rows))
    assert [mark.facts["task"] for mark in found] == ["t acc", "u acc", "v acc"]
    assert found[0].facts["verdict"] == "worse (margin ± 0.03)"
    assert found[0].facts["difference"].startswith("−0.200 [−0.250")
    assert [mark.fill.lower() for mark in found][:2] == [COLOURS[0], GROUND]
    for mark in found:
        assert f"--f-{mark.fill[1:].lower()}:" in dark_colours(), "the page has it in the dark"


def test_long_names_that_begin_alike_are_rows_of_their_own():
    rows = [row("x" * 200 + end, 0.0, "undecided") for end in ("a acc", "b acc")]
    heights = {mark.place[1] for mark in marks(plot_differences(rows))}
    assert len(heights) == 2


def test_runs_are_told_apart_and_units_have_panels():
    rows = [
        row("t acc", 0.1, "higher"),
        row("t acc", 0.2, "higher", label="C"),
        row("s word_perplexity", 0.3, "higher", unit="nats per word"),
    ]
    figure = plot_differences(rows)
    found = marks(figure)
    assert {(mark.facts["run"], mark.fill.lower()) for mark in found} == {
        ("B", COLOURS[0]), ("C", COLOURS[1]),
    }  # fmt: skip
    assert {"difference", "difference, nats per word", "C: t acc"} <= set(
        words(svg_of(figure.chart))
    )


def test_without_an_interval_there_is_no_figure():
    nothing = row("t f1", 0.1, "") | {"ci_low": math.nan, "ci_high": math.nan}
    assert plot_differences([nothing]) is None
