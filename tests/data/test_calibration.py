from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest

from neurosurgery.common.errors import UsageError
from neurosurgery.common.generator import generator
from neurosurgery.data.calibration import CalibrationSet, read_calibration_set
from neurosurgery.settings.experiment import CalibrationSource


def read(path, name="Race"):
    return read_calibration_set(CalibrationSource(name, path))


def test_column_qa(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text('id,qa\n1,"two\nlines, é"\n2,NA\n', encoding="utf-8")
    found = read(file)
    assert found.samples == ("two\nlines, é", "NA")
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_columns_question_and_solution(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("question,solution\nWhat?,def f(): return 1\n")
    assert read(file).samples == (
        "Instruct: What? Let's write a Python program.\nOutput:\ndef f(): return 1",
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"qa\n", "has a header but no rows"),
        (
            b"words,label\na,b\n",
            "has the columns words, label; expected qa, question and solution, or text",
        ),
        (b"question\na\n", "has the columns question"),
        (b"qa\nhello, world\n", "more fields than the header; quote texts that hold commas"),
        (b"qa\n\xff\xfe\n", "expected UTF-8 text; byte"),
        (b'qa\n"  "\n', "sample 1 is empty in column qa"),
        (b"question,solution\nx,y\nhow,\n", "sample 2 is empty in column solution"),
        (b"qa\nabc\xe9\n", "byte 6 cannot be decoded"),
        (b'qa\n"open\n', "is not a CSV file"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, content, message):
    file = tmp_path / "bad.csv"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        read(file)
    assert str(caught.value).startswith(f"--calibration_datasets {file}: ")
    assert "\n" not in str(caught.value)


def test_missing_files_name_the_flag_and_how_to_get_them(tmp_path):
    with pytest.raises(UsageError, match=r"--calibration_datasets .* No such file") as caught:
        read(tmp_path / "other.csv")
    assert "prepare.py" not in str(caught.value)
    with pytest.raises(
        UsageError,
        match=r"--train_dataset .*; python data/prepare\.py gsm8k writes data/gsm8k\.csv",
    ):
        read(tmp_path / "gsm8k.csv", name="math")


def test_repeats_are_independent_draws_with_replacement():
    calibration_set = CalibrationSet("Race", tuple(f"s{i}" for i in range(200)), "")
    drawn = calibration_set.multiplicities(num_samples=300, num_repeats=4, seed=42)
    assert drawn.shape == (4, 200)
    assert (drawn.sum(axis=1) == 300).all()
    assert len({row.tobytes() for row in drawn}) == 4
    # Fewer repeats are the first of more: a folder can grow.
    np.testing.assert_array_equal(drawn[:2], calibration_set.multiplicities(300, 2, 42))
    assert not np.array_equal(drawn, calibration_set.multiplicities(300, 4, 43))


def test_draws_do_not_depend_on_global_generators():
    calibration_set = CalibrationSet("Race", tuple("abcdefgh"), "")
    np.random.seed(1234)
    first = calibration_set.multiplicities(50, 2, 42)
    np.random.seed(99)
    np.testing.assert_array_equal(first, calibration_set.multiplicities(50, 2, 42))


def test_every_purpose_has_a_generator_of_its_own():
    draws = {
        generator(seed, repeat, name, role).integers(1 << 62)
        for seed in (0, 1)
        for repeat in (0, 1)
        for name in ("Race", "MMLU")
        for role in ("samples", "mask")
    }
    assert len(draws) == 16


@pytest.mark.parametrize(
    ("columns", "prompts", "why"),
    [
        ({"qa": ["a b 7", "c d 12 "], "answer": ["7", "12"]}, ("a b ", "c d "), ""),
        ({"text": ["a b"] * 2, "solution": ["x", "b"], "answer": ["b"] * 2}, ("a ", "a "), ""),
        ({"text": ["a b", "c d"], "answer": ["b", ""]}, (), "sample 2 does not end with"),
        ({"text": ["ab", "cd"], "answer": ["ab", "d"]}, (), "sample 1 does not end with"),
        ({"text": ["ab", "cd"]}, (), "the file has no column solution or answer"),
    ],
)
def test_what_a_response_follows(tmp_path, columns, prompts, why):
    path = tmp_path / "set.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    found = read_calibration_set(CalibrationSource("Race", path))
    assert found.prompts == prompts
    if why:
        assert found.no_prompts.startswith(why)
    assert found.without({0}).prompts == prompts[1:]


def test_a_response_to_a_question_is_its_solution(tmp_path):
    path = tmp_path / "set.csv"
    pd.DataFrame({"question": ["How?"], "solution": ["So."]}).to_csv(path, index=False)
    found = read_calibration_set(CalibrationSource("Race", path))
    assert found.samples[0] == f"{found.prompts[0]}So."
