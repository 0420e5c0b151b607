"""The number of documents that "unmoved" takes is enough, and not too many."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scripts import COMMON, DEMO_DATA, DEMO_TASKS

import MathNeuro
from neurosurgery.verdicts.intervals import UNMOVED, compare, scaled_margin, verdict
from neurosurgery.verdicts.metrics import Metric, metric_from_documents
from neurosurgery.verdicts.power import POWER, changed_at_random, documents_needed, power_lines


def answers(right: np.ndarray) -> Metric:
    names = [str(index) for index in range(len(right))]
    return metric_from_documents("acc", right.astype(float), float(right.mean()), names)


def share_unmoved(documents: int, changed: float, margin: float, simulations: int = 400) -> float:
    generator = np.random.default_rng(5)
    found = 0
    for _ in range(simulations):
        # A document changes with the given chance, and then as often to right as to wrong.
        before = generator.random(documents) < 0.5
        after = before ^ (generator.random(documents) < changed)
        baseline = answers(before)
        interval = compare([answers(after)], baseline).interval
        found += verdict(interval, scaled_margin(margin, baseline)) == UNMOVED
    return found / simulations


@pytest.mark.parametrize(("margin", "changed"), [(0.05, 0.05), (0.05, 0.2), (0.1, 0.5)])
def test_four_runs_of_five_find_unmoved(margin, changed):
    documents = documents_needed(margin, changed)
    assert share_unmoved(documents, changed, margin) == pytest.approx(POWER, abs=0.05)
    assert share_unmoved(documents // 2, changed, margin) < 0.5


@pytest.mark.parametrize("margin", [0.01, 0.03, 0.1])
def test_without_changes_it_is_the_fewest_documents(margin):
    documents = documents_needed(margin)
    assert share_unmoved(documents, 0.0, margin, 1) == 1
    assert share_unmoved(documents - 1, 0.0, margin, 1) == 0


def test_independent_answers():
    generator = np.random.default_rng(1)
    one, other = generator.random((2, 200_000)) < 0.8
    assert changed_at_random(0.8) == pytest.approx((one != other).mean(), abs=0.005)


def test_a_margin_of_nothing_is_said():
    assert "cannot be said" in power_lines(["a"], 0.0, None, None)[0]


def test_the_plan_says_how_many_documents(tiny_model, tmp_path, capsys):
    where = ["--model", str(tiny_model), "--save_path", str(tmp_path / "r"), *DEMO_DATA]
    flags = [*where, *DEMO_TASKS, "--proportion", ".05", *COMMON, "--pre_train_eval"]
    assert MathNeuro.main([*flags, "--dry_run", "--margin", ".05"]) == 0
    before = capsys.readouterr().out
    assert f"(within ± 0.05) takes {documents_needed(0.05)} if no answer changes" in before
    assert "with 6 as planned, no accuracy of a single task can be unmoved" in before
    assert f"{documents_needed(0.05, 0.5):,} (if it is an accuracy, of .5)" in before
    assert MathNeuro.main(flags) == 0
    results = pd.read_csv(tmp_path / "r" / "results.csv").query("method == 'baseline'")
    accuracy = results.query("task == 'demo_race' and metric == 'acc,none'")["value"].item()
    capsys.readouterr()
    assert MathNeuro.main([*flags, "--dry_run", "--margin", ".05"]) == 0
    after = capsys.readouterr().out
    needed = documents_needed(0.05, changed_at_random(accuracy))
    assert f"demo_race {needed:,} (baseline {accuracy:.3f})" in after
    assert "demo_stories has no accuracy" in after
