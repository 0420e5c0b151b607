"""The examples in docstrings of public functions run, and give what they say."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from report_folder import FakeFolder
from session import demo_model, demo_tokenizer, passages, problems, sums

import neurosurgery as ns

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS

WITHOUT = {
    *("UsageError", "RunError", "DEMO", "Verdicts", "Evaluation", "Delta", "TopK"),
    *("ModelConfig", "CalibrationSource", "CalibrationSet", "PromptPair", "PromptPairs"),
}
"""Classes that stand in the examples of the functions that take or give them."""


def examples() -> list[doctest.DocTest]:
    parser = doctest.DocTestParser()
    found = []
    for name in sorted(set(ns.__all__) - WITHOUT):
        text = inspect.getdoc(getattr(ns, name)) or ""
        found.append(parser.get_doctest(text, {}, name, None, None))
    return found


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> dict[str, object]:
    """What the examples take as given."""
    model, tokenizer = demo_model(), demo_tokenizer()
    tokens, tally = ns.tokenize_pairs([ns.PromptPair(**row) for row in sums()], tokenizer)
    folder = tmp_path_factory.mktemp("examples")
    small = {"model.layers.0.mlp.gate_proj.weight": (4, 5)}
    paths = [folder / "a.safetensors", folder / "b.safetensors"]
    for path, places in zip(paths, ([0, 1, 2, 3, 4], [3, 4, 5, 6]), strict=True):
        indices = dict.fromkeys(small, torch.tensor(places))
        ns.ParameterMask.from_indices(indices, small).save(path)
    results = folder / "results"
    FakeFolder().write(results)
    tasks = ["demo_gsm8k_cot", "demo_mmlu"]
    return {
        "ns": ns,
        "np": np,
        "torch": torch,
        "Path": Path,
        "model": model,
        "tokenizer": tokenizer,
        "problems": problems(50),
        "passages": passages(50),
        "targets": ns.find_targets(model),
        "mask": ns.locate(
            model, tokenizer, skill=problems(50), against=passages(50), proportion=0.05
        ),
        "before": ns.evaluate(model, tokenizer, tasks=tasks, limit=40),
        "tokens": tokens,
        "tally": tally,
        "pairs": ns.PromptPairs.of(tokens),
        "folder": folder,
        "paths": paths,
        "results": results,
    }


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_an_example_gives_what_it_says(example, session, monkeypatch):
    assert example.examples, f"{example.name} has no example"
    monkeypatch.chdir(session["folder"])
    example.globs.update(session)
    lines: list[str] = []
    failed, _ = doctest.DocTestRunner(optionflags=FLAGS).run(example, out=lines.append)
    assert not failed, "".join(lines)
