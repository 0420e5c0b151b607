"""Every public function with five wrong inputs: one line that says what was expected.

`locate`, `evaluate` and `compare` have tables of their own.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from session import demo_model, demo_tokenizer, sums
from torch import nn

import neurosurgery as ns
from neurosurgery.settings.demo import DEMO

MODEL, TOKENIZER = demo_model(), demo_tokenizer()
HEADS = ns.find_heads(MODEL)
MASK = ns.zero_mask(MODEL, HEADS[:1])
TARGETS = ns.find_targets(MODEL)
IDS = [[1, 2, 3], [4, 5, 6]]
NORMS = {target.name: torch.ones(target.in_features) for target in TARGETS}
PAIRS = [ns.PromptPair(**row) for row in sums()]
TOKENS, TALLY = ns.tokenize_pairs(PAIRS, TOKENIZER)
PROMPTS = ns.PromptPairs.of(TOKENS)
DELTA = ns.Delta(MASK, {name: torch.zeros(count) for name, count in MASK.counts().items()})
OVERLAPS = ns.overlap_by_parameter(MASK, MASK)
METRIC = ns.metric_from_documents("acc", [1, 0, 1], 2 / 3, ["a", "b", "c"])
CONFIG = ns.ModelConfig(DEMO.model)
OTHER = ns.ParameterMask.full({"weight": (2, 2)})

NO_MODEL = ["gpt2", None, 3, TOKENIZER, [MODEL]]
NO_MASK = ["mask.safetensors", None, 3, {"weight": torch.ones(2)}, [MASK]]

CASES: dict[str, tuple[dict, list[tuple[str, object]]]] = {
    "find_targets": ({}, [("model", value) for value in NO_MODEL]),
    "find_heads": ({}, [("model", value) for value in NO_MODEL]),
    "context_length": (
        {"model": MODEL, "tokenizer": TOKENIZER},
        [("model", "gpt2"), ("model", None), ("tokenizer", None), ("tokenizer", "gpt2"),
         ("tokenizer", MODEL)],
    ),
    "next_tokens": (
        {"model": MODEL, "prompts": IDS, "batch_tokens": 64},
        [("prompts", "text"), ("prompts", ["text"]), ("prompts", [3]), ("batch_tokens", "64"),
         ("model", None)],
    ),
    "load_model": (
        {"config": CONFIG, "tokenizer": TOKENIZER},
        [("config", DEMO.model), ("config", None), ("tokenizer", DEMO.model), ("tokenizer", None),
         ("dtype", 16)],
    ),
    "load_tokenizer": (
        {},
        [("config", DEMO.model), ("config", None), ("config", 3), ("config", [CONFIG]),
         ("config", MODEL)],
    ),
    "ModelConfig": (
        {"name": DEMO.model},
        [("name", None), ("name", MODEL), ("device", 0), ("dtype", torch.float32),
         ("trust_remote_code", "yes")],
    ),
    "CalibrationSource": (
        {"name": "math", "path": Path(DEMO.train_dataset)},
        [("name", None), ("name", 3), ("path", "data.csv"), ("path", None), ("path", ["a"])],
    ),
    "CalibrationSet": (
        {"name": "a", "samples": ("text",), "sha256": ""},
        [("name", None), ("samples", "text"), ("samples", [3]), ("samples", None), ("sha256", 3)],
    ),
    "read_calibration_set": (
        {},
        [("source", DEMO.train_dataset), ("source", None), ("source", 3),
         ("source", ns.CalibrationSource("math", Path("nowhere.csv"))),
         ("source", ns.CalibrationSource("math", Path("demo")))],
    ),
    "encode_samples": (
        {"samples": ["text"], "tokenizer": TOKENIZER, "context": 64},
        [("samples", "text"), ("samples", [3]), ("samples", None), ("tokenizer", "gpt2"),
         ("context", None)],
    ),
    "collect_activation_norms": (
        {"model": MODEL, "targets": TARGETS, "samples": IDS,
         "multiplicities": np.ones((1, 2), dtype=np.int64)},
        [("samples", ["text"]), ("samples", "text"), ("targets", ["model.layers.0"]),
         ("multiplicities", [[1, 1]]), ("multiplicities", np.ones((1, 3), dtype=np.int64)),
         ("multiplicities", np.ones(2, dtype=np.int64))],
    ),
    "TopK": (
        {"targets": TARGETS, "norms": NORMS, "proportions": [0.1]},
        [("targets", MODEL), ("norms", {}), ("norms", [1.0]), ("proportions", 0.1),
         ("proportions", [5]), ("proportions", ["5 %"])],
    ),
    "random_twin": (
        {"mask": MASK, "generator": 0},
        [*[("mask", value) for value in NO_MASK[:3]], ("generator", "seed"), ("generator", -1)],
    ),
    "scaled": (
        {"model": MODEL, "mask": MASK, "scalar": 0},
        [("model", "gpt2"), ("mask", "mask.safetensors"), ("scalar", "0"), ("scalar", None),
         ("mask", OTHER), ("scalar", float("nan"))],
    ),
    "added_delta": (
        {"model": MODEL, "delta": DELTA},
        [("model", None), ("delta", MASK), ("delta", None), ("delta", {"a": torch.ones(1)}),
         ("delta", ns.Delta(OTHER, {"weight": torch.zeros(4)}))],
    ),
    "trainable": (
        {"model": MODEL, "mask": MASK},
        [("model", None), ("mask", None), ("mask", "all"), ("mask", OTHER), ("mask", [MASK])],
    ),
    "Delta": (
        {"mask": MASK, "values": DELTA.values},
        [("mask", None), ("mask", "a"), ("values", None), ("values", {}), ("values", [1.0])],
    ),
    "export_model": (
        {"model": MODEL, "tokenizer": TOKENIZER, "mask": MASK, "scalar": 0.0,
         "output": Path("there"), "provenance": {}},
        [("model", "gpt2"), ("tokenizer", None), ("mask", None), ("scalar", "0"),
         ("output", "there"), ("mask", OTHER)],
    ),
    "ablated": (
        {"model": MODEL, "units": HEADS[:1]},
        [("model", None), ("units", ["head 1"]), ("units", 3), ("positions", "first"),
         ("vectors", {HEADS[0]: torch.zeros(3)}), ("vectors", {HEADS[1]: torch.zeros(64)})],
    ),
    "head_means": (
        {"model": MODEL, "token_lists": IDS, "units": HEADS[:1]},
        [("model", None), ("token_lists", ["text"]), ("token_lists", []), ("units", [3]),
         ("batch_tokens", "all")],
    ),
    "head_effects": (
        {"model": MODEL, "pairs": PROMPTS},
        [("model", None), ("pairs", PAIRS), ("metric", "loss"), ("units", ["neurons"]),
         ("units", "heads"), ("row_budget", 0.5)],
    ),
    "PromptPair": (
        {"prompt": "1+1=", "counterfactual": "1@1=", "answer": "2"},
        [("prompt", None), ("prompt", 3), ("counterfactual", ["1@1="]), ("answer", 2),
         ("wrong_answer", 3)],
    ),
    "PromptPairs": (
        {"references": IDS, "counterfactuals": IDS, "answers": [1, 2]},
        [("references", ["1+1="]), ("references", None), ("counterfactuals", "1@1="),
         ("answers", ["2", "3"]), ("answers", 2)],
    ),
    "zero_mask": (
        {"model": MODEL, "units": HEADS[:1]},
        [("model", "gpt2"), ("model", None), ("units", ["head"]), ("units", None),
         ("units", HEADS[0])],
    ),
    "tokenize_pairs": (
        {"pairs": PAIRS, "tokenizer": TOKENIZER},
        [("pairs", ["1+1="]), ("pairs", "1+1="), ("pairs", None), ("tokenizer", "gpt2"),
         ("tally", 3)],
    ),
    "keep_right": (
        {"pairs": TOKENS, "predicted_ids": [1] * len(TOKENS), "tally": TALLY},
        [("pairs", PAIRS), ("predicted_ids", ["72"]), ("predicted_ids", [1]), ("tally", None),
         ("pairs", None)],
    ),
    "arithmetic_pairs": (
        {"tokenizer": TOKENIZER},
        [("tokenizer", "gpt2"), ("operators", ["%"]), ("operators", "+"), ("digits", 0),
         ("families", ["poem"]), ("shots", "two")],
    ),
    "ParameterMask": (
        {"packed": {}, "shapes": {}},
        [("packed", None), ("packed", {"a": [1]}), ("shapes", {"a": (2, 2)}), ("shapes", 3),
         ("packed", {"a": torch.ones(2)})],
    ),
    "load_mask": (
        {},
        [("path", "nowhere.safetensors"), ("path", "pyproject.toml"), ("path", "demo"),
         ("path", None), ("path", 3)],
    ),
    "overlap_by_parameter": (
        {"a": MASK, "b": MASK},
        [("a", None), ("b", "mask"), ("b", OTHER), ("a", [MASK]), ("b", {})],
    ),
    "total": (
        {},
        [("overlaps", MASK), ("overlaps", None), ("overlaps", [1]), ("overlaps", {"a": 1}),
         ("overlaps", "a")],
    ),
    "by_kind": (
        {},
        [("overlaps", MASK), ("overlaps", None), ("overlaps", [1]), ("overlaps", {"a": 1}),
         ("overlaps", "a")],
    ),
    "read_results": (
        {},
        [("folder", "nowhere"), ("folder", "demo"), ("folder", "pyproject.toml"), ("folder", None),
         ("folder", 3)],
    ),
    "figures": (
        {},
        [("folder", "nowhere"), ("folder", "demo"), ("folder", "pyproject.toml"), ("folder", None),
         ("folder", 3)],
    ),
    "plot_isolation": (
        {},
        [("points", "results"), ("points", None), ("points", []), ("points", 3),
         ("points", Path("results"))],
    ),
    "mcnemar": (
        {"edited": METRIC, "baseline": METRIC},
        [("edited", [1, 0]), ("edited", None), ("baseline", "a"), ("baseline", 0.5),
         ("edited", {})],
    ),
    "paired_interval": (
        {"edited": METRIC, "baseline": METRIC},
        [("edited", [1, 0]), ("edited", None), ("baseline", "a"), ("baseline", 0.5),
         ("edited", {})],
    ),
    "metric_from_documents": (
        {"name": "acc", "values": [1, 0], "reported": 0.5, "documents": ["a", "b"]},
        [("name", None), ("values", 3), ("reported", "half"), ("documents", "ab"),
         ("documents", [1, 2]), ("documents", ["a"])],
    ),
}  # fmt: skip

ELSEWHERE = {"locate", "evaluate", "compare"}
GIVEN_BACK = {"Verdicts", "Evaluation", "UsageError", "RunError", "DEMO"}
"""Not called by users."""

SEVERAL = [
    (name, valid, argument, value)
    for name, (valid, wrong) in CASES.items()
    for argument, value in wrong
]


EXPECTED = ("expected", "has no", "is no readable", "needs")
"""How a line says what is wrong about what was given."""


def called(function, arguments):
    """Call it, and begin what it gives for a `with`."""
    found = function(**arguments)
    if hasattr(found, "__enter__"):
        found.__enter__()


def test_every_public_function_is_tried_with_five():
    assert set(CASES) == set(ns.__all__) - ELSEWHERE - GIVEN_BACK
    assert min(len(wrong) for _, wrong in CASES.values()) >= 5


@pytest.mark.parametrize(
    ("name", "valid", "argument", "value"),
    SEVERAL,
    ids=[f"{name}-{argument}-{number}" for number, (name, _, argument, _) in enumerate(SEVERAL)],
)
def test_a_wrong_argument_is_one_line_with_what_was_expected(name, valid, argument, value):
    with pytest.raises((ns.UsageError, ns.RunError, ValueError, KeyError)) as error:
        called(getattr(ns, name), valid | {argument: value})
    [text] = error.value.args
    assert any(word in text for word in EXPECTED), text
    assert "\n" not in text
    assert "object at 0x" not in text
    assert len(text) < 300


def test_what_stands_in_a_wrong_list_is_told():
    with pytest.raises(
        ns.UsageError, match=r"find_targets: model 'gpt2': expected a language model of transf"
    ):
        ns.find_targets("gpt2")
    with pytest.raises(ns.UsageError, match="samples: expected a list of texts, found list of int"):
        ns.encode_samples([1, 2], TOKENIZER, 64)
    with pytest.raises(ns.UsageError, match="samples 'text': expected a list of texts, found one"):
        ns.encode_samples("text", TOKENIZER, 64)


def test_the_signature_is_the_functions_own():
    for name in set(CASES) | ELSEWHERE:
        parameters = inspect.signature(getattr(ns, name)).parameters
        assert not {"args", "kwargs"} & set(parameters), name


def test_numbers_of_numpy_are_numbers():
    assert len(ns.encode_samples(np.array(["a", "b"]), TOKENIZER, np.int64(4)).ids) == 2
    with ns.scaled(nn.Linear(2, 2), OTHER, np.float32(0.5)) as factor:
        assert factor.median == 0.5
