"""Decoding by us against transformers' own ways: is there less code that is as fast?

    python -m benchmarks.decoding --quick
    python -m benchmarks.decoding --device cuda

48 prompts of 60 to 120 words, 96 new tokens each, on the demo's model, in turns: `LanguageModel`
(`evaluation/engine/`), `generate` in padded batches of 16 with a dynamic and with a static cache,
and `generate_batch` (continuous batching with a paged cache), whose manager and pages are made
once, in the turn before the first (as many pages as prompts need, not most of the memory). Seconds
are medians of the turns after the first; a ratio above 1 says that we are faster. All decode with
the same edited modules (`evaluate.edited`); `equal` is the share of continuous batching's texts
that are ours.

On a GPU a Llama of random weights in the shape of Llama-3.2-1B, in bfloat16, comes beside the demo,
padded batches have 64 rows, and the static cache is left out, for which transformers compiles the
model, longer than all the rest takes. Without flash attention continuous batching runs on a GPU
without its graphs.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from functools import partial
from logging import ERROR, getLogger
from statistics import median
from typing import Any

import torch
from lm_eval.api.instance import Instance
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel
from transformers.generation import ContinuousBatchingConfig
from transformers.utils import logging

from benchmarks.common import finish, interleaved, paired_ratio, parse, table
from benchmarks.evaluate import BATCH_SIZE, edited, random_llama, text
from benchmarks.llamas import demo_model
from neurosurgery.evaluation.engine.language_model import LanguageModel
from neurosurgery.settings.demo import DEMO

PROMPTS, NEW = 48, 96


def padded(model: PreTrainedModel, rows: list[list[int]], new: int, cache: str) -> None:
    """Decode in batches, padded on the left."""
    size = BATCH_SIZE[model.device.type]
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        longest = max(map(len, batch))
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in batch])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in batch])
        with torch.inference_mode():
            model.generate(
                ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=new,
                do_sample=False,
                cache_implementation=cache,
            )


class Decoders:
    """The ways to decode the same prompts with one model, and what ours and the paged way found."""

    def __init__(self, model: PreTrainedModel, count: int, new: int) -> None:
        generator = random.Random(3)
        self._model, self._new = model, new
        self._tokenizer = AutoTokenizer.from_pretrained(DEMO.model)
        prompts = [text(generator, generator.randint(60, 120)) for _ in range(count)]
        self._rows = [self._tokenizer(prompt)["input_ids"] for prompt in prompts]
        until = {"until": ["\n\n\n"], "max_gen_toks": new, "do_sample": False}
        self._requests = [
            Instance("generate_until", {}, (prompt, until), place)
            for place, prompt in enumerate(prompts)
        ]
        self._lm = LanguageModel(model, self._tokenizer, BATCH_SIZE[model.device.type])
        self._config = GenerationConfig(
            max_new_tokens=new, do_sample=False, pad_token_id=0, eos_token_id=-1
        )
        # A block holds 256 tokens of a prompt.
        self._paging = ContinuousBatchingConfig(num_blocks=4 * count)
        self._ours: list[str] = []
        self._paged: list[str] = []

    def ways(self) -> dict[str, Callable[[], object]]:
        """What is timed."""
        return {
            "ours": self._decode,
            **{
                name: partial(padded, self._model, self._rows, self._new, name)
                for name in ("dynamic", *(["static"] if self._model.device.type == "cpu" else []))
            },
            "continuous": self._decode_paged,
        }

    def _decode(self) -> None:
        self._ours = self._lm.generate_until(self._requests, disable_tqdm=True)

    def _decode_paged(self) -> None:
        found = self._model.generate_batch(
            self._rows,
            generation_config=self._config,
            continuous_batching_config=self._paging,
            persistent_manager=True,
        )
        if len(found) < len(self._rows) or any(one.error for one in found.values()):
            raise RuntimeError("continuous batching left prompts without an answer")
        self._paged = [self._tokenizer.decode(one.generated_tokens) for one in found.values()]

    def equal(self) -> float:
        """The share of the paged way's texts that are ours."""
        pairs = zip(self._ours, self._paged, strict=True)
        return sum(paged.startswith(ours.rstrip()) for ours, paged in pairs) / len(self._ours)


def measure(name: str, model: PreTrainedModel, arguments: argparse.Namespace) -> dict[str, Any]:
    """A model's seconds and ratios; prints its table."""
    few = arguments.quick and arguments.device == "cpu"
    count = 2 if arguments.smallest else PROMPTS // 3 if few else PROMPTS
    with edited(model):
        decoders = Decoders(model, count, 8 if arguments.smallest else NEW)
        seconds = interleaved(decoders.ways(), 1 if few or arguments.smallest else 5)
    model.destroy_cached_continuous_batching_manager()
    ratios = {way: paired_ratio(own, seconds["ours"]) for way, own in seconds.items()}
    rows = [(way, median(own), ratios[way]) for way, own in seconds.items()]
    print(f"{name}, {decoders.equal():.0%} of continuous batching's texts are ours")
    print(table(["decoding", "seconds", "over ours"], rows))
    return {"model": name, "seconds": seconds, "ratios": ratios, "equal": decoders.equal()}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    arguments = parse(__doc__ or "", argv, with_device=True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    getLogger("ContinuousBatchingLogger").setLevel(ERROR)
    device = arguments.device
    found = [measure("demo", demo_model(device=device), arguments)]
    if device == "cuda" and not arguments.smallest:
        llama = random_llama(device, torch.bfloat16)
        found.append(measure("Llama, 1B", llama, arguments))
    ratios = {
        f"{way}_over_ours{'' if number == 0 else '_llama'}": ratio
        for number, one in enumerate(found)
        for way, ratio in one["ratios"].items()
    }
    finish(arguments, ratios, found)


if __name__ == "__main__":
    main()
