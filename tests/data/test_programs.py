"""Files of programs: what is a sample, what is a test, what is left out, and how that is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurosurgery.common.errors import UsageError
from neurosurgery.data.calibration import read_calibration_set, read_calibration_sets
from neurosurgery.data.program_files import holds_programs
from neurosurgery.data.programs import (
    NUM_SAMPLES,
    program_prompt,
    program_sample,
    read_programs,
    split_programs,
)
from neurosurgery.settings.experiment import CalibrationSource

FILE = Path("mine.csv")


def problems(count: int, **columns: object) -> pd.DataFrame:
    """Rows as they are read from a CSV file: all texts."""
    numbers = range(1, count + 1)
    table = pd.DataFrame(
        {
            "question": [f"{n}+0?" for n in numbers],
            "solution": [f"return {n}" for n in numbers],
            "answer": [str(n) for n in numbers],
        }
    )
    return table.assign(**columns)


def split(table: pd.DataFrame, random_state: int = 42):
    return split_programs(table, random_state, "--train_dataset", FILE)


def test_the_first_1500_are_samples():
    found = split(problems(2400))
    assert (len(found.samples), len(found.tests)) == (1500, 900)
    assert NUM_SAMPLES == 1500


def test_a_small_file_keeps_a_quarter_for_tests():
    found = split(problems(40))
    assert (len(found.samples), len(found.tests)) == (30, 10)


def test_the_shuffle_is_pandas_own():
    """As the published scripts shuffle: once all rows, then the tests once more."""
    table = problems(60)
    found = split(table, random_state=7)
    shuffled = table.sample(frac=1, random_state=7)
    assert found.samples["question"].tolist() == shuffled["question"].tolist()[:45]
    tests = shuffled.iloc[45:].sample(frac=1, random_state=7)
    assert found.tests["question"].tolist() == tests["question"].tolist()


def test_only_the_training_subset_counts():
    subset = ["sgsm_train", "sgsm_unverified"] * 20
    found = split(problems(40, subset=subset))
    assert found.of_other_subsets == 20
    rows = pd.concat([found.samples, found.tests])["row"]
    assert sorted(rows) == list(range(1, 40, 2))


def test_rows_without_a_number_are_left_out_and_no_others():
    """The published code drops the row whose label is the position of the faulty one."""
    wrong = {3: "", 10: "about 7", 11: "inf", 12: "nan", 20: "1/2"}
    answers = [wrong.get(n, f"{n}.50") for n in range(1, 41)]
    found = split(problems(40, answer=answers))
    assert found.without_number == ("", "about 7", "inf", "nan", "1/2")
    both = pd.concat([found.samples, found.tests])
    assert sorted(both["row"]) == [n for n in range(1, 41) if n not in wrong]
    assert (both["answer"] == both["row"] + 0.5).all()


@given(st.integers(12, 90), st.integers(0, 2**40), st.sets(st.integers(1, 90), max_size=30))
def test_every_usable_row_is_in_one_part(count, seed, without):
    answers = ["?" if n in without else str(n) for n in range(1, count + 1)]
    usable = [n for n in range(1, count + 1) if n not in without]
    table = problems(count, answer=answers)
    if len(usable) < 12:
        with pytest.raises(UsageError, match=f"has {len(usable)} problems with a numeric answer"):
            split(table, seed)
        return
    found = split(table, seed)
    listing = found.listing()
    assert sorted(listing["row"]) == usable
    assert set(listing.loc[listing["part"] == "sample", "row"]) == set(found.samples["row"])
    assert len(found.tests) >= len(usable) / 4
    again = split(table, seed)
    assert again.listing().equals(listing)


def test_another_seed_makes_another_split():
    assert (
        split(problems(60), 1).listing()["row"].tolist()
        != split(problems(60), 2).listing()["row"].tolist()
    )


def test_the_line_says_what_is_left_out():
    table = problems(41, answer=["x", *map(str, range(40))], subset=["sgsm_train"] * 40 + ["b"])
    assert split(table).summary(FILE) == (
        "mine.csv: 29 programs as samples, 10 kept for tests; left out: "
        "1 without a numeric answer ('x'), 1 not in the subset sgsm_train"
    )
    assert "left out" not in split(problems(12)).summary(FILE)


def test_a_question_of_a_sample_is_no_test():
    table = pd.concat([problems(40), problems(40)], ignore_index=True)
    found = split(table)
    assert not set(found.tests["question"]) & set(found.samples["question"])
    assert found.repeated == 80 - len(found.samples) - len(found.tests) > 0
    assert f"{found.repeated} tests that repeat a sample's question" in found.summary(FILE)
    with pytest.raises(UsageError, match="has no question for tests that is not a sample's"):
        split(problems(40, question="1+1?"))


def test_rows_of_another_subset_may_be_empty():
    subset = ["sgsm_train"] * 39 + ["other"]
    questions = [*map(str, range(39)), ""]
    assert split(problems(40, subset=subset, question=questions)).of_other_subsets == 1


def test_windows_line_ends_make_the_same_samples(tmp_path):
    table = problems(40).assign(solution="def solution():\n    return 1")
    unix = write(tmp_path, table)
    windows = tmp_path / "windows.csv"
    windows.write_bytes(unix.read_bytes().replace(b"\n", b"\r\n"))
    first, second = (
        read_calibration_set(CalibrationSource("math", path)).samples for path in (unix, windows)
    )
    assert first == second
    assert "\r" not in second[0]


def test_names_of_columns_may_have_blanks_but_occur_once(tmp_path):
    path = write(tmp_path, problems(40).rename(columns=lambda name: f" {name} "))
    assert len(read_calibration_set(CalibrationSource("math", path)).samples) == 30
    path.write_text(f"question,solution,answer,answer\n{'a,b,1,1' * 1}\n")
    with pytest.raises(UsageError, match="has two columns answer; expected every column once"):
        read_calibration_set(CalibrationSource("math", path))


def write(folder: Path, table: pd.DataFrame, name: str = "mine.csv") -> Path:
    path = folder / name
    table.to_csv(path, index=False)
    return path


def test_a_math_set_of_programs_is_split(tmp_path, capsys):
    path = write(tmp_path, problems(40))
    source = CalibrationSource("math", path)
    found = read_calibration_sets([source], random_state=5)["math"]
    expected = read_programs("--train_dataset", path, 5)
    assert found.samples == tuple(
        f"Instruct: {question} Let's write a Python program.\nOutput:\n{solution}"
        for question, solution in zip(
            expected.samples["question"], expected.samples["solution"], strict=True
        )
    )
    assert found.programs.tests.equals(expected.tests)
    assert capsys.readouterr().out == f"{expected.summary(path)}\n"
    # All rows are samples where there are no answers to test, and in another set.
    for name, columns in (("math", ["question", "solution"]), ("other", None)):
        table = problems(40) if columns is None else problems(40)[columns]
        other = read_calibration_set(CalibrationSource(name, write(tmp_path, table, "o.csv")))
        assert (len(other.samples), other.programs) == (40, None)


@pytest.mark.parametrize(
    ("header", "holds"),
    [
        ("question,solution,answer", True),
        ("\ufeffid,answer,solution,question,subset", True),
        ("question,solution", False),
        ("qa,question,solution,answer", False),
        ("", False),
    ],
)
def test_programs_are_recognised_by_their_columns(header, holds, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"{header}\n", encoding="utf-8")
    assert holds_programs(path) is holds


def test_a_file_that_can_be_made_is_known_by_its_name(tmp_path):
    assert holds_programs(tmp_path / "data" / "sgsm.csv")
    assert not holds_programs(tmp_path / "data" / "gsm8k.csv")
    assert not holds_programs(tmp_path / "elsewhere" / "sgsm.csv")


def test_a_file_that_cannot_be_read_holds_none(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    assert not holds_programs(tmp_path / "a.csv")
    assert not holds_programs(tmp_path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"question": ""}, "sample 1 is empty in column question"),
        ({"solution": " "}, "sample 1 is empty in column solution"),
        ({"answer": "none"}, "has 0 problems with a numeric answer; expected at least 12"),
        ({"subset": "other"}, "0 problems with a numeric answer in the subset sgsm_train"),
    ],
)
def test_bad_files_are_refused(change, match, tmp_path):
    path = write(tmp_path, problems(40, **change))
    with pytest.raises(UsageError, match=f"--train_dataset .*mine.csv: .*{match}"):
        read_calibration_set(CalibrationSource("math", path))


def test_other_columns_are_refused_by_the_task(tmp_path):
    path = write(tmp_path, pd.DataFrame({"qa": ["a"]}))
    with pytest.raises(UsageError, match="has the columns qa; expected question, solution, answer"):
        read_programs("programs_file", path, 0)


def test_formats():
    assert program_prompt("1+1?") == "Instruct: 1+1? Let's write a Python program.\nOutput:"
    assert program_sample("1+1?", "def f") == f"{program_prompt('1+1?')}\ndef f"
    assert np.isfinite(split(problems(12)).samples["answer"]).all()


def test_samples_that_are_left_out_stay_examples_and_are_listed(tmp_path):
    path = write(tmp_path, problems(40))
    whole = read_calibration_set(CalibrationSource("math", path))
    fewer = whole.without({0, 2})
    assert fewer.samples == (whole.samples[1], *whole.samples[3:])
    assert fewer.left_out == 2
    parts = fewer.programs.listing()["part"].tolist()
    assert parts[:4] == ["left out", "sample", "left out", "sample"]
    assert parts.count("test") == whole.programs.listing()["part"].tolist().count("test")
    assert fewer.programs.samples.equals(whole.programs.samples)
