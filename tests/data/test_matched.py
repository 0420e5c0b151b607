"""A set of a skill's topic with another task."""

from __future__ import annotations

import re
from collections import Counter

import pandas as pd
import pytest

from neurosurgery.__main__ import main
from neurosurgery.data.matched import matched_samples
from neurosurgery.settings.demo import DEMO

SAMPLES = ["Q: How many are 3 + 4?\nA: 3 + 4 = 7 of them.", "one", "a b a b a b a b a b"]


def pieces(text: str) -> list[str]:
    """Words, numbers and signs, in one order."""
    return sorted(re.findall(r"\d+|[^\W\d]+|[^\w\s]", text))


def test_every_sample_keeps_its_words_and_loses_their_order():
    table = matched_samples(SAMPLES, 42)
    assert list(table) == ["text"]
    for sample, text in zip(SAMPLES, table["text"], strict=True):
        assert Counter(text.split()) == Counter(sample.split())
        assert text.count("\n") == sample.count("\n")
    assert table["text"][0].split() != SAMPLES[0].split()
    assert matched_samples(SAMPLES, 42).equals(table)
    assert not matched_samples(SAMPLES, 43).equals(table)
    # A sample's order does not depend on the others.
    assert matched_samples(SAMPLES[:1], 42)["text"][0] == table["text"][0]


@pytest.mark.parametrize("kind", ["qa", "question + solution", "text file"])
def test_any_form_of_samples_becomes_a_calibration_set(kind, tmp_path, capsys):
    skill, out = tmp_path / "skill.csv", tmp_path / "matched.csv"
    columns = {"qa": ["x y z", "u v"]}
    if kind == "question + solution":
        columns = {"question": ["what?", "why?"], "solution": ["x = 1", "y = 2"], "answer": [1, 2]}
    if kind == "text file":
        skill = tmp_path / "skill.txt"
        skill.write_text("first line\nof a sample\n\nanother one\n", encoding="utf-8")
    else:
        pd.DataFrame(columns).to_csv(skill, index=False)
    assert main(["data", "matched", str(skill), str(out)]) == 0
    assert "2 samples" in capsys.readouterr().out
    assert len(pd.read_csv(out)) == 2
    assert main(["data", "matched", str(skill), str(out)]) == 2
    told = capsys.readouterr().err.strip()
    assert told.endswith(f"OUT {out}: is there already; expected a new file")
    assert len(told.splitlines()) == 1


def test_the_words_of_the_demo_are_as_often_there(tmp_path):
    out = tmp_path / "matched.csv"
    assert main(["data", "matched", DEMO.train_dataset, str(out)]) == 0
    before = pd.read_csv(DEMO.train_dataset)["qa"]
    after = pd.read_csv(out)["text"]
    assert before.map(pieces).equals(after.map(pieces))
    assert before.str.count("\n").equals(after.str.count("\n"))


@pytest.mark.parametrize(
    "solved", ["13*7=91", "48/2=<<48/2=24>>24", "1,250+3.5=1253.5.", "($12+$3)=$15", "9:30-10:15"]
)
def test_no_solved_sum_is_left(solved):
    """Written without blanks it would be one word."""
    [text] = matched_samples([f"so that {solved} in all"], 42)["text"]
    assert pieces(text) == pieces(f"so that {solved} in all")
    assert all(len(re.findall(r"\d+(?:[.,]\d+)*", word)) <= 1 for word in text.split())
    demo = matched_samples(pd.read_csv(DEMO.train_dataset)["qa"].tolist(), 42)["text"]
    assert not demo.str.contains(r"\d[*+/=-]+\d").any()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere.csv", "out.csv"], "SKILL nowhere.csv"),
        (["skill.csv", "out.txt"], "OUT out.txt: expected the name of a CSV file"),
        (["skill.csv", "out.csv", "--random_state", "-1"], "--random_state"),
        (["empty.csv", "out.csv"], "SKILL empty.csv"),
        (["other.csv", "out.csv"], "SKILL other.csv"),
    ],
)
def test_bad_input_is_one_line(words, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"qa": ["a b"]}).to_csv("skill.csv", index=False)
    pd.DataFrame({"qa": []}).to_csv("empty.csv", index=False)
    pd.DataFrame({"other": ["a"]}).to_csv("other.csv", index=False)
    assert main(["data", "matched", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert told in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out.csv").exists()
