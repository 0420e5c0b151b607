"""Finding the masks of a model: what it costs beside the forward passes that it cannot do without.

    python benchmarks/identify.py
    python benchmarks/identify.py --quick --json identify.json

`hooked_over_bare`: the scoring pass over the same batches through the base model without hooks, the
worse of two models in float32, the demo and a Llama of 60M random parameters. `peak_over_weights`:
peak memory of scoring and of selecting eight masks, the loaded Llama included, over the bytes of
its weights (Linux). The tables show growth with samples, repeats and proportions; an exponent of 1
is proportional, 0 is constant.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

# The folder of this script holds a select.py, which must not stand in for the standard library's.
ROOT = Path(__file__).resolve().parent.parent
sys.path[:] = [str(ROOT), *(place for place in sys.path if Path(place) != ROOT / "benchmarks")]

from collections.abc import Callable, Mapping
from functools import partial
from statistics import median

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from benchmarks.common import PROPORTIONS, exponent, finish, interleaved, paired_ratio, parse, table
from neurosurgery.masks import TopK
from neurosurgery.models import base_forward, find_targets
from neurosurgery.scoring import (
    BATCH_TOKENS_ON_CPU,
    collect_activation_norms,
    length_sorted_batches,
)

STATUS = Path("/proc/self/status")
SAMPLES = (50, 100, 200, 500)
REPEATS = (1, 2, 4, 8, 16)
GRIDS = (1, 2, 4, 8)


def demo_model() -> PreTrainedModel:
    """The embedded one: 3.8M parameters, 28 scored matrices."""
    path = ROOT / "demo" / "model"
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


def random_llama() -> PreTrainedModel:
    """A Llama of the smallest size that people work with, untied: 60M parameters."""
    config = LlamaConfig(
        hidden_size=512,
        num_hidden_layers=8,
        intermediate_size=1536,
        vocab_size=32000,
        num_attention_heads=8,
        num_key_value_heads=8,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def random_samples(model: PreTrainedModel, count: int, longest: int) -> list[list[int]]:
    """Token ids, a quarter of `longest` to `longest` of them."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(longest // 4, longest, size=count, endpoint=True)
    return [generator.integers(1, model.config.vocab_size, size=n).tolist() for n in lengths]


def bare(model: PreTrainedModel, samples: list[list[int]]) -> None:
    """The batches of the scoring pass, with nobody watching."""
    with torch.inference_mode():
        for batch in length_sorted_batches([len(ids) for ids in samples], BATCH_TOKENS_ON_CPU):
            base_forward(model, [samples[index] for index in batch])


def scoring(
    model: PreTrainedModel, samples: list[list[int]], repeats: int = 5
) -> list[dict[str, torch.Tensor]]:
    """One scoring pass for all repeats."""
    draws = np.random.default_rng(1).integers(1, 3, size=(repeats, len(samples)))
    return collect_activation_norms(model, find_targets(model), samples, draws)


def select(model: PreTrainedModel, norms: Mapping[str, torch.Tensor], proportions: int) -> None:
    """The masks of a set at some of the proportions, the largest among them."""
    grid = PROPORTIONS[-proportions:]
    ranking = TopK(find_targets(model), norms, grid)
    for proportion in grid:
        ranking.mask(proportion)


def resident(field: str) -> int:
    """`VmRSS` or `VmHWM` of this process in bytes."""
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measure_peak(samples: int) -> float | None:
    """Peak memory of identification over the weights' bytes; comes first, in fresh memory."""
    if not STATUS.is_file():
        return None
    small = demo_model()
    select(small, scoring(small, random_samples(small, 4, 64))[0], 8)  # libraries warm up
    before = resident("VmRSS")
    model = random_llama()
    # Only the peak from here on counts, not that of building the model.
    Path("/proc/self/clear_refs").write_text("5")
    select(model, scoring(model, random_samples(model, samples, 256))[0], 8)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    return (resident("VmHWM") - before) / weights


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, so that timings are of work and not of page faults.

    By default it hands large blocks back after every layer: a tenth of a pass, which falls on bare
    and hooked passes by chance and can make the hooked one look the faster.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        trim_threshold, mmap_threshold = -1, -3  # from malloc.h
        library.mallopt(mmap_threshold, 1 << 25)
        library.mallopt(trim_threshold, (1 << 31) - 1)


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


def main(argv: list[str] | None = None) -> None:
    """Measure, print, write."""
    arguments = parse("Time and memory of finding masks.", argv)
    rounds, growth_rounds = (4, 1) if arguments.quick else (15, 5)
    peak = measure_peak(10)
    keep_freed_memory()
    demo = demo_model()
    models = {
        "demo": (demo, random_samples(demo, 60, 160)),
        "llama-60M": (llama := random_llama(), random_samples(llama, 6, 256)),
    }
    rows = []
    worst = 0.0
    for name, (model, samples) in models.items():
        times = interleaved(
            {
                "bare": partial(bare, model, samples),
                "hooked": partial(scoring, model, samples),
            },
            rounds,
        )
        medians = [median(times["bare"]), median(times["hooked"])]
        ratio = paired_ratio(times["hooked"], times["bare"])
        worst = max(worst, ratio)
        rows.append([name, sum(map(len, samples)), *medians, ratio])
    header = ["model", "tokens", "bare_s", "hooked_s", "ratio"]
    print(table(header, rows))

    many = random_samples(demo, max(SAMPLES), 40)
    norms = scoring(demo, many[:20])[0]
    details = {
        "hooked": [dict(zip(header, row, strict=True)) for row in rows],
        "samples": growth(
            "samples", {n: partial(scoring, demo, many[:n]) for n in SAMPLES}, growth_rounds
        ),
        "repeats": growth(
            "repeats", {n: partial(scoring, demo, many[:50], n) for n in REPEATS}, growth_rounds
        ),
        "proportions": growth(
            "proportions", {n: partial(select, demo, norms, n) for n in GRIDS}, growth_rounds
        ),
    }
    ratios = {
        "hooked_over_bare": worst,
        "peak_over_weights": peak,
    }
    finish(arguments, ratios, details)


if __name__ == "__main__":
    main()
