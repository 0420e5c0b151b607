"""What guessing scores, worked out by hand, for every way in which a task can score."""

from __future__ import annotations

import math
from functools import partial

import pytest
from conftest import build_model
from lm_eval.tasks import TaskManager
from own_tasks import write_task

from neurosurgery.evaluation import tasks
from neurosurgery.evaluation.harness import Harness, _plain, harness_model
from neurosurgery.evaluation.tasks import task_manager
from neurosurgery.models.load import LoadedModel
from neurosurgery.results.cells import Cell, CellRecord
from neurosurgery.results.keys import CellKey
from neurosurgery.settings.experiment import EvaluationConfig
from neurosurgery.verdicts.guessing import chance, direction, without_guessing

TWO = {"question": "a or b?", "options": ["a", "b"], "gold": 1, "labels": [0, 1]}
FIVE = {"question": "which?", "options": list("abcde"), "gold": 0, "labels": [1, 1, 1, 1, 0]}
DOCUMENTS = [TWO, TWO, FIVE]
OF_CHOICE = (1 / 2 + 1 / 2 + 1 / 5) / 3

MC2 = """
import math

def mc2(document, results):
    masses = [math.exp(likelihood) for likelihood, _ in results]
    true = sum(m for m, label in zip(masses, document["labels"]) if label)
    return {"acc": true / sum(masses), "ratio": (-1.0, 2.0)}

def both(document):
    return [0, 1]

def error_rate(document, results):
    return {"error_rate": float(results[0] != "b"), "hits": float(results[0] == "b")}
"""


def metrics(*names: str, better: str = "true") -> str:
    entries = (f"{{metric: {n}, aggregation: mean, higher_is_better: {better}}}" for n in names)
    return f"[{', '.join(entries)}]"


CASES = {
    "choice": (
        {"metric_list": metrics("acc", "acc_norm")},
        {"acc": OF_CHOICE, "acc_norm": OF_CHOICE},
    ),
    "mutual information": (
        {"metric_list": metrics("acc", "acc_mutual_info")},
        {"acc": OF_CHOICE, "acc_mutual_info": OF_CHOICE},
    ),
    "two right options": (
        {"doc_to_target": "!function utils.both"},
        {"acc": (2 / 2 + 2 / 2 + 2 / 5) / 3},
    ),
    "the mass of true options": (
        {
            "process_results": "!function utils.mc2",
            "metric_list": "[{metric: acc, aggregation: mean, higher_is_better: true}, "
            "{metric: ratio, aggregation: weighted_perplexity, higher_is_better: true}]",
        },
        {"acc": (1 / 2 + 1 / 2 + 4 / 5) / 3, "ratio": math.nan},
    ),
    "brier score": (
        {
            "metric_list": "[{metric: brier_score, aggregation: brier_score, "
            "higher_is_better: false}]"
        },
        # The harness cannot average documents of different numbers of options here.
        {"brier_score": 4 / 5},
    ),
    "free text": (
        {
            "output_type": "generate_until",
            "doc_to_choice": None,
            "doc_to_target": '"{{options[gold]}}"',
            "generation_kwargs": "{until: [x], max_gen_toks: 2}",
            "metric_list": metrics("exact_match"),
        },
        {"exact_match": 0.0},
    ),
    "free text, one of the options": (
        {
            "output_type": "generate_until",
            "generation_kwargs": "{until: [x], max_gen_toks: 2}",
            "metric_list": metrics("exact_match"),
        },
        {"exact_match": OF_CHOICE},
    ),
    "an error rate": (
        {
            "output_type": "generate_until",
            "generation_kwargs": "{until: [x], max_gen_toks: 2}",
            "process_results": "!function utils.error_rate",
            "metric_list": "[{metric: error_rate, aggregation: mean, higher_is_better: false}, "
            "{metric: hits, aggregation: mean, higher_is_better: true}]",
        },
        {"error_rate": math.nan, "hits": 0.0},
    ),
    "likelihood": (
        {
            "output_type": "loglikelihood",
            "doc_to_choice": None,
            "doc_to_target": '"{{options[gold]}}"',
            "metric_list": "[{metric: acc, aggregation: mean, higher_is_better: true}, "
            "{metric: perplexity, aggregation: perplexity, higher_is_better: false}]",
        },
        {"acc": 0.0, "perplexity": math.nan},
    ),
}
LOWER = {"brier_score", "error_rate", "perplexity"}


@pytest.fixture
def measure(monkeypatch, tmp_path, tokenizer):
    """Evaluate a task of one's own with a tiny model, as a finished cell."""
    monkeypatch.setattr(tasks, "TaskManager", partial(TaskManager, include_defaults=False))

    def run(documents: list[dict], **fields: str) -> Cell:
        tasks = write_task(tmp_path / "tasks", documents, **fields)
        (tasks / "utils.py").write_text(MC2)
        config = EvaluationConfig("own", (), None, None, None, False, tasks, 4)
        harness = Harness(task_manager(config), "skill_task", ["own"], config)
        lm = harness_model(LoadedModel(build_model("llama"), tokenizer, "float32"), 4)
        found = harness.evaluate(lm)
        directions = found.higher_is_better
        record = CellRecord(CellKey(), 0, 0.0, None, None, 0.0, {}, None, directions)
        assert CellRecord.from_json(_plain(record.to_json())) == record
        return Cell(record, {"math": found.results, "other": {}}, found.documents)

    return run


@pytest.mark.parametrize("case", CASES)
def test_what_guessing_scores(case, measure):
    fields, expected = CASES[case]
    cell = measure([FIVE] * 2 if case == "brier score" else DOCUMENTS, **fields)
    for metric, value in expected.items():
        found = chance(cell, "own", f"{metric},none")
        assert found == pytest.approx(value, nan_ok=True), metric
        assert direction(cell, "own", f"{metric},none") == (
            "lower" if metric in LOWER else "higher"
        )
    unknown = [n for n, value in expected.items() if math.isnan(value) and n not in LOWER]
    assert without_guessing(cell) == [f"own {name},none" for name in unknown]


def member(task: str, guess: float, right: float, count: int) -> list[dict]:
    one = {"task": task, "metrics": {"acc": right}, "guessing": {"acc": guess}}
    return [one] * count


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # Two documents of 1/2 and six of 1/4: (2/2 + 6/4) / 8, or (1/2 + 1/4) / 2.
        (0.25, 2.5 / 8),
        (0.5, 3 / 8),
        (0.9, math.nan),
    ],
    ids=["over documents", "over members", "in another way"],
)
def test_a_groups_guessing_is_weighted_as_its_number_is(value, expected):
    documents = [
        *member("one", 1 / 2, 1.0, 2),
        *member("two", 1 / 4, 0.0, 6),
        {"task": "three", "metrics": {"perplexity": 7.0}, "guessing": {}},
    ]
    record = CellRecord(
        CellKey(), 0, 0.0, None, None, 0.0, {"group": ["one", "two", "three"]}, None,
        {"group": {"acc": True, "odd": None}},
    )  # fmt: skip
    parts = {"math": {"group": {"acc,none": value}}, "other": {}}
    cell = Cell(record, parts, [{"filter": "none"} | document for document in documents])
    assert chance(cell, "group", "acc,none") == pytest.approx(expected, nan_ok=True)
    assert direction(cell, "group", "odd,none") is None
    assert direction(cell, "group", "word_perplexity,none") == "lower"
    assert direction(cell, "group", "unheard_of,none") is None
