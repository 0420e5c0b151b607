"""Where the time goes: matrix products, attention, other tensor operations, Python.

    python -m benchmarks.limits
    python -m benchmarks.limits --quick --json limits.json

Every part runs alone for its time, and once more under torch's profiler for the time inside tensor
operations. What the clock shows beyond them is `Python`: the interpreter, the libraries' modules,
the calling of operations. `hooks` is the share of a scoring pass that goes beyond the same passes
without hooks. Times are a CPU's; `ratios` is empty.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoTokenizer

from benchmarks import evaluate, identify
from benchmarks.common import finish, interleaved, parse, table
from benchmarks.llamas import LLAMA_84M, demo_model, random_llama
from neurosurgery.evaluation.engine.language_model import LanguageModel
from neurosurgery.evaluation.isolation import chatter_to
from neurosurgery.models.devices import keep_freed_memory
from neurosurgery.settings.demo import DEMO

MATRIX_PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}
KINDS = ("matrix products", "attention", "other operations")

Part = tuple[str, Callable[[], object], Callable[[], object] | None]
"""A name, what runs, and the same without hooks where it has any."""


def kind_of(operation: str) -> str | None:
    """The kind of an operation of torch's; None for other events."""
    if operation in MATRIX_PRODUCTS:
        return "matrix products"
    if "attention" in operation:
        return "attention"
    return "other operations" if operation.startswith("aten::") else None


def seconds_by_kind(function: Callable[[], object]) -> dict[str, float]:
    """Inside tensor operations, without those that they call themselves."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        function()
    seconds = dict.fromkeys(KINDS, 0.0)
    for event in profiler.key_averages():
        kind = kind_of(event.key)
        if kind is not None:
            seconds[kind] += event.self_cpu_time_total / 1e6
    return seconds


def parts(quick: bool) -> Iterator[Part]:
    """The scoring pass of two models, and every shape of evaluation."""
    for name, model in (("demo", demo_model()), ("Llama, 84M", random_llama(LLAMA_84M))):
        samples = identify.random_samples(model, 40 if name == "demo" else 5, 160)
        yield (
            f"scoring, {name}",
            partial(identify.scoring, model, samples),
            partial(identify.bare, model, samples),
        )
    tokenizer = AutoTokenizer.from_pretrained(DEMO.model)
    own = demo_model()
    llama = evaluate.random_llama()
    for shape in evaluate.shapes(quick):
        model = own if shape.of_demo else llama
        lm = LanguageModel(model, tokenizer, evaluate.BATCH_SIZE["cpu"])
        yield f"evaluation, {shape.description}", partial(shape.answers, lm), None


def shares(part: Part, rounds: int) -> dict[str, object]:
    """A row of the table."""
    name, function, bare = part
    times = interleaved({"all": function} | ({"bare": bare} if bare else {}), rounds)
    seconds = median(times["all"])
    row: dict[str, object] = {"part": name, "seconds": seconds}
    inside = seconds_by_kind(function)
    row |= {kind: value / seconds for kind, value in inside.items()}
    row["Python"] = max(1 - sum(inside.values()) / seconds, 0.0)
    row["hooks"] = 1 - median(times["bare"]) / seconds if bare else ""
    return row


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    arguments = parse("Where the time of scoring and of evaluation goes.", argv)
    keep_freed_memory(torch.device("cpu"))
    with Path(os.devnull).open("w") as nowhere, chatter_to(nowhere):
        rows = [shares(part, 1 if arguments.quick else 3) for part in parts(arguments.quick)]
    print("shares of the time")
    print(table(list(rows[0]), [list(row.values()) for row in rows]))
    finish(arguments, {}, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
