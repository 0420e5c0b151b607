"""Two runs of the harness compared: what is paired, what is refused, and the numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from harness_log_files import mean, of_numbers, sample, write_answers, write_log
from scipy import stats
from scipy.optimize import brentq

from neurosurgery.results.harness_logs import read_run
from neurosurgery.settings.margins import Margins
from neurosurgery.verdicts.runs import RUN_COLUMNS, compare_runs

TEN_BROKEN = [1.0] * 40, [0.0] * 10 + [1.0] * 30


def compared(a, b, margins=None):
    [found] = compare_runs([read_run(a), read_run(b)], margins or Margins())
    return found


def lines(said):
    return [f"{name}: {reason}" for reason, names in said.items() for name in names]


def rows_of(a, b, margins=None):
    return compared(a, b, margins).rows.to_dict("records")


def score_interval(before, after, confidence):
    """Pseudo-documents: t² of them, half mended, half broken (docs/REPORT.md)."""
    change = np.array(after) - np.array(before)
    n = len(change)
    added = stats.t.ppf((1 + confidence) / 2, n - 1) ** 2
    size = n + added
    middle = change.sum() / size
    variance = ((change**2).sum() + added) / size - middle**2
    reach = math.sqrt(added * variance / size)
    return min(middle - reach, change.mean()), max(middle + reach, change.mean())


def p_by_hand(before, after):
    """The p at which the score interval just holds 0, or that of the exact McNemar test."""
    change = np.array(after) - np.array(before)
    upper = brentq(lambda p: score_interval(before, after, 1 - p)[1], 1e-9, 0.9)
    changed = int((change != 0).sum())
    return max(upper, stats.binomtest(int((change < 0).sum()), changed).pvalue)


def test_right_and_wrong_answers(tmp_path):
    before, after = TEN_BROKEN
    [row] = rows_of(write_answers(tmp_path / "a", t=before), write_answers(tmp_path / "b", t=after))
    assert list(row) == RUN_COLUMNS
    assert (row["reference"], row["value"], row["documents"]) == (1.0, 0.75, 40)
    assert row["difference"] == pytest.approx(-0.25)
    low, high = score_interval(before, after, 0.95)
    assert row["ci_low"] == pytest.approx(low)
    assert row["ci_high"] == pytest.approx(high)
    assert row["p_value"] == pytest.approx(p_by_hand(before, after), rel=1e-4)
    assert row["p_value"] == row["q_value"]
    assert (row["direction"], row["verdict"]) == ("higher", "lower")
    assert row["paired_by"] == "document and prompt"


def test_five_broken_answers_are_undecided(tmp_path):
    """McNemar: 2 / 2⁵ is above .05, so the interval holds 0."""
    before, after = [1.0] * 8, [0.0] * 5 + [1.0] * 3
    [row] = rows_of(write_answers(tmp_path / "a", t=before), write_answers(tmp_path / "b", t=after))
    assert row["p_value"] >= 2 / 2**5
    assert row["ci_low"] < 0 <= row["ci_high"]
    assert row["verdict"] == "undecided"
    assert row["documents_needed"] > 2


def test_equal_answers_of_many_documents_are_within_the_margin(tmp_path):
    answers = [1.0, 0.0] * 100
    a, b = (write_answers(tmp_path / name, t=answers) for name in "ab")
    [row] = rows_of(a, b)
    t = stats.t.ppf(0.975, 199) ** 2
    assert row["ci_high"] == pytest.approx(t / (200 + t))
    assert row["verdict"] == "within the margin"
    [strict] = rows_of(a, b, Margins(0.001))
    assert strict["verdict"] == "undecided"
    [named] = rows_of(a, b, Margins(0.03, {"t": 0.001}))
    assert named["verdict"] == "undecided"


def test_documents_are_paired_by_content_whatever_their_order(tmp_path):
    before = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    lines = of_numbers(before)
    turned = [line | {"doc_id": place} for place, line in enumerate(reversed(lines))]
    a = write_log(tmp_path / "a", {"t": lines}, {"t": {"acc,none": mean(before)}})
    b = write_log(tmp_path / "b", {"t": turned}, {"t": {"acc,none": mean(before)}})
    [row] = rows_of(a, b)
    assert row["documents"] == 6
    assert row["ci_high"] == pytest.approx(-row["ci_low"]), "no answer has changed"


def test_different_limits_are_compared_on_common_documents(tmp_path):
    before, after = [1.0, 1.0, 0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0]
    found = compared(
        write_answers(tmp_path / "a", t=before), write_answers(tmp_path / "b", t=after)
    )
    [row] = found.rows.to_dict("records")
    assert (row["documents"], row["reference_documents"], row["value_documents"]) == (3, 6, 3)
    assert row["reference"] == pytest.approx(2 / 3)
    assert row["reference_reported"] == 0.5
    assert row["value"] == pytest.approx(1 / 3)
    assert lines(found.notes) == [
        "t (3 of 6 and 3): compared on the documents that are in both runs"
    ]


def test_where_every_prompt_differs_content_pairs_and_is_said(tmp_path):
    answers = [1.0, 0.0, 1.0]
    a = write_answers(tmp_path / "a", t=answers)
    b = write_log(tmp_path / "b", {"t": of_numbers(answers, prompt="<user>")},
                  {"t": {"acc,none": mean(answers)}})  # fmt: skip
    found = compared(a, b)
    assert found.rows["paired_by"].tolist() == ["document"]
    assert found.rows["documents"].tolist() == [3]
    assert "paired by their content alone" in lines(found.notes)[0]


def test_where_some_prompts_differ_the_others_are_compared(tmp_path):
    answers = [1.0, 0.0, 1.0, 0.0]
    a = write_answers(tmp_path / "a", t=answers)
    other = [*of_numbers(answers)[:3], sample(3, {"acc": 0.0}, prompt="other shots")]
    b = write_log(tmp_path / "b", {"t": other}, {"t": {"acc,none": 0.5}})
    found = compared(a, b)
    assert found.rows["documents"].tolist() == [3]
    assert found.rows["paired_by"].tolist() == ["document and prompt"]
    assert lines(found.notes)[0].startswith("t (3 of 4 and 4): ")


def test_documents_that_stand_twice_are_paired_one_by_one(tmp_path):
    lines = [sample(n, {"acc": float(n)}, document="the same") for n in range(2)]
    a = write_log(tmp_path / "a", {"t": lines}, {"t": {"acc,none": 0.5}})
    b = write_log(tmp_path / "b", {"t": lines}, {"t": {"acc,none": 0.5}})
    [row] = rows_of(a, b)
    assert row["documents"] == 2
    assert row["difference"] == 0


def test_perplexities_are_compared_in_nats_per_word(tmp_path):
    words = [10, 20, 30, 40]
    before = [[-2.0 * n, n] for n in words]
    after = [[-2.1 * n - 0.1 * k, n] for k, n in enumerate(words)]
    logs = []
    for name, values in (("a", before), ("b", after)):
        nats = -sum(v for v, _ in values) / 100
        lines = of_numbers(values, "word_perplexity")
        logs.append(write_log(
            tmp_path / name, {"t": lines}, {"t": {"word_perplexity,none": math.exp(nats)}},
            higher_is_better={"t": {"word_perplexity": False}},
        ))  # fmt: skip
    [row] = rows_of(*logs)
    assert row["reference"] == pytest.approx(math.exp(2.0))
    assert row["difference"] == pytest.approx(0.1 + 0.6 / 100)
    assert (row["unit"], row["direction"], row["verdict"]) == ("nats per word", "lower", "higher")
    assert 0 < row["ci_low"] < row["difference"] < row["ci_high"]


def test_one_likelihood_is_judged_once(tmp_path):
    metrics = ["word_perplexity", "byte_perplexity", "bits_per_byte"]
    value = {"word_perplexity": [-20.0, 10], "byte_perplexity": [-20.0, 50],
             "bits_per_byte": [-20.0, 50]}  # fmt: skip
    numbers = {"word_perplexity,none": math.exp(2), "byte_perplexity,none": math.exp(0.4),
               "bits_per_byte,none": 0.4 / math.log(2)}  # fmt: skip
    logs = [write_log(tmp_path / x, {"t": [sample(n, value) for n in range(5)]}, {"t": numbers})
            for x in "ab"]  # fmt: skip
    rows = rows_of(*logs)
    assert [row["metric"] for row in rows] == metrics
    assert [math.isnan(row["p_value"]) for row in rows] == [False, True, True]


def test_filters_and_metrics_are_rows_of_their_own(tmp_path):
    logs = []
    for name, loose in (("a", [1.0, 1.0, 1.0]), ("b", [1.0, 0.0, 0.0])):
        lines = [
            *of_numbers([1.0, 0.0, 1.0], "exact_match", "strict"),
            *of_numbers(loose, "exact_match", "loose"),
        ]
        numbers = {"exact_match,strict": 2 / 3, "exact_match,loose": mean(loose)}
        logs.append(write_log(tmp_path / name, {"t": lines}, {"t": numbers}))
    rows = rows_of(*logs)
    assert [(row["filter"], round(row["difference"], 3)) for row in rows] == [
        ("strict", 0.0), ("loose", -0.667),
    ]  # fmt: skip


def left_out(tmp_path, tasks_b, numbers_b, **content):
    """What is said of two runs; the first has tasks t and u, with a filter each."""
    a = write_answers(tmp_path / "a", t=[1.0, 0.0, 1.0], u=[1.0, 1.0])
    b = write_log(tmp_path / "b", tasks_b, numbers_b, **content)
    found = compared(a, b)
    return found.rows["task"].tolist(), lines(found.left_out)


THREE, TWO = [1.0, 0.0, 1.0], [1.0, 1.0]
BOTH = ({"t": of_numbers(THREE), "u": of_numbers(TWO)},
        {"t": {"acc,none": 2 / 3}, "u": {"acc,none": 1.0}})  # fmt: skip


def test_other_versions_are_left_out_by_name(tmp_path):
    rows, told = left_out(tmp_path, *BOTH, versions={"t": 2.0, "u": 1.0})
    assert rows == ["u"]
    assert told == ["task t: version 1.0 in the reference, 2.0 in the other run"]


def test_other_tasks_are_left_out_by_name(tmp_path):
    rows, told = left_out(
        tmp_path,
        {"t": of_numbers(THREE), "v": of_numbers(TWO)},
        {"t": {"acc,none": 2 / 3}, "v": {"acc,none": 1.0}},
    )
    assert rows == ["t"]
    assert told == ["task u: only the reference has it", "task v: only the other run has it"]


def test_other_filters_are_left_out_by_name(tmp_path):
    tasks = {"t": of_numbers(THREE, filter_name="strict"), "u": of_numbers(TWO)}
    rows, told = left_out(tmp_path, tasks, {"t": {"acc,strict": 2 / 3}, "u": {"acc,none": 1.0}})
    assert rows == ["u"]
    assert "t filter none: only the reference has it" in told
    assert "t filter strict: only the other run has it" in told


def test_other_metrics_are_left_out_by_name(tmp_path):
    tasks = {"t": of_numbers(THREE, "f1"), "u": of_numbers(TWO)}
    rows, told = left_out(tmp_path, tasks, {"t": {"f1,none": 2 / 3}, "u": {"acc,none": 1.0}})
    assert rows == ["u"]
    assert "t metric acc,none: only the reference has it" in told


def test_other_documents_are_left_out_by_name(tmp_path):
    tasks = {"t": [sample(n, {"acc": x}, document=f"new {n}") for n, x in enumerate(THREE)],
             "u": of_numbers(TWO)}  # fmt: skip
    rows, told = left_out(tmp_path, tasks, BOTH[1])
    assert rows == ["u"]
    assert told == ["task t: no document is in both runs"]


def test_a_task_without_samples_is_left_out_by_name(tmp_path):
    b = tmp_path / "b"
    write_log(b, *BOTH)
    next(b.glob("*/samples_t_*")).unlink()
    a = write_answers(tmp_path / "a", t=THREE, u=TWO)
    found = compared(a, b)
    assert found.rows["task"].tolist() == ["u"]
    assert lines(found.left_out) == ["task t: no samples file in the other run"]


@pytest.mark.parametrize(
    ("kind", "key", "told"),
    [("filter_list", "name", "filter none"), ("metric_list", "metric", "metric acc")],
)
def test_filters_and_metrics_defined_otherwise_are_left_out(tmp_path, kind, key, told):
    name = told.split()[1]
    logs = [
        write_log(tmp_path / x, *BOTH, configs={"t": {kind: [{key: name, "how": how}]}})
        for x, how in (("a", "x"), ("b", "y"))
    ]
    found = compared(*logs)
    assert found.rows["task"].tolist() == ["u"]
    assert lines(found.left_out) == [f"t {told}: defined otherwise in the other run"]


def test_functions_have_another_address_in_every_run(tmp_path):
    logs = [
        write_log(tmp_path / x, *BOTH, configs={
            "t": {"filter_list": [{"name": "none", "how": f"<function f at 0x7f{x}>"}]}
        })
        for x in "ab"
    ]  # fmt: skip
    assert compared(*logs).left_out == {}


def test_a_number_that_does_not_follow_from_the_documents_has_no_interval(tmp_path):
    """Such as F1, or a median; the harness's own numbers are shown."""
    logs = [
        write_log(tmp_path / x, {"t": of_numbers([1.0, 0.0, 0.0], "f1")}, {"t": {"f1,none": f1}})
        for x, f1 in (("a", 0.5), ("b", 0.8))
    ]
    found = compared(*logs)
    [row] = found.rows.to_dict("records")
    assert (row["reference"], row["value"], row["verdict"]) == (0.5, 0.8, "")
    assert math.isnan(row["p_value"])
    assert lines(found.notes) == [
        "t f1: no interval, for its documents do not give the harness's number"
    ]


@pytest.mark.parametrize("value", [None, "text", {"a": 1}, [1, 2, 3], [[1.0]], 10**400])
def test_values_that_are_no_numbers_have_no_interval(tmp_path, value):
    logs = [
        write_log(tmp_path / x, {"t": of_numbers([1.0, value, 0.0])}, {"t": {"acc,none": 0.5}})
        for x in "ab"
    ]
    [row] = rows_of(*logs)
    assert row["verdict"] == ""


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_number_that_is_none_is_broken(tmp_path, number):
    a = write_answers(tmp_path / "a", t=THREE)
    b = write_log(tmp_path / "b", {"t": of_numbers(THREE)}, {"t": {"acc,none": number}})
    [row] = rows_of(a, b)
    assert row["verdict"] == "broken"
    assert math.isnan(row["difference"])


def test_likelihoods_that_are_none_are_broken(tmp_path):
    a = write_answers(tmp_path / "a", t=THREE)
    lines = of_numbers(THREE, resps=[[["nan", "False"]]])
    b = write_log(tmp_path / "b", {"t": lines}, {"t": {"acc,none": 2 / 3}})
    assert [row["verdict"] for row in rows_of(a, b)] == ["broken"]


def test_a_direction_that_nobody_knows_is_none(tmp_path):
    logs = [write_log(tmp_path / x, {"t": of_numbers(of)}, {"t": {"acc,none": mean(of)}},
                      higher_is_better={})
            for x, of in zip("ab", TEN_BROKEN, strict=True)]  # fmt: skip
    [row] = rows_of(*logs)
    assert row["direction"] is None
    assert row["verdict"] == "lower"


def test_q_values_are_over_all_rows_of_all_runs(tmp_path):
    a = write_answers(tmp_path / "a", t=[1.0] * 10, u=[1.0] * 10)
    b = write_answers(tmp_path / "b", t=[0.0] * 6 + [1.0] * 4, u=[1.0] * 10)
    c = write_answers(tmp_path / "c", t=[0.0] * 10, u=[0.0] * 5 + [1.0] * 5)
    found = compare_runs([read_run(path) for path in (a, b, c)], Margins())
    p, q = (
        np.concatenate([one.rows[name].to_numpy(float) for one in found])
        for name in ("p_value", "q_value")
    )
    assert len(p) == 4
    order = np.argsort(p)
    by_hand = np.minimum.accumulate((p[order] * 4 / np.arange(1, 5))[::-1])[::-1]
    assert q[order] == pytest.approx(by_hand)


# Groups

GROUP = {"group_subtasks": {"g": ["t", "u"]}}
T, U = ([1.0] * 12, [0.0] * 6 + [1.0] * 6), ([1.0, 0.0] * 2, [1.0, 1.0, 1.0, 0.0])


def group_log(folder, t, u, number):
    return write_log(
        folder,
        {"t": of_numbers(t), "u": of_numbers(u)},
        {"g": {"acc,none": number}, "t": {"acc,none": mean(t)}, "u": {"acc,none": mean(u)}},
        **GROUP,
    )


def test_a_group_weighted_by_size_pools_the_documents(tmp_path):
    a = group_log(tmp_path / "a", T[0], U[0], mean([*T[0], *U[0]]))
    b = group_log(tmp_path / "b", T[1], U[1], mean([*T[1], *U[1]]))
    group, t, _ = rows_of(a, b)
    assert (group["task"], group["is_group"], t["task"]) == ("g", True, "t")
    assert (group["documents"], group["reference"], group["value"]) == (16, 14 / 16, 9 / 16)
    low, high = score_interval([*T[0], *U[0]], [*T[1], *U[1]], 0.95)
    # Six broken and one mended: McNemar's p is .125, so the interval reaches 0.
    assert group["p_value"] == pytest.approx(0.125)
    assert (group["ci_low"], group["ci_high"]) == (pytest.approx(low), max(high, 0.0))


def test_a_group_of_plain_means_adds_half_widths_in_squares(tmp_path):
    a = group_log(tmp_path / "a", T[0], U[0], (mean(T[0]) + mean(U[0])) / 2)
    b = group_log(tmp_path / "b", T[1], U[1], (mean(T[1]) + mean(U[1])) / 2)
    group, *_ = rows_of(a, b)
    assert (group["reference"], group["value"]) == (0.75, 0.625)
    changes = [mean(after) - mean(before) for before, after in (T, U)]
    assert group["difference"] == pytest.approx(sum(changes) / 2)
    ends = [score_interval(before, after, 0.95) for before, after in (T, U)]
    below = math.hypot(*(change - low for change, (low, _) in zip(changes, ends, strict=True)))
    above = math.hypot(*(high - change for change, (_, high) in zip(changes, ends, strict=True)))
    assert group["ci_low"] == pytest.approx(group["difference"] - below / 2)
    assert group["ci_high"] == pytest.approx(group["difference"] + above / 2)
    assert group["documents"] == 16
    # Over confidence 1 - p the interval would hold 0.
    assert (group["p_value"] < 0.05) == (group["ci_high"] < 0 or group["ci_low"] > 0)


def test_a_group_that_is_neither_has_no_interval(tmp_path):
    a, b = (group_log(tmp_path / x, T[0], U[0], 0.123) for x in "ab")
    group, *_ = rows_of(a, b)
    assert (group["verdict"], group["reference"]) == ("", 0.123)


def test_a_group_with_a_task_that_is_left_out_is_left_out(tmp_path):
    a = group_log(tmp_path / "a", T[0], U[0], mean([*T[0], *U[0]]))
    b = write_log(
        tmp_path / "b",
        {"t": of_numbers(T[1]), "u": of_numbers(U[1])},
        {"g": {"acc,none": 0.5}, "t": {"acc,none": mean(T[1])}, "u": {"acc,none": mean(U[1])}},
        versions={"t": 1.0, "u": 9.0},
        **GROUP,
    )
    found = compared(a, b)
    assert found.rows["task"].tolist() == ["t"]
    assert "group g: its tasks are not all compared" in lines(found.left_out)


def test_a_margin_of_a_group_is_that_of_its_tasks(tmp_path):
    a, b = (group_log(tmp_path / x, T[0], U[0], mean([*T[0], *U[0]])) for x in "ab")
    rows = rows_of(a, b, Margins(0.03, {"g": 0.5}))
    assert [row["margin"] for row in rows] == [0.5] * 3


def test_groups_stand_before_what_is_in_them(tmp_path):
    numbers = {"acc,none": 2 / 3}
    names = ["alone", "t", "u", "v", "w"]
    logs = [
        write_log(
            tmp_path / x,
            {name: of_numbers(THREE) for name in names},
            dict.fromkeys([*names, "all", "few"], numbers),
            group_subtasks={"few": ["u", "v"], "all": ["t", "few", "w"]},
        )
        for x in "ab"
    ]
    assert [row["task"] for row in rows_of(*logs)] == ["all", "few", "u", "v", "t", "w", "alone"]
