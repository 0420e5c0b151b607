"""A whole grid of masks, found and applied: our code beside the published loop.

    python -m benchmarks.grid
    python -m benchmarks.grid --quick --json grid.json

The grid has the published eight proportions and five repeats, one skill set against one other set,
50 samples per set and repeat (and the published 500 without `--quick`): 40 masks. Samples are drawn
from files as long as the real ones, GSM8K's 7,473 training rows and 1,066 rows of an excerpt of
MMLU, so that repeats share as many of them as they really do. They are random token ids, 100 to 250
each. Compared are

- ours: the functions that the scripts call, on a model that is loaded once;
- the published loop (`published.py`): every cell loads the model, runs both sets' samples one by
  one, selects with torch.topk and multiplies.

Both are timed in parts, in turns, and added up; the output says what was run and what was
multiplied. The published loop is by construction 40 equal cells of a load, so many samples and a
selection. Our scoring pass is proportional to its tokens. Tokenising is left out of both; the
published loop would do it 40 times. Freed memory is kept for the next use, as by the scripts, which
favours the published loop: page faults would take it up to twice as long. Evaluation is left out
too (`evaluate.py`), except in

`cell_overhead`: what a cell of the real demo grid takes outside of the harness, as a share of it
(`overhead.py`).

On a GPU the shape of Llama-3.2-1B in bfloat16 takes the place of the random Llama, and `--quick`
leaves out the demo and its cell's overhead, which a processor limits: a minute or two there.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from statistics import median

import torch
from transformers import AutoTokenizer
from transformers.utils import logging

from benchmarks.common import PROPORTIONS, finish, interleaved, parse, table
from benchmarks.comparison import CELLS, REPEATS, ROWS, Case, Ours, Published, Samples
from benchmarks.llamas import (
    LLAMA_1B,
    LLAMA_1M,
    LLAMA_84M,
    demo_model,
    llama_name,
    parameter_count,
    random_llama,
)
from benchmarks.memory import peak_bytes
from benchmarks.overhead import Overhead, measure_overhead
from neurosurgery.models.devices import keep_freed_memory
from neurosurgery.settings.demo import DEMO


@dataclass(frozen=True)
class Line:
    """A case's seconds for the whole grid, part by part, and what they were multiplied from."""

    name: str
    num_samples: int
    our_seconds: dict[str, float]
    published_seconds: dict[str, float]
    speedup: float
    measured: str


def measure(case: Case, rounds: int) -> Line:
    """Time the parts in turns and add them up."""
    samples = Samples(case)
    ours, published = Ours(case, samples), Published(case, samples)
    parts: dict[str, Callable[[], object]] = {
        "ours: load": ours.load,
        "published: load": published.load,
        "ours: scoring": ours.score,
        "published: samples": published.score,
        "ours: ranking": ours.rank,
        "published: selection": published.select,
        "ours: masks, edit, restore": ours.edit,
    }
    # Making the two has run everything once.
    times = interleaved(parts, rounds, warm_up=False)
    seconds = {name: median(values) for name, values in times.items()}
    cells, edited = len(case.measured_proportions), len(case.edited_proportions)
    mine = {
        "load": seconds["ours: load"],
        "scoring": seconds["ours: scoring"] / ours.share_of_tokens,
        "ranking": seconds["ours: ranking"] * REPEATS,
        "masks, edit, restore": seconds["ours: masks, edit, restore"] / edited * CELLS,
    }
    theirs = {
        "load": seconds["published: load"] * CELLS,
        "samples": seconds["published: samples"] / published.share_of_samples * CELLS,
        "selection": seconds["published: selection"] / cells * CELLS,
    }
    unique = sum(len(samples.unique(name)) for name in ROWS)
    return Line(
        case.name,
        case.num_samples,
        mine,
        theirs,
        sum(theirs.values()) / sum(mine.values()),
        f"ours ran {ours.share_of_tokens:.1%} of the {ours.tokens:,} tokens of {unique:,} unique "
        f"samples, one ranking of {REPEATS}, {edited} cells' edits; published: one load, "
        f"{published.share_of_samples:.1%} of a cell's samples, {cells} cells' selections",
    )


def peaks(case: Case, small: Case) -> dict[str, float | None]:
    """Peak memory of finding and applying one mask over the bytes of the weights, model included.

    Comes before all else, in fresh memory; what is needed once (libraries) the small case needs.
    """
    found: dict[str, float | None] = {}
    for each in (small, case):
        short = replace(each, measured_samples=2, measured_batches=1, measured_proportions=(0.15,))
        samples = Samples(short)
        weights = each.parameters * getattr(torch, each.dtype).itemsize
        runs: dict[str, Callable[[], object]] = {
            # Made, it has loaded, scored, ranked, and edited at the largest proportion.
            "ours": partial(Ours, short, samples),
            "published": partial(_published_once, short, samples),
        }
        for name, run in runs.items():
            peak = peak_bytes(run, each.device)
            found[name] = peak and peak / weights
    return found


def _published_once(case: Case, samples: Samples) -> None:
    Published(case, samples).select()


def print_lines(lines: Sequence[Line]) -> None:
    """Two tables of seconds, and what was measured of them."""
    print(f"seconds for {CELLS} masks ({len(PROPORTIONS)} proportions, {REPEATS} repeats)")
    for side, seconds in (("ours", "our_seconds"), ("published", "published_seconds")):
        columns = list(getattr(lines[0], seconds))
        rows = [
            (line.name, line.num_samples, *found.values(), sum(found.values()), line.speedup)
            for line in lines
            for found in [getattr(line, seconds)]
        ]
        print(f"\n{table((side, 'samples', *columns, 'all', 'speedup'), rows)}")
    print("\nmeasured, and multiplied to the whole grid:")
    for line in lines:
        print(f"  {line.name}, {line.num_samples} samples: {line.measured}")


def print_overhead(overhead: Overhead) -> None:
    """What a cell of the demo takes, line by line."""
    print(f"\na cell of the demo grid ({overhead.cells} model states), seconds")
    rows = [(name, seconds, seconds / overhead.cell) for name, seconds in overhead.parts.items()]
    print(table(("part", "seconds", "share"), [*rows, ("all", overhead.cell, 1.0)]))


def prepare(folder: Path, arguments: argparse.Namespace) -> list[Case]:
    """Write the models, and say how much of each grid is run."""
    device, quick, smallest = arguments.device, arguments.quick, arguments.smallest
    size = LLAMA_1M if smallest else LLAMA_84M if device == "cpu" else LLAMA_1B
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    extremes = (0.01, 0.15) if device == "cuda" else (0.01,)
    tokenizer = AutoTokenizer.from_pretrained(DEMO.model)
    llama = random_llama(size, dtype, device)
    models = [(llama_name(llama), llama, (50,) if quick else (50, 500))]
    if not (smallest or (quick and device == "cuda")):
        models.insert(0, ("demo", demo_model(), (50,)))
    cases = []
    for name, model, counts in models:
        place = folder / name
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
        cases += [
            Case(
                name,
                place,
                model.config.vocab_size,
                parameter_count(model),
                num_samples,
                measured_samples=2 if quick else 5,
                measured_batches=1 if quick else 2,
                # On a GPU the largest as well: a model of a billion weights shows what it costs.
                measured_proportions=extremes if quick else PROPORTIONS[::2],
                edited_proportions=extremes if quick and device == "cuda" else PROPORTIONS,
                dtype=str(model.dtype).removeprefix("torch."),
                device=device,
            )
            for num_samples in counts
        ]
    return cases


def _suffix(line: Line) -> str:
    if line.name == "demo":
        return "_demo"
    return "_500" if line.num_samples == 500 else ""


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    description = "Time of a whole grid of masks beside the published loop."
    arguments = parse(description, argv, with_device=True)
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        cases = prepare(Path(folder), arguments)
        memory = {} if arguments.quick else peaks(cases[1], cases[0])
        keep_freed_memory(torch.device(arguments.device))
        overhead = measure_overhead(arguments.quick) if cases[0].name == "demo" else None
        rounds = 1 if arguments.smallest else 2 if arguments.quick else 3
        lines = [measure(case, rounds) for case in cases]
    print_lines(lines)
    if overhead:
        print_overhead(overhead)
    for name, peak in memory.items():
        print(f"peak memory over weights, {cases[1].name}, {name}: {peak and round(peak, 2)}")
    speedups = {f"grid_speedup_over_published{_suffix(line)}": line.speedup for line in lines}
    finish(
        arguments,
        speedups | ({"cell_overhead": overhead.share} if overhead else {}),
        {
            "lines": [asdict(line) for line in lines],
            "peak_over_weights": memory,
            "overhead": overhead and asdict(overhead),
        },
    )


if __name__ == "__main__":
    main()
