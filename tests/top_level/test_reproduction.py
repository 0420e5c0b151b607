"""The page of claims: its tables are what its files give, and the rules judge by intervals."""

from __future__ import annotations

import pandas as pd
import pytest

from benchmarks import real
from benchmarks.reproduction import __main__ as command
from benchmarks.reproduction.claims import (
    DOES_NOT,
    HOLDS,
    NOT_RUN,
    UNDECIDED,
    better_than,
    deletes_math,
    number,
    scaling_helps,
    spares_the_rest,
)
from benchmarks.reproduction.page import PAGE, TABLES, rendered
from benchmarks.reproduction.runs import Run
from neurosurgery.config.demo import DEMO

NONE = pd.DataFrame()


def run_with(math: str, *others: str, scalar: float = 0.0) -> Run:
    rows = [
        {
            "method": "mathneuro",
            "skill": "math",
            "size": 0.01,
            "edit": "scale",
            "edit_value": scalar,
            "task": f"task{index}",
            "metric": "acc,none",
            "baseline": 0.5,
            "difference": -0.2,
            "ci_low": -0.3,
            "ci_high": -0.1,
            "verdict": verdict,
        }
        for index, verdict in enumerate((math, *others))
    ]
    return Run("run", pd.DataFrame(rows), NONE, NONE, NONE)


def compared(ours: tuple[int, float, float], theirs: tuple[int, float, float]) -> Run:
    rows = [
        {
            "skill": "math",
            "method": method,
            "against": None,
            "reached": reached,
            "loss_at_half_mean": (low + high) / 2,
            "loss_at_half_mean_low": low,
            "loss_at_half_mean_high": high,
        }
        for method, (reached, low, high) in (("mathneuro", ours), ("wanda", theirs))
    ]
    return Run("run", NONE, pd.DataFrame(rows), NONE, NONE)


def test_the_page_says_what_the_files_say(capsys):
    assert command.main(["check"]) == 0, capsys.readouterr().out


def test_a_changed_digit_is_noticed():
    page = PAGE.read_text(encoding="utf-8")
    assert "| .944 |" in page
    changed = page.replace("| .944 |", "| .945 |", 1)
    assert rendered(changed) != changed


@pytest.mark.parametrize(
    ("verdict", "wanted"),
    [("lower", HOLDS), ("unmoved", DOES_NOT), ("higher", DOES_NOT), ("undecided", UNDECIDED)],
)
def test_deleting(verdict, wanted):
    found = deletes_math(0.01, run_with(verdict))
    assert found.verdict == wanted
    assert found.evidence == "task0 -.200 [-.300, -.100]"


@pytest.mark.parametrize(
    ("verdicts", "wanted"),
    [
        (["unmoved", "unmoved"], HOLDS),
        (["unmoved", "undecided"], UNDECIDED),
        (["undecided", "lower"], DOES_NOT),
        (["unmoved", "broken"], DOES_NOT),
    ],
)
def test_sparing(verdicts, wanted):
    # Math's own verdict does not count.
    assert spares_the_rest(0.01, run_with("lower", *verdicts)).verdict == wanted


def test_scaling():
    assert scaling_helps(0.01, 1.1, run_with("higher", scalar=1.1)).verdict == HOLDS
    assert scaling_helps(0.01, 1.1, run_with("higher", scalar=1.01)).verdict == NOT_RUN


@pytest.mark.parametrize(
    ("ours", "theirs", "wanted"),
    [
        ((3, 0.1, 0.2), (3, 0.3, 0.4), HOLDS),
        ((3, 0.1, 0.35), (3, 0.3, 0.4), UNDECIDED),
        ((3, 0.5, 0.6), (3, 0.3, 0.4), DOES_NOT),
        ((3, 0.5, 0.6), (0, 0.0, 0.0), HOLDS),
        ((0, 0.0, 0.0), (3, 0.3, 0.4), DOES_NOT),
        ((0, 0.0, 0.0), (0, 0.0, 0.0), UNDECIDED),
    ],
)
def test_comparing(ours, theirs, wanted):
    assert better_than("wanda", compared(ours, theirs)).verdict == wanted
    assert better_than("lape", compared(ours, theirs)).verdict == NOT_RUN


def test_numbers():
    values = (0.5, -0.25, 1.0, 12.4, 1234.0, 2e9)
    expected = [".500", "-.250", "1.000", "12", "1,234", "2.0e+09"]
    assert [number(value) for value in values] == expected


def test_a_table_of_a_run_that_was_not_measured_is_empty():
    assert TABLES["consistency"]([Run("run", NONE, NONE, NONE, NONE)])[2:] == []


def test_overlaps_are_means_over_pairs():
    pairs = pd.DataFrame(
        {
            "against": "MMLU",
            "proportion": 0.01,
            "num_samples": 10,
            "overlap": [0.5, 0.7],
            "overlap_by_chance": 0.004,
        }
    )
    [row] = TABLES["consistency"]([Run("run", NONE, NONE, NONE, pairs)])[2:]
    assert row == "| MMLU | 0.01 | 10 | 2 | .600 (.500 to .700) | .0040 |"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--documents", "0"], "--documents 0: expected a whole number of at least 1"),
        (["--batch_size", "0"], "--batch_size 0: expected a whole number of at least 1"),
        (["--include_path", "/nope"], "--include_path /nope: expected a folder of task files"),
        (["--tasks", "smal_sums"], "--tasks smal_sums: "),
    ],
)
def test_bad_input_of_the_real_benchmark_is_one_line(flags, message, capsys):
    assert real.main([DEMO.model, *flags]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_a_folder_without_results_is_not_collected(tmp_path, capsys):
    (tmp_path / "summary.csv").write_text("task\n")
    with pytest.raises(SystemExit) as stopped:
        command.main(["collect", str(tmp_path)])
    assert stopped.value.code == 2
    assert "expected a results folder" in capsys.readouterr().err
