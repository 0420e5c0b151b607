"""MATH: the harness's `minerva_math` tasks run, with problems of our own in the hub's format."""

from __future__ import annotations

import json
from pathlib import Path

import lm_eval
import pandas as pd
import pytest
from lm_eval.tasks.minerva_math.utils import process_docs, process_results

import MathNeuro
from neurosurgery.settings.demo import DEMO

pytestmark = pytest.mark.whole

ROWS = [
    {"problem": f"What is ${n}+{n}$?", "solution": f"It is $\\boxed{{{2 * n}}}$."}
    for n in range(2, 8)
]


def test_a_right_answer_counts_however_it_is_written():
    class Documents(list):
        def map(self, change):
            return [change(row) for row in self]

    [document] = process_docs(
        Documents([{"problem": "?", "solution": "It is $\\boxed{\\frac12}$."}])
    )
    end = "I hope it is correct."
    for answer, exact, verified in (("\\frac{1}{2}", 1, 1), ("0.5", 1, 1), ("2", 0, 0)):
        text = f"Final Answer: The final answer is ${answer}$. {end}"
        assert process_results(document, [text]) == {"exact_match": exact, "math_verify": verified}


def test_the_task_runs_in_a_whole_command(tmp_path):
    data = tmp_path / "problems.jsonl"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    original = Path(lm_eval.__file__).parent / "tasks/minerva_math/minerva_math_algebra.yaml"
    task = f"""\
include: {original}
task: own_math
dataset_path: json
dataset_name: null
dataset_kwargs: {{data_files: {{train: {data}, test: {data}}}}}
"""
    (tmp_path / "own_math.yaml").write_text(task)
    flags = "--proportion .05 --num_repeats 1 --num_samples 5 --eval_limit 2 --pre_train_eval"
    tasks = ["--train_lm_eval_task", "own_math", "--eval_datasets", DEMO.eval_datasets[0]]
    where = ["--include_path", str(tmp_path), "--save_path", str(tmp_path / "r")]
    assert MathNeuro.main([*flags.split(), *tasks, *where]) == 0
    rows = pd.read_csv(tmp_path / "r" / "results.csv").query("task == 'own_math'")
    assert set(rows["metric"]) == {"exact_match,none", "math_verify,none"}
    assert set(rows["n"]) == {2}
