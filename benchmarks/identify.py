"""Finding the masks of a model: what it costs beside the forward passes that it cannot do without.

    python -m benchmarks.identify
    python -m benchmarks.identify --quick --json identify.json

`hooked_over_bare`: the scoring pass over the same batches through the base model without hooks, the
worst of the models and number formats in the table: the demo and a Llama of 84M random parameters,
on a GPU also the shape of Llama-3.2-1B. `--quick` leaves out bfloat16, which is slow on a CPU
without instructions for it; `hooked_over_bare_float32` leaves it out always. `peak_over_weights`:
peak memory of scoring and of selecting eight masks, the loaded Llama included, over the bytes of
its weights (Linux, CPU). `batched_over_single`: the pass in length-sorted batches, how much faster
than one sample at a time. The other tables show growth with parameters, samples, repeats and
proportions; an exponent of 1 is proportional, 0 is constant.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from benchmarks.common import PROPORTIONS, exponent, finish, interleaved, paired_ratio, parse, table
from benchmarks.llamas import (
    LLAMA_1B,
    LLAMA_13M,
    LLAMA_36M,
    LLAMA_84M,
    demo_model,
    parameter_count,
    random_ids,
    random_llama,
    token_count,
)
from benchmarks.memory import peak_bytes
from neurosurgery.activations.batches import default_batch_tokens, length_sorted_batches
from neurosurgery.activations.collect import collect_activation_norms
from neurosurgery.methods.ranking import TopK
from neurosurgery.models.devices import keep_freed_memory
from neurosurgery.models.forward import base_forward
from neurosurgery.models.targets import find_targets

SAMPLES = (50, 100, 200, 500)
REPEATS = (1, 2, 4, 8, 16)
GRIDS = (1, 2, 4, 8)


def random_samples(model: PreTrainedModel, count: int, longest: int) -> list[list[int]]:
    """Token ids, a quarter of `longest` to `longest` of them."""
    return random_ids(model.config.vocab_size, count, longest // 4, longest)


def bare(model: PreTrainedModel, samples: list[list[int]]) -> None:
    """The batches of the scoring pass, with nobody watching."""
    budget = default_batch_tokens(model.device)
    with torch.inference_mode():
        for batch in length_sorted_batches([len(ids) for ids in samples], budget):
            base_forward(model, [samples[index] for index in batch])


def scoring(
    model: PreTrainedModel,
    samples: list[list[int]],
    repeats: int = 5,
    batch_tokens: int | None = None,
) -> list[dict[str, torch.Tensor]]:
    """One scoring pass for all repeats."""
    draws = np.random.default_rng(1).integers(1, 3, size=(repeats, len(samples)))
    return collect_activation_norms(model, find_targets(model), samples, draws, batch_tokens)


def select(model: PreTrainedModel, norms: Mapping[str, torch.Tensor], proportions: int) -> None:
    """The masks of a set at some of the proportions, the largest among them."""
    grid = PROPORTIONS[-proportions:]
    ranking = TopK(find_targets(model), norms, grid)
    for proportion in grid:
        ranking.mask(proportion)


def measure_peak(samples: int) -> float | None:
    """Peak memory of identification over the weights' bytes; comes first, in fresh memory."""
    small = demo_model()
    select(small, scoring(small, random_samples(small, 4, 64))[0], 8)  # libraries warm up
    weights = 0

    def identify() -> None:
        nonlocal weights
        model = random_llama(LLAMA_84M)
        weights = sum(parameter.nbytes for parameter in model.parameters())
        select(model, scoring(model, random_samples(model, samples, 256))[0], 8)

    peak = peak_bytes(identify)
    return peak and peak / weights


def compare_hooked(
    models: Mapping[str, tuple[PreTrainedModel, list[list[int]]]], rounds: int
) -> list[dict[str, object]]:
    """The pass with hooks and without; prints a row for each model."""
    header = ["model", "dtype", "tokens", "bare_s", "hooked_s", "ratio"]
    rows: list[list[object]] = []
    for name, (model, samples) in models.items():
        functions: dict[str, Callable[[], object]] = {
            "bare": partial(bare, model, samples),
            "hooked": partial(scoring, model, samples),
        }
        times = interleaved(functions, rounds)
        medians = [median(times["bare"]), median(times["hooked"])]
        dtype = str(model.dtype).removeprefix("torch.")
        ratio = paired_ratio(times["hooked"], times["bare"])
        rows.append([name, dtype, token_count(samples), *medians, ratio])
    print(table(header, rows))
    return [dict(zip(header, row, strict=True)) for row in rows]


def _worst(rows: list[dict[str, object]]) -> float:
    return max(float(str(row["ratio"])) for row in rows)


def compare_batched(
    model: PreTrainedModel, samples: list[list[int]], rounds: int
) -> dict[str, object]:
    """Length-sorted batches against one sample at a time; prints a row."""
    functions: dict[str, Callable[[], object]] = {
        "batched": partial(scoring, model, samples),
        "single": partial(scoring, model, samples, batch_tokens=1),
    }
    times = interleaved(functions, rounds)
    found: dict[str, object] = {name: median(values) for name, values in times.items()}
    found["ratio"] = paired_ratio(times["single"], times["batched"])
    found = {"samples": len(samples), "tokens": token_count(samples)} | found
    print(f"\nbatches against one sample at a time\n{table(list(found), [list(found.values())])}")
    return found


def growth_with_parameters(rounds: int) -> dict[str, object]:
    """The pass over the same number of tokens through three sizes of Llama.

    Counted are the parameters that a token is multiplied with: neither the embedding nor the head.
    """
    functions: dict[int, Callable[[], object]] = {}
    for size in (LLAMA_13M, LLAMA_36M, LLAMA_84M):
        model = random_llama(size)
        run = parameter_count(model) - 2 * size.hidden * size.vocabulary
        functions[run] = partial(scoring, model, random_samples(model, 4, 256))
    return growth("parameters that run", functions, rounds)


def growth(
    label: str, functions: Mapping[int, Callable[[], object]], rounds: int
) -> dict[str, object]:
    """Median seconds by size and the exponent; prints them."""
    times = interleaved({str(size): function for size, function in functions.items()}, rounds)
    seconds = [median(values) for values in times.values()]
    power = exponent(list(functions), seconds)
    print(f"\ngrowth with {label}: exponent {power:.2f}")
    print(table([label, *times], [["seconds", *seconds]]))
    return {"sizes": list(functions), "seconds": seconds, "exponent": power}


def compared_models(
    arguments: argparse.Namespace,
) -> dict[str, tuple[PreTrainedModel, list[list[int]]]]:
    """What is scored with hooks and without: models with samples for them."""
    on_cpu = arguments.device == "cpu"
    demo = demo_model(device=arguments.device)
    if arguments.smallest:
        return {"demo": (demo, random_samples(demo, 3, 40))}
    llama = random_llama(LLAMA_84M, device=arguments.device)
    models = {
        "demo": (demo, random_samples(demo, 60, 160)),
        "Llama, 84M": (llama, random_samples(llama, 5 if on_cpu else 200, 256)),
    }
    if not arguments.quick:
        short = demo_model(torch.bfloat16, arguments.device)
        models["demo in bfloat16"] = (short, random_samples(short, 60, 160))
        short = random_llama(LLAMA_84M, torch.bfloat16, arguments.device)
        models["Llama in bfloat16"] = (short, random_samples(short, 5 if on_cpu else 200, 256))
    if not on_cpu:
        large = random_llama(LLAMA_1B, torch.bfloat16, arguments.device)
        models["Llama, 1B"] = (large, random_samples(large, 200, 256))
    return models


def growth_tables(demo: PreTrainedModel, rounds: int, on_cpu: bool) -> dict[str, dict[str, object]]:
    """All but the comparison with bare passes, by the names in the details; prints them."""
    many = random_samples(demo, max(SAMPLES), 40)
    norms = scoring(demo, many[:20])[0]
    tables = {"batched": compare_batched(demo, random_samples(demo, 60, 160), rounds)}
    if on_cpu:
        tables["parameters"] = growth_with_parameters(rounds)
    samples = {n: partial(scoring, demo, many[:n]) for n in SAMPLES}
    repeats = {n: partial(scoring, demo, many[:50], n) for n in REPEATS}
    proportions = {n: partial(select, demo, norms, n) for n in GRIDS}
    return tables | {
        "samples": growth("samples", samples, rounds),
        "repeats": growth("repeats", repeats, rounds),
        "proportions": growth("proportions", proportions, rounds),
    }


def main(argv: list[str] | None = None) -> None:
    """Measure, print, write."""
    arguments = parse("Time and memory of finding masks.", argv, with_device=True)
    logging.disable_progress_bar()
    on_cpu = arguments.device == "cpu"
    peak = measure_peak(10) if on_cpu and not arguments.smallest else None
    keep_freed_memory(torch.device(arguments.device))
    models = compared_models(arguments)
    rounds = 1 if arguments.smallest else 3 if arguments.quick and on_cpu else 7
    hooked = compare_hooked(models, rounds)
    details: dict[str, object] = {"hooked": hooked}
    ratios: dict[str, float | None] = {
        "hooked_over_bare": _worst(hooked),
        "hooked_over_bare_float32": _worst([row for row in hooked if row["dtype"] == "float32"]),
        "peak_over_weights": peak,
    }
    if not arguments.smallest:
        tables = growth_tables(models["demo"][0], 1 if arguments.quick else 3, on_cpu)
        details |= tables
        ratios["batched_over_single"] = float(str(tables["batched"]["ratio"]))
    finish(arguments, ratios, details)


if __name__ == "__main__":
    main()
