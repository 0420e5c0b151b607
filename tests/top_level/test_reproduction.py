"""The page of claims: its tables are what its files give, and the rules judge by intervals."""

from __future__ import annotations

import gzip
import math
import shutil

import numpy as np
import pandas as pd
import pytest

from benchmarks import real
from benchmarks.reproduction import __main__ as command
from benchmarks.reproduction.answers import read_answers, read_table
from benchmarks.reproduction.claims import (
    DOES_NOT,
    HOLDS,
    NOT_RUN,
    UNDECIDED,
    Judged,
    better_than,
    even_over_layers,
    number,
    p_text,
    pruning_deletes_math,
    scaling_helps,
    spares_the_rest,
)
from benchmarks.reproduction.page import PAGE, QUANTITIES, TABLES, rendered
from benchmarks.reproduction.runs import FOLDER, Run, collect, judge
from neurosurgery.edit.kinds import scale_by
from neurosurgery.evaluation.evaluation import Evaluation
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.results.cells import CellRecord, CellResult
from neurosurgery.results.keys import BASELINE_KEY, CellKey
from neurosurgery.results.store import ResultStore
from neurosurgery.settings.demo import DEMO
from neurosurgery.settings.identity import Fact, Identity
from neurosurgery.settings.margins import Margins
from neurosurgery.verdicts.points import VerdictTable

NONE = pd.DataFrame()


def row(verdict: str, low: float, high: float, **other: object) -> dict:
    """A row of summary.csv."""
    return {
        "method": "mathneuro",
        "skill": "math",
        "against": "MMLU",
        "size": 0.01,
        "size_unit": "fraction of each matrix",
        "edit": "scale",
        "edit_value": 0.0,
        "metric": "acc,none",
        "unit": "share",
        "repeats": 3,
        "baseline": 0.5,
        "difference": (low + high) / 2,
        "ci_low": low,
        "ci_high": high,
        "q_value": 0.01,
        "holm_p": 0.01,
        "margin": 0.03,
        "verdict": verdict,
        "sd_documents": 0.3,
        "sd_repeats": 0.0,
        "documents_needed": 400.0 if verdict == UNDECIDED else math.nan,
        "repeats_needed": 3.0,
    } | other


def run_with(*rows: dict, layers: pd.DataFrame = NONE) -> Run:
    named = [{"task": f"task{index}"} | own for index, own in enumerate(rows)]
    return Run("run", pd.DataFrame(named), NONE, layers, NONE)


GONE = row("lower", -0.3, -0.1)
SAME = row("within the margin", -0.02, 0.02)
OPEN = row(UNDECIDED, -0.03, 0.04)


def only(judged: list[Judged]) -> Judged:
    [found] = judged
    return found


def compared(
    value: float, low: float, high: float, p_value: float, pair: tuple[str, str]
) -> pd.DataFrame:
    """comparison.csv of MathNeuro and Wanda."""
    shared = {"skill": "math", "against": None}
    own = {"reached": 0.75, "points": 6, "repeats": 3}
    rows = [
        {"method": "mathneuro", "other": None, "value": 0.02, "low": 0, "high": 0.1, **own},
        {"method": "wanda", "other": None, "value": 0.2, "low": 0.1, "high": 0.3, **own},
        {
            **{"method": pair[0], "other": pair[1], "value": value, "low": low, "high": high},
            "p_value": p_value,
        },
    ]
    return pd.DataFrame(
        [shared | one | {"quantity": quantity} for quantity in QUANTITIES for one in rows]
    )


# The page


def test_the_page_says_what_the_files_say(capsys):
    assert command.main(["check"]) == 0, capsys.readouterr().out


def test_a_changed_digit_is_noticed():
    page = PAGE.read_text(encoding="utf-8")
    assert "| .944 |" in page
    changed = page.replace("| .944 |", "| .945 |", 1)
    assert rendered(changed) != changed


# The rules


@pytest.mark.parametrize(
    ("math_row", "wanted"),
    [
        (GONE, HOLDS),
        # Lower, but perhaps within the margin; or one of many points.
        (row("lower", -0.1, -0.01), UNDECIDED),
        (row("lower", -0.3, -0.1, q_value=0.06), UNDECIDED),
        (row("lower, within the margin", -0.02, -0.01), DOES_NOT),
        (SAME, DOES_NOT),
        (row("higher", 0.01, 0.1), DOES_NOT),
        (OPEN, UNDECIDED),
        (row("broken", math.nan, math.nan, q_value=math.nan), UNDECIDED),
    ],
)
def test_deleting(math_row, wanted):
    assert only(pruning_deletes_math(run_with(math_row))).verdict == wanted


def test_what_deleting_rests_on():
    found = only(pruning_deletes_math(run_with(GONE)))
    expected = Judged(HOLDS, "task0 -.200 [-.300, -.100], lower, q = .010", "top .01")
    assert found == expected


@pytest.mark.parametrize(
    ("others", "wanted"),
    [
        ([SAME, SAME], HOLDS),
        ([SAME, row("higher, within the margin", 0.001, 0.02)], HOLDS),
        ([SAME, OPEN], UNDECIDED),
        # It has moved, but perhaps by less than the margin; or so has one of many.
        ([SAME, row("lower", -0.1, -0.01)], UNDECIDED),
        ([SAME, row("lower", -0.3, -0.1, holm_p=0.06)], UNDECIDED),
        ([OPEN, GONE], DOES_NOT),
        ([SAME, row("higher", 0.1, 0.3)], DOES_NOT),
        ([SAME, row("broken", math.nan, math.nan, sd_documents=math.nan)], DOES_NOT),
    ],
)
def test_sparing(others, wanted):
    # Math's own verdict does not count.
    assert only(spares_the_rest(run_with(GONE, *others))).verdict == wanted


def test_what_would_decide_is_said():
    """Near 0 what the table says; near the margin, or beyond it, which side of it."""
    near = run_with(GONE, OPEN)
    assert only(spares_the_rest(near)).evidence == (
        "task1 .005 [-.030, .040], undecided (400 documents would decide)"
    )
    # .09 / (.025 / 2.8016)² = 1,130.3, and 31 more for the t² pseudo-documents of an accuracy: the
    # whole interval beyond .03, in four runs of five.
    beyond = run_with(GONE, row("lower", -0.1, -0.01))
    assert only(spares_the_rest(beyond)).evidence == (
        "task1 -.055 [-.100, -.010], lower (1,162 documents would tell the side of the margin)"
    )
    at_the_edge = run_with(GONE, row("lower", -0.05, -0.01, difference=-0.03))
    assert only(spares_the_rest(at_the_edge)).evidence == "task1 -.030 [-.050, -.010], lower"


def test_every_size_and_set_is_asked():
    rows = [
        row("lower", -0.3, -0.1, size=size, against=against, task="sums")
        for size in (0.0001, 0.001, 0.01)
        for against in ("MMLU", "Race")
    ]
    found = pruning_deletes_math(run_with(*rows))
    places = ["top .001, MMLU", "top .001, Race", "top .01, MMLU", "top .01, Race"]
    assert [judged.at for judged in found] == places


@pytest.mark.parametrize(
    ("math_row", "wanted"),
    [
        (row("higher", 0.01, 0.1), HOLDS),
        (row("higher, within the margin", 0.01, 0.02), HOLDS),
        (row("higher", 0.01, 0.1, q_value=0.06), UNDECIDED),
        (GONE, DOES_NOT),
        (SAME, DOES_NOT),
        (OPEN, UNDECIDED),
    ],
)
def test_scaling(math_row, wanted):
    run = run_with(math_row | {"edit_value": 1.1})
    assert only(scaling_helps(1.1, run)).verdict == wanted
    assert only(scaling_helps(1.01, run)).verdict == NOT_RUN


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ((-0.2, -0.3, -0.1, 0.001), HOLDS),
        ((0.2, 0.1, 0.3, 0.001), DOES_NOT),
        ((-0.1, -0.3, 0.1, 0.3), UNDECIDED),
        ((-0.1, math.nan, math.nan, math.nan), UNDECIDED),
    ],
)
def test_methods_are_compared_by_their_difference(values, wanted):
    value, low, high, p_value = values
    as_made = compared(*values, ("mathneuro", "wanda"))
    turned = compared(-value, -high, -low, p_value, ("wanda", "mathneuro"))
    found = [
        only(better_than("wanda", Run("run", NONE, table, NONE, NONE)))
        for table in (as_made, turned)
    ]
    assert found[0] == found[1]
    assert found[0].verdict == wanted
    run = Run("run", NONE, as_made, NONE, NONE)
    assert only(better_than("lape", run)).verdict == NOT_RUN


def test_what_a_comparison_rests_on():
    table = compared(-0.2, -0.3, -0.1, 0.0004, ("mathneuro", "wanda"))
    run = Run("run", NONE, table, NONE, NONE)
    assert only(better_than("wanda", run)).evidence == (
        "loss at half, MathNeuro less wanda: -.200 [-.300, -.100], p < .001; half of math removed "
        "by 75% of the choices (6 points) and 75% of the choices (6 points)"
    )
    never = Run("run", NONE, table.assign(reached=0.0), NONE, NONE)
    told = only(better_than("wanda", never)).evidence
    assert told.endswith("0% of the choices (6 points), so that its loss counts as 1")
    own = " | .020 [.000, .100]" * 4
    assert TABLES["methods"]([run])[2] == f"| mathneuro | 6 | 3 | 75%{own} |"
    less = " | -.200 [-.300, -.100], p < .001" * 4
    assert TABLES["differences"]([run])[2:] == [f"| wanda{less} |  |"]


@pytest.mark.parametrize(
    ("counts", "wanted"), [([10, 10, 10], HOLDS), ([20, 8, 4], DOES_NOT), ([1, 1, 7], DOES_NOT)]
)
def test_layers(counts, wanted):
    masks = ["MMLU_calculate0.01_run0"] * 3
    layers = pd.DataFrame({"mask": masks, "layer": [0, 1, 2], "selected": counts})
    assert only(even_over_layers(run_with(GONE, layers=layers))).verdict == wanted
    assert only(even_over_layers(run_with(GONE))).verdict == NOT_RUN


# Answers

DOCUMENTS = 40
MATH, OTHERS = "sums", ["texts", "pair"]


def answers(task: str, name: str, values: list, value: float, guess: float | None) -> Evaluation:
    records = [
        {
            **{"task": task, "filter": "none", "doc_id": number, "doc_hash": f"d{number}"},
            **{"prompt_hash": "p", "broken": not math.isfinite(value), "metrics": {name: one}},
            "guessing": {} if guess is None else {name: guess},
        }
        for number, one in enumerate(values)
    ]
    results = {task: {"alias": task, f"{name},none": value, f"{name}_stderr,none": 0.1}}
    return Evaluation(results, records, {}, {task: {name: guess is not None}})


def accuracy(task: str, share: float, generator: np.random.Generator, guess: float) -> Evaluation:
    values = [float(one) for one in generator.random(DOCUMENTS) < share]
    return answers(task, "acc", values, sum(values) / DOCUMENTS, guess)


def cell(key: CellKey, seed: int, damage: float, nats: float = 1.0) -> CellResult:
    """Sums, the perplexity of texts, and a group of two tasks with other guesses."""
    generator = np.random.default_rng(seed)
    words = generator.integers(5, 9, DOCUMENTS)
    logs = [
        -float(w * (nats + one)) for w, one in zip(words, generator.random(DOCUMENTS), strict=True)
    ]
    value = math.exp(-sum(logs) / int(words.sum())) if nats < 800 else math.inf
    pairs = [list(pair) for pair in zip(logs, map(int, words), strict=True)]
    texts = answers("texts", "word_perplexity", pairs, value, None)
    members = [accuracy(f"pair_{end}", 0.9 - damage / 9, generator, 0.25) for end in "ab"]
    group = (
        sum(m.results[f"pair_{end}"]["acc,none"] for m, end in zip(members, "ab", strict=True)) / 2
    )
    groups = {"pair": ["pair_a", "pair_b"]}
    other = Evaluation(
        {"pair": {"acc,none": group}} | texts.results | members[0].results | members[1].results,
        [*texts.documents, *members[0].documents, *members[1].documents],
        groups,
        texts.higher_is_better | {task: {"acc": True} for task in ("pair", "pair_a", "pair_b")},
    )
    sums = accuracy(MATH, 0.9 - damage, generator, 0.0)
    directions = sums.higher_is_better | other.higher_is_better
    record = CellRecord(key, 10, 0.1, 0.5, None, 1.0, groups, None, directions)
    return CellResult(record, sums, other)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A results folder with its tables: two methods, three sizes, two repeats, one broken state."""
    store = ResultStore(tmp_path_factory.mktemp("real") / "small", "a-model")
    identity = Identity([Fact("skill_task", MATH), Fact("other_tasks", OTHERS)])
    store.write_config(
        identity, {"script": "MathNeuro.py", "settings": {"margin": ["0.2", "texts=0.1"]}}
    )
    store.write_cell(cell(BASELINE_KEY, 0, 0.0))
    for place, size in enumerate((0.001, 0.01, 0.1)):
        for repeat in range(2):
            for method in ("mathneuro", "random"):
                damage = 0.3 * place if method == "mathneuro" else 0.05 * place
                nats = 1 + damage / 20 if (method, size) != ("random", 0.1) else 800
                key = CellKey(SelectionKey(method, "math", "MMLU", size, repeat), scale_by(0.0))
                store.write_cell(cell(key, repeat + 1, damage, nats))
    table = VerdictTable(store, "a-model", MATH, OTHERS, Margins(0.2, {"texts": 0.1}))
    table.update()
    table.write_all()
    return store.root


def test_tables_are_made_anew_from_the_answers_alone(folder, tmp_path):
    """To the digit; the folder has other metrics and members of groups, too."""
    collected = collect(folder, tmp_path)
    kinds = ["answers.json.gz", "summary.csv", "comparison.csv", "isolation.csv"]
    assert [path.name for path in collected] == [f"small.{kind}" for kind in kinds]
    own = {path.name: path.read_text() for path in collected[1:]}
    summary = pd.read_csv(collected[1])
    assert set(summary["task"]) == {MATH, *OTHERS}
    assert {"broken", "lower"} <= set(summary["verdict"])
    assert len(pd.read_csv(collected[2])) > 8
    shutil.move(folder, folder.with_name("elsewhere"))
    try:
        for path in collected[1:]:
            path.unlink()
        judged = judge("small", tmp_path)
    finally:
        shutil.move(folder.with_name("elsewhere"), folder)
    assert {path.name: path.read_text() for path in judged} == own


def test_answers_hold_no_text_and_are_the_same_bytes_again(folder, tmp_path):
    first, *_ = collect(folder, tmp_path / "one")
    second, *_ = collect(folder, tmp_path / "two")
    assert first.read_bytes() == second.read_bytes()
    # No time of writing (RFC 1952, bytes 4 to 7).
    assert first.read_bytes()[4:8] == bytes(4)
    found = read_answers(first)
    assert found["metrics"]["pair"] == {"name": "acc,none", "chance": 0.25, "direction": "higher"}
    assert found["metrics"]["texts"]["direction"] == "lower"
    assert found["margins"] == {"default": 0.2, "by_task": {"texts": 0.1}}
    assert list(map(len, found["documents"]["pair"].values())) == [DOCUMENTS, DOCUMENTS]
    assert len(found["cells"]) == 13
    keys = [CellKey.from_record(own["key"]) for own in found["cells"]]
    assert keys[0] == BASELINE_KEY
    assert len(set(keys)) == 13
    # All cells answered the same documents, so that none has a list of its own.
    assert "documents" not in {name for own in found["cells"] for name in own["answers"]["pair"]}


def test_other_documents_are_not_paired(folder, tmp_path):
    """A cell that has seen another prompt has no interval, before and after."""
    copy = tmp_path / "small"
    shutil.copytree(folder, copy)
    store = ResultStore(copy, "a-model")
    key = CellKey(SelectionKey("mathneuro", "math", "MMLU", 0.01, 0), scale_by(0.0))
    there = store.read_cell(key)
    there.answers[0]["prompt_hash"] = "other"
    math_part, other = (
        Evaluation(
            there.parts[part],
            [a for a in there.answers if (a["task"] in there.parts["math"]) == (part == "math")],
            {},
            {},
        )
        for part in ("math", "other")
    )
    store.write_cell(CellResult(there.record, math_part, other))
    table = VerdictTable(store, "a-model", MATH, OTHERS, Margins(0.2, {"texts": 0.1}))
    table.update()
    table.write_all()
    collected = collect(copy, tmp_path / "out")
    own = [path.read_text() for path in collected[1:]]
    assert [path.read_text() for path in judge("small", tmp_path / "out")] == own
    summary = pd.read_csv(collected[1])
    rows = summary[(summary["method"] == "mathneuro") & (summary["size"] == 0.01)]
    assert rows.set_index("task")["ci_low"].isna().to_dict() == {
        MATH: True,
        "texts": False,
        "pair": False,
    }


def test_answers_of_another_format_are_refused(tmp_path):
    path = tmp_path / "old.answers.json.gz"
    path.write_bytes(gzip.compress(b'{"format": "neurosurgery-answers/0"}'))
    with pytest.raises(ValueError, match="expected neurosurgery-answers/1, found"):
        read_answers(path)


def test_a_folder_without_answers_is_not_collected(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "small")
    shutil.rmtree(tmp_path / "small" / "cells")
    with pytest.raises(SystemExit) as stopped:
        command.main(["collect", str(tmp_path / "small")])
    assert stopped.value.code == 2
    assert "expected a baseline with answers per document" in capsys.readouterr().err


def test_a_run_without_answers_is_not_judged(capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["judge", "smollm2-135m-instruct"])
    assert stopped.value.code == 2
    assert "expected a run with smollm2-135m-instruct.answers.json.gz" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path", sorted(FOLDER.glob("*.answers.json.gz")), ids=lambda path: path.name
)
def test_tables_of_kept_runs_are_what_their_answers_give(path, tmp_path):
    """Nearly: another machine adds in another order, and two points may be equal."""
    shutil.copy(path, tmp_path)
    for made in judge(path.name.removesuffix(".answers.json.gz"), tmp_path):
        found, kept = read_table(made), read_table(FOLDER / made.name)
        pd.testing.assert_frame_equal(found, kept, rtol=0.01, atol=1e-3)


# Tables


def test_numbers():
    values = (0.5, -0.25, 1.0, 12.4, 1234.0, 2e9)
    expected = [".500", "-.250", "1.000", "12", "1,234", "2.0e+09"]
    assert [number(value) for value in values] == expected
    assert [p_text(value) for value in (0.0004, 0.0126)] == ["p < .001", "p = .013"]


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
