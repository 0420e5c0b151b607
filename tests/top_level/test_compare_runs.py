"""Stock lm_eval's logs of a model and of the same one pruned give the numbers of our tables."""

from __future__ import annotations

import os
import subprocess
import sys

import pandas as pd
import pytest
from conftest import ROOT

from neurosurgery.__main__ import main

LIMIT = "30"
TASKS = "demo_gsm8k_cot,demo_mmlu,demo_race,demo_stories"
NUMBERS = ["difference", "ci_low", "ci_high", "p_value", "value"]


def call(*words):
    found = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr


def lm_eval(model, output):
    """The harness's own command."""
    call("-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32",
         "--tasks", TASKS, "--include_path", "lm-evaluation-harness", "--device", "cpu",
         "--batch_size", 8, "--limit", LIMIT, "--log_samples", "--output_path", output)  # fmt: skip
    return output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of the demo with one repeat: the table of points is over that repeat."""
    path = tmp_path_factory.mktemp("own") / "results"
    flags = f"--proportion .05 --num_repeats 1 --num_samples 20 --eval_limit {LIMIT}"
    flags += " --documents_from first --pre_train_eval --save_model --save_path"
    call("MathNeuro.py", *flags.split(), path)
    return path


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """The unedited model's log, as stock lm_eval writes it."""
    return lm_eval("demo/model", tmp_path_factory.mktemp("stock"))


def table_of(runs, path):
    assert main(["compare", *map(str, runs), "--csv", str(path)]) == 0
    table = pd.read_csv(path)
    return table.assign(metric=table["metric"] + "," + table["filter"])


def both(table, own, against="Race"):
    """The judged rows, beside those of a table of ours."""
    own = own[own["against"] == against]
    found = table[table["verdict"].notna()].merge(own, on=["task", "metric"], suffixes=("", "_own"))
    assert len(found) == 4
    return found


def test_logs_of_stock_lm_eval_give_our_numbers(folder, stock, tmp_path):
    [pruned] = folder.glob("models/*/Race_*")
    runs = [stock, lm_eval(pruned, tmp_path / "b")]
    table = table_of(runs, tmp_path / "t.csv")
    found = both(table, pd.read_csv(folder / "results.csv"))
    # Our engine computes a text's likelihood in other batches: the same to six digits.
    exact = found["unit"] == "share"
    assert exact.sum() == 3
    for name in NUMBERS:
        left, right = found[name], found[f"{name}_own"]
        assert left[exact].tolist() == right[exact].tolist()
        assert left.tolist() == pytest.approx(right.tolist(), rel=1e-4, abs=1e-6)
    words = {"lower": "worse", "higher": "better"}
    summary = both(table, pd.read_csv(folder / "summary.csv"))
    # Of the demo's four tasks, less of a perplexity is better.
    expected = [
        word.replace("higher", "worse").replace("lower", "better")
        if unit.startswith("nats")
        else words.get(word, word)
        for word, unit in zip(summary["verdict_own"], summary["unit"], strict=True)
    ]
    assert summary["verdict"].tolist() == expected
    needed = summary[["documents_needed", "documents_needed_own"]].fillna(-1).to_numpy()
    assert needed[exact, 0].tolist() == needed[exact, 1].tolist()


def test_a_cell_against_the_baseline_is_its_row_to_the_last_digit(folder, tmp_path):
    [cell] = folder.glob("cells/*/Race_*.json")
    found = both(table_of([folder, cell], tmp_path / "t.csv"), pd.read_csv(folder / "results.csv"))
    for name in NUMBERS:
        assert found[name].tolist() == found[f"{name}_own"].tolist()


def test_a_log_and_a_baseline_of_ours_are_the_same_run(folder, stock, tmp_path):
    table = table_of([folder, stock], tmp_path / "t.csv")
    assert table["documents"].tolist() == [int(LIMIT)] * len(table)
    assert table["difference"].abs().max() < 1e-6
    assert not table["verdict"].isin(["worse", "better"]).any()
