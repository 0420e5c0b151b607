"""Time and memory of evaluating a real model, beside lm-eval's own Hugging Face backend.

    python -m benchmarks.real MODEL
    python -m benchmarks.real MODEL --tasks gsm8k_cot --documents 8 --dtype bfloat16

Both backends hold the same loaded model and answer the same documents of the same tasks, one after
the other in every round; a first round is not counted. Memory is how far the process rises above
the loaded model, in a first call of each. MODEL is what the scripts take: a folder or a GGUF file.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch
from lm_eval.models.huggingface import HFLM

from benchmarks.common import interleaved, paired_ratio, table
from benchmarks.evaluate import task_shape
from benchmarks.memory import peak_bytes
from neurosurgery.cli.parse import run_script
from neurosurgery.common.errors import UsageError
from neurosurgery.evaluation.engine.language_model import LanguageModel
from neurosurgery.evaluation.isolation import chatter_to
from neurosurgery.evaluation.tasks import task_manager
from neurosurgery.models.devices import keep_freed_memory
from neurosurgery.models.load import load_model, load_tokenizer
from neurosurgery.settings.checks import check_at_least
from neurosurgery.settings.experiment import EvaluationConfig, ModelConfig

TASKS = ("small_sums", "small_capitals", "small_opposites", "small_past_tense")
MEBIBYTE = 1 << 20


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="a folder, a GGUF file or a hub id")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), help="(default: the small ones)")
    parser.add_argument("--documents", type=int, default=40, help="of each task (default: 40)")
    parser.add_argument("--include_path", type=Path, help="folder with more tasks")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="(default: float32)",
    )
    parser.add_argument("--batch_size", type=int, default=16, help="of both (default: 16)")
    parser.add_argument("--rounds", type=int, default=2, help="that count (default: 2)")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads (default: 1)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print a row per task; the exit status is 0, or 2 for bad input."""
    return run_script(measure, argv)


def measure(argv: Sequence[str] | None) -> None:
    """Check the flags, measure, print.

    Raises:
        UsageError: a number, the model, a folder or a task cannot be used.
    """
    flags = parsed(argv)
    names = ("documents", "batch_size", "rounds", "threads")
    check_at_least(1, {f"--{name}": getattr(flags, name) for name in names})
    if flags.include_path is not None and not flags.include_path.is_dir():
        raise UsageError("--include_path", flags.include_path, "expected a folder of task files")
    torch.set_num_threads(flags.threads)
    keep_freed_memory(torch.device("cpu"))
    config = ModelConfig(flags.model, dtype=flags.dtype, device="cpu")
    config.check()
    managers = {}
    for task in flags.tasks:
        settings = EvaluationConfig(
            task, (), None, None, None, False, flags.include_path, flags.batch_size
        )
        try:
            managers[task] = task_manager(settings)
        except UsageError as error:
            raise UsageError("--tasks", task, str(error).partition(": ")[2]) from None
    tokenizer = load_tokenizer(config)
    model = load_model(config, tokenizer).model
    rows = []
    with Path(os.devnull).open("w") as nowhere, chatter_to(nowhere):
        stock = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=flags.batch_size)
        ours = LanguageModel(model, tokenizer, flags.batch_size)
        for task in flags.tasks:
            settings = EvaluationConfig(
                task, (), None, None, None, False, flags.include_path, flags.batch_size
            )
            answers = task_shape(
                task, task, [task], flags.documents, task_manager(settings)
            ).answers
            calls = {"stock": partial(answers, stock), "ours": partial(answers, ours)}
            peaks = {name: peak_bytes(call) or 0 for name, call in calls.items()}
            found = list(zip(*(call() for call in calls.values()), strict=True))
            seconds = interleaved(calls, flags.rounds, warm_up=False)
            rows.append(
                (
                    task,
                    median(seconds["stock"]),
                    median(seconds["ours"]),
                    paired_ratio(seconds["stock"], seconds["ours"]),
                    peaks["stock"] // MEBIBYTE,
                    peaks["ours"] // MEBIBYTE,
                    f"{sum(a[0] == b[0] for a, b in found)} of {len(found)}",
                )
            )
    head = ("task", "HFLM s", "ours s", "ratio", "HFLM MiB", "ours MiB", "documents that agree")
    print(table(head, rows))


if __name__ == "__main__":
    sys.exit(main())
