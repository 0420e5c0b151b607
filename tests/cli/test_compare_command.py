"""`neurosurgery compare`: text, table, page, and what is refused in one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pandas as pd
import pytest
from conftest import ROOT
from harness_log_files import TIME, mean, of_numbers, write_answers, write_log

from neurosurgery.__main__ import main
from neurosurgery.verdicts.runs import RUN_COLUMNS

BEFORE, AFTER = [1.0] * 40, [0.0] * 10 + [1.0] * 30


@pytest.fixture
def runs(tmp_path):
    return [
        str(write_answers(tmp_path / name, easy=easy, hard=AFTER))
        for name, easy in (("a", BEFORE), ("b", AFTER))
    ]


def output_of(argv, capsys):
    assert main(["compare", *argv]) == 0
    return capsys.readouterr().out


def test_the_text_has_a_verdict_for_every_task(runs, capsys):
    text = output_of(runs, capsys)
    [easy, hard] = [line.split() for line in text.splitlines() if line.startswith(("  ea", "  ha"))]
    assert easy[:4] == ["easy", "acc", "worse", "-0.250"]
    assert hard[:4] == ["hard", "acc", "undecided", "+0.000"]
    assert re.search(r"B against A.*1 worse, 1 undecided", text)


def test_table_and_page_hold_the_same_rows(runs, tmp_path, capsys):
    output_of([*runs, "--csv", str(tmp_path / "t.csv"), "--output", str(tmp_path / "page")], capsys)
    files = {path.name for path in (tmp_path / "page").iterdir()}
    assert files == {"runs.html", "runs.csv", "differences.png", "differences.pdf"}
    assert (tmp_path / "t.csv").read_bytes() == (tmp_path / "page" / "runs.csv").read_bytes()
    table = pd.read_csv(tmp_path / "t.csv")
    assert list(table) == RUN_COLUMNS
    assert table["verdict"].tolist() == ["worse", "undecided"]
    page = (tmp_path / "page" / "runs.html").read_text(encoding="utf-8")
    [verdicts] = re.findall(r'<table id="table-verdicts1".*?</table>', page, re.DOTALL)
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in verdicts.split("<tr>")[2:]]
    assert [row[:3] for row in rows] == [["easy", "acc", "worse"], ["hard", "acc", "undecided"]]
    assert not re.search(r'(src|href)="(?!#|runs\.csv|differences\.|data:,)', page), "offline"


def test_three_runs_are_two_tables(runs, tmp_path, capsys):
    third = write_answers(tmp_path / "c", easy=BEFORE, hard=BEFORE)
    text = output_of([*runs, str(third), "--output", str(tmp_path / "page")], capsys)
    assert "B against A" in text
    assert "C against A" in text
    table = pd.read_csv(tmp_path / "page" / "runs.csv")
    assert set(table["run"]) == {runs[1], str(third)}
    assert set(table["reference_run"]) == {runs[0]}


def test_an_unknown_direction_is_higher_or_lower(tmp_path, capsys):
    logs = [
        str(write_log(tmp_path / name, {"t": of_numbers(of)}, {"t": {"acc,none": mean(of)}},
                      higher_is_better={}))
        for name, of in (("a", BEFORE), ("b", AFTER))
    ]  # fmt: skip
    text = output_of([*logs, "--csv", str(tmp_path / "t.csv")], capsys)
    assert "1 lower" in text
    assert pd.read_csv(tmp_path / "t.csv")["verdict"].tolist() == ["lower"]


def test_a_group_stands_before_its_tasks(tmp_path, capsys):
    logs = [
        str(write_log(
            tmp_path / name,
            {"x": of_numbers(of), "y": of_numbers(of)},
            {"x": {"acc,none": mean(of)}, "y": {"acc,none": mean(of)}, "g": {"acc,none": mean(of)}},
            group_subtasks={"g": ["x", "y"]},
        ))
        for name, of in (("a", BEFORE), ("b", AFTER))
    ]  # fmt: skip
    text = output_of(logs, capsys)
    found = re.findall(r"^  (g \(group\)|- x|- y)", text, re.MULTILINE)
    assert found == ["g (group)", "- x", "- y"]


def test_names_of_others_write_nothing_to_the_terminal(tmp_path, capsys):
    evil = "\x1b[31mred<b>\u202e"
    numbers = {evil: {"acc,none": 1.0}}
    logs = []
    for name in "ab":
        log = write_log(tmp_path / name, {"t": of_numbers([1.0] * 5)}, {"t": {"acc,none": 1.0}},
                        model=f"org/{evil}", group_subtasks={},
                        higher_is_better=numbers)  # fmt: skip
        results = next(log.glob("*/results*"))
        text = results.read_text().replace('"t"', '"\\u001b[31mt"')
        results.write_text(text)
        samples = next(log.glob("*/samples*"))
        samples.rename(samples.with_name(f"samples_\x1b[31mt_{TIME}.jsonl"))
        logs.append(str(log))
    text = output_of([*logs, "--output", str(tmp_path / "page")], capsys)
    page = (tmp_path / "page" / "runs.html").read_text(encoding="utf-8")
    for shown in (text, page):
        assert "\x1b" not in shown
        assert "\u202e" not in shown
    assert "\\x1b[31mt" in text
    assert "<b>" not in page


def test_the_margin_is_given_as_in_the_scripts(runs, capsys):
    text = output_of([*runs, "--margin", ".5", "hard=.25"], capsys)
    assert re.search(r"easy +acc +worse, within the margin .*± 0.5 ", text)
    assert re.search(r"hard +acc +within the margin .*± 0.25 ", text)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["{a}"], "expected two runs or more"),
        (["{a}", "{a}"], "is given twice"),
        (["{a}", "{a}/org__model"], "is given twice"),
        (["{a}", "{a}/none"], "no such file or folder"),
        (["{a}", "{b}", "--margin", "x"], "--margin x: expected a number"),
        (["{a}", "{b}", "--margin", "none=.1"], "--margin none: expected one of the tasks: easy"),
        (["{a}", "{b}", "--csv", "{a}/t.txt"], "expected a file name that ends in .csv"),
        (["{a}", "{b}", "--output", "{a}/org__model/results_" + TIME + ".json"], "expected a fold"),
        (["{a}", "{other}"], "nothing to compare with the reference: task easy, task hard: only"),
        (["{a}", "{b}", "--tsv"], "unrecognized arguments"),
    ],
)
def test_bad_input_is_one_line(runs, tmp_path, capsys, more, told):
    other = write_answers(tmp_path / "other", unlike=BEFORE)
    argv = [each.format(a=runs[0], b=runs[1], other=other) for each in more]
    try:
        status = main(["compare", *argv])
    except SystemExit as error:
        status = error.code
    found = capsys.readouterr()
    assert (status, found.out) == (2, "")
    assert len(found.err.strip().splitlines()) == 1
    assert told in found.err


def test_no_torch_is_imported(runs, tmp_path):
    """Also for the page: this command is for people who only have logs."""
    code = (
        "import sys\n"
        "from neurosurgery.__main__ import main\n"
        "status = main(sys.argv[1:])\n"
        "heavy = {'torch', 'transformers', 'lm_eval', 'accelerate'} & set(sys.modules)\n"
        "sys.exit(f'{status} {sorted(heavy)}' if status or heavy else 0)\n"
    )
    argv = ["compare", *runs, "--output", str(tmp_path / "page"), "--csv", str(tmp_path / "t.csv")]
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *argv],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr


def test_the_page_of_the_docs_explains_every_column():
    text = (ROOT / "docs" / "COMPARE.md").read_text(encoding="utf-8")
    [table] = re.findall(r"^## The table runs\.csv$(.*?)^## ", text, re.DOTALL | re.MULTILINE)
    first = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert [name for cell in first for name in re.findall(r"`(\w+)`", cell)] == RUN_COLUMNS
