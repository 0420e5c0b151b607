"""Whole commands with a file of programs: split, default task, published lines, resume."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pandas as pd
import pytest
from conftest import ROOT
from scripts import SCRIPTS, table

import MathNeuro
from neurosurgery.data import prepared
from neurosurgery.settings.demo import DEMO

PROGRAMS = str(ROOT / "data" / "demo" / "sgsm.csv")
SMALL = "--proportion .01 .05 --num_repeats 1 --num_samples 12 --eval_limit 6".split()


def flags(save_path, *more: str) -> list[str]:
    """On the demo; later flags win."""
    tasks = ["--eval_datasets", "demo_mmlu", "--save_path", str(save_path)]
    return ["--train_dataset", PROGRAMS, *tasks, *SMALL, "--pre_train_eval", *more]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    save_path = tmp_path_factory.mktemp("programs")
    assert MathNeuro.main(flags(save_path)) == 0
    return save_path


def test_the_math_task_is_programs(finished):
    rows = table(finished)
    of_math = rows[rows["task"] == "demo_sgsm"]
    names = "exact_match ran syntax_error time_limit memory_limit forbidden no_answer unsupported"
    assert of_math["metric"].unique().tolist() == [
        f"{n},program" for n in f"{names} failed".split()
    ]
    outcomes = of_math[of_math["metric"] != "exact_match,program"]
    assert outcomes.groupby(["method", "against", "size"], dropna=False)[
        "value"
    ].sum().tolist() == pytest.approx([1] * 5)


def test_the_split_is_listed(finished):
    listing = pd.read_csv(finished / "split.csv")
    assert listing["part"].value_counts().to_dict() == {"sample": 300, "test": 100}
    problems = pd.read_csv(PROGRAMS)
    record = json.loads((finished / "cells" / "model" / "pre_results.json").read_text())
    first = record["answers"][0]
    row = listing[listing["part"] == "test"].iloc[0]["row"]
    assert first["target"] == problems.iloc[row - 1]["solution"]


def test_what_became_of_the_programs_is_told(finished):
    text = (finished / "eval_results" / "model" / "results.txt").read_text()
    page = (finished / "report" / "report.html").read_text()
    rows = table(finished)
    baseline = rows[(rows["method"] == "baseline") & (rows["task"] == "demo_sgsm")]
    shares = [f"{value:.3f}" for value in baseline["value"]]
    _, _, block = text.partition("\nPrograms: ")
    head, before, *_ = block.splitlines()[1:]
    assert (
        head.split()
        == (
            "Task Model Right Ran Syntax error Time limit Memory limit Forbidden No answer "
            "Unsupported Failed"
        ).split()
    )
    assert before.split() == ["demo_sgsm", "baseline", *shares]
    assert "What became of the programs" in page
    assert "MathNeuro (Race), proportion 0.01, pruned" in page


LINE = re.compile(
    r"Average eval accuracy on 6 questions for pruning top (0\.01|0\.05)% good parameters based on "
    r"not being activated by (Race|MMLU) based on 12 training samples and greedy decoding "
    r"\(few-shot\): [01]\.\d+"
)


def test_the_text_file_has_the_published_lines(finished):
    lines = (finished / "eval_results" / "model" / "results.txt").read_text().splitlines()
    before, *after = [line for line in lines if line.startswith("Average eval accuracy")]
    assert re.fullmatch(
        r"Average eval accuracy on 6 questions before training with greedy decoding \(few-shot\): "
        r"[01]\.\d+",
        before,
    )
    found = [LINE.fullmatch(line) for line in after]
    assert {match.groups() for match in found} == {
        (size, name) for size in ("0.01", "0.05") for name in ("Race", "MMLU")
    }


def test_other_methods_share_the_folder(finished):
    for name in ("ablations", "lape"):
        script = SCRIPTS[name]
        more = [script.size_flag, *script.sizes[:1]]
        size_free = [flag for flag in flags(finished) if flag not in {"--proportion", ".01", ".05"}]
        assert script.main([*size_free, *more]) == 0
    lines = (finished / "eval_results" / "model" / "results.txt").read_text()
    assert "for pruning top 0.01% Wanda parameters based on 12 training samples" in lines
    assert "for pruning top 0.1% LAPE parameters based on 12 training samples" in lines
    assert "top 0.01% Random parameters based on not being activated by Race based on" in lines


def test_another_task_can_be_named(tmp_path, capsys):
    more = ["--train_lm_eval_task", "demo_gsm8k_cot", "--proportion", ".01"]
    assert MathNeuro.main(flags(tmp_path, *more)) == 0
    assert set(table(tmp_path)["task"]) == {"demo_gsm8k_cot", "demo_mmlu"}
    assert "Average eval" not in (tmp_path / "eval_results" / "model" / "results.txt").read_text()
    assert (tmp_path / "split.csv").is_file()
    assert "300 programs as samples, 100 kept for tests" in capsys.readouterr().out


def test_with_a_model_of_ones_own_the_task_is_sgsm(tiny_model, tmp_path):
    calibration = ["--calibration_datasets", *DEMO.calibration_datasets]
    command = [*flags(tmp_path), "--model", str(tiny_model), *calibration, "--num_fewshot", "1"]
    assert MathNeuro.main(command) == 0
    assert set(table(tmp_path)["task"]) == {"sgsm", "demo_mmlu"}


def test_another_split_is_another_folder(finished, capsys):
    assert MathNeuro.main(flags(finished, "--random_state", "7")) == 2
    assert "--random_state 7: the results in" in capsys.readouterr().err


def test_a_plan_needs_no_model(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "neurosurgery.models.load.load_model", lambda *_: pytest.fail("a model was loaded")
    )
    assert MathNeuro.main(flags(tmp_path / "new", "--dry_run")) == 0
    assert "demo_sgsm" in capsys.readouterr().out
    assert not (tmp_path / "new").exists()


def test_sgsm_that_cannot_be_had_is_one_line(tmp_path, capsys, monkeypatch):
    from neurosurgery.common.errors import UsageError

    def load(_name, source, config):
        raise UsageError(source.path, config or "", "neither the hub nor the local cache has it")

    monkeypatch.setattr(prepared, "_load_rows", load)
    file = tmp_path / "data" / "sgsm.csv"
    assert MathNeuro.main(flags(tmp_path / "r", "--train_dataset", str(file))) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert "sgsm.csv: is not there: bryanchrist/SGSM: neither the hub nor" in error[0]
    assert not (tmp_path / "r").exists()


BAD: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "no numbers": (lambda t: t.assign(answer="many"), "has 0 problems with a numeric answer"),
    "few": (lambda t: t.head(11), "has 11 problems with a numeric answer; expected at least 12"),
    "an empty program": (lambda t: t.assign(solution=""), "is empty in column solution"),
    "no programs": (
        lambda t: t.drop(columns="solution"),
        "has the columns question, answer, subset",
    ),
    "no rows": (lambda t: t.head(0), "has a header but no rows"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_one_line(name, tmp_path, capsys):
    change, message = BAD[name]
    file = tmp_path / "mine.csv"
    change(pd.read_csv(PROGRAMS)).to_csv(file, index=False)
    assert MathNeuro.main(flags(tmp_path / "r", "--train_dataset", str(file))) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert not (tmp_path / "r").exists()


def test_killed_and_resumed(finished, tmp_path):
    """SIGKILL while cells are evaluated; the same command goes on to the same table."""
    command = [sys.executable, "-W", "error", str(ROOT / "MathNeuro.py"), *flags(tmp_path)]
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "cells").rglob("*.json")):
        assert started.poll() is None
        time.sleep(0.02)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    assert len(list((tmp_path / "cells").rglob("*.json"))) < 5
    assert MathNeuro.main(flags(tmp_path)) == 0
    # Another method in the folder changes the false discovery rate, and nothing else.
    shared = table(finished).drop(columns="seconds")
    expected = shared[shared["method"].isin(["baseline", "mathneuro"])]
    found = table(tmp_path).drop(columns="seconds")
    assert found.to_csv(index=False) == expected.to_csv(index=False)
