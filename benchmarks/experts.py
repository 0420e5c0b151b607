"""Finding masks in a mixture of experts: what it costs beside the passes, and how much memory.

    python -m benchmarks.experts
    python -m benchmarks.experts --quick --json experts.json

`hooked_over_bare`: the scoring pass, which takes experts one by one and sums what each reads, over
the same batches through the base model, whose experts run as transformers chooses; a Qwen 3 MoE
with wide layers (goal: at most 1.25). The pass inside of `eager` stands beside it.

`find_over_bound`: peak memory above the weights of finding a grid's masks (scoring passes over two
sets, their rankings for eight proportions) in a random Qwen 3 MoE of about 300M parameters. The
bound is what a pass without us takes, and 1.5 × the largest expert's matrix in float32. Beside it
the peak of the whole grid, in bytes: it holds the bits of three masks (selected skill and other,
and their difference) and the original values of what is edited, at most 15 % of the weights
(Linux, CPU). `--quick` takes a quarter of the parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen3MoeConfig
from transformers.utils import logging

from benchmarks.common import PROPORTIONS, finish, interleaved, paired_ratio, parse, table
from benchmarks.identify import bare, random_samples, scoring
from benchmarks.llamas import parameter_count
from benchmarks.memory import peak_bytes
from neurosurgery.edit.scale import scaled
from neurosurgery.methods.ranking import TopK
from neurosurgery.models.devices import keep_freed_memory
from neurosurgery.models.targets import find_targets


def random_moe(
    hidden: int, inner: int, experts: int, layers: int, vocabulary: int = 8000
) -> PreTrainedModel:
    """A Qwen 3 MoE of random weights; a token goes to an eighth of the experts, two at least."""
    config = Qwen3MoeConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        moe_intermediate_size=inner,
        num_experts=experts,
        num_experts_per_tok=max(2, experts // 8),
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=max(1, hidden // 128),
        head_dim=64,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def compare(rounds: int) -> list[dict[str, object]]:
    """The pass that sees the experts, and the model's own passes; prints a row for each."""
    rows: list[dict[str, object]] = []
    model = random_moe(512, 1024, 16, 2)
    samples = random_samples(model, 16, 256)
    for implementation in ("grouped_mm", "eager"):
        model.set_experts_implementation(implementation)
        functions: dict[str, Callable[[], object]] = {
            "bare": partial(bare, model, samples),
            "hooked": partial(scoring, model, samples),
        }
        times = interleaved(functions, rounds)
        rows.append(
            {
                "experts run as": implementation,
                "bare_s": median(times["bare"]),
                "hooked_s": median(times["hooked"]),
                "ratio": paired_ratio(times["hooked"], times["bare"]),
            }
        )
    print(table(list(rows[0]), [list(row.values()) for row in rows]))
    return rows


def find(model: PreTrainedModel, samples: list[list[int]]) -> list[TopK]:
    """A scoring pass over two sets, and the ranking of each for all proportions."""
    half = len(samples) // 2
    return [
        TopK(find_targets(model), scoring(model, part, repeats=1)[0], PROPORTIONS)
        for part in (samples[:half], samples[half:])
    ]


def whole_grid(model: PreTrainedModel, samples: list[list[int]]) -> None:
    """Find; then every proportion's masks, their difference, the edit and its restore."""
    rankings = find(model, samples)
    for proportion in PROPORTIONS:
        skill, other = (ranking.mask(proportion) for ranking in rankings)
        with scaled(model, skill - other, 0.0):
            pass


def measure_peak(quick: bool) -> dict[str, float | None]:
    """Peak memory above the weights, in bytes; comes first, in fresh memory."""
    small = random_moe(128, 64, 4, 1)
    whole_grid(small, random_samples(small, 4, 64))  # libraries warm up
    model = random_moe(512, 256, 32, 6) if quick else random_moe(1024, 512, 32, 6)
    samples = random_samples(model, 16, 256)
    targets = find_targets(model)
    matrix = 4.0 * max(target.weight.numel() for target in targets if target.expert is not None)
    batch = peak_bytes(partial(bare, model, samples))
    peaks = {
        "batch": batch,
        "find": peak_bytes(partial(find, model, samples)),
        "whole grid": peak_bytes(partial(whole_grid, model, samples)),
    }
    found = {
        "parameters": float(parameter_count(model)),
        "weights": float(sum(parameter.nbytes for parameter in model.parameters())),
        "largest expert's matrix": matrix,
        **peaks,
        "find / bound": batch and peaks["find"] and peaks["find"] / (batch + 1.5 * matrix),
    }
    print(table(list(found), [[f"{value:,.3g}" if value else "" for value in found.values()]]))
    return found


def main(argv: list[str] | None = None) -> None:
    """Measure, print, write."""
    arguments = parse("Time and memory of finding masks in a mixture of experts.", argv)
    logging.disable_progress_bar()
    memory = measure_peak(arguments.quick)
    keep_freed_memory(torch.device("cpu"))
    rows = compare(3 if arguments.quick else 7)
    ratios = {
        "hooked_over_bare": float(str(rows[0]["ratio"])),
        "hooked_over_bare_eager": float(str(rows[1]["ratio"])),
        "find_over_bound": memory["find / bound"],
    }
    finish(arguments, ratios, {"hooked": rows, "memory": memory})


if __name__ == "__main__":
    main()
