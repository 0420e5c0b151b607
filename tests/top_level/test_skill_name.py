"""`--skill_name`: what texts and tables call the skill; identity and files stay as they are."""

from __future__ import annotations

import re
import shutil

import pytest
from report_folder import read_csv
from scripts import SCRIPTS

from neurosurgery.__main__ import main

pytestmark = pytest.mark.whole

MATHNEURO = SCRIPTS["mathneuro"]
ONE = MATHNEURO.one("--num_samples", "6", "--eval_limit", "3", "--pre_train_eval")
TABLES = ("results.csv", "summary.csv", "isolation.csv", "comparison.csv", "overlap.csv")


@pytest.fixture(scope="module")
def named(tmp_path_factory, tiny_model):
    """A skill called code, and a control run in which it is one of the others."""
    path = tmp_path_factory.mktemp("named") / "results"
    assert MATHNEURO.run(tiny_model, path, *ONE, "--skill_name", "code") == 0
    assert MATHNEURO.run(tiny_model, path, *ONE, "--skill", "Race") == 0
    return path


def words_of_math(text: str) -> list[str]:
    """Lines that say math, but for names of files, tasks and methods."""
    text = re.sub(r"Math Neurosurgery|data/demo/math\.csv|--\w+\[math\]", "", text)
    return [line for line in text.splitlines() if re.search(r"\bmath\b", line, re.IGNORECASE)]


def test_tables_and_texts_say_the_name(named):
    for name in TABLES:
        table = read_csv(named / name)
        columns = ("skill", "against", "samples")
        assert "math" not in {value for column in columns for value in table.get(column, ())}, name
    summary = read_csv(named / "summary.csv")
    assert {*summary["skill"]} == {"code", "Race"}
    assert {*summary["against"]} == {"code", "Race", "MMLU"}
    (text,) = (named / "eval_results").rglob("results.txt")
    assert words_of_math(text.read_text()) == []
    assert "half of code" in text.read_text() or "skill's task" in text.read_text()


def test_file_names_and_identity_are_those_of_any_skill(named, tiny_model, tmp_path):
    assert not [path for path in named.rglob("*code*") if "encoded" not in path.name]
    assert list((named / "cells").rglob("skill_Race/math_calculate0.05_run0.json"))
    there = tmp_path / "results"
    shutil.copytree(named, there)
    records = {path: path.stat().st_mtime_ns for path in (there / "cells").rglob("*.json")}
    # Another name: nothing is computed again, and the tables say it.
    assert MATHNEURO.run(tiny_model, there, *ONE, "--skill_name", "Sums of two") == 0
    assert {path: path.stat().st_mtime_ns for path in records} == records
    assert {*read_csv(there / "summary.csv")["skill"]} == {"Sums of two", "Race"}
    assert "Sums of two" in {*read_csv(there / "overlap.csv")["samples"]}
    assert "skill_name: Sums of two" in (there / "run.yaml").read_text()
    assert "code" not in (there / "run.yaml").read_text()


@pytest.mark.parametrize("lost", ["summary.csv", "tables.json"])
def test_the_report_makes_tables_again_by_the_same_name(named, tmp_path, lost):
    there = tmp_path / "results"
    shutil.copytree(named, there)
    (there / lost).unlink()
    assert main(["report", str(there)]) == 0
    assert {*read_csv(there / "summary.csv")["skill"]} == {"code", "Race"}
    assert "Which parameters carry code" in (there / "report" / "report.html").read_text()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("race", "--skill_name race: is the name of a set of other text"),
        ("two\nlines", "expected a name of one line, up to 40 characters"),
        (" x", "expected a name of one line, up to 40 characters"),
        ("x" * 41, "expected a name of one line, up to 40 characters"),
    ],
)
def test_names_that_cannot_be_shown_are_refused(name, reason, tiny_model, tmp_path, capsys):
    assert MATHNEURO.run(tiny_model, tmp_path / "results", "--skill_name", name) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "results").exists()
