"""Decoding by us against transformers' own ways: is there less code that is as fast?

    python -m benchmarks.decoding --quick

48 prompts of 60 to 120 words, 96 new tokens each, on the demo's model, in turns: `LanguageModel`
(`evaluation/engine/`), `generate` in padded batches of 16 with a dynamic and with a static cache,
and `generate_batch` (continuous batching with a paged cache). Seconds are medians of the turns
after the first; a ratio above 1 says that we are faster.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from statistics import median

import torch
from lm_eval.api.instance import Instance
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel

from benchmarks.common import finish, interleaved, paired_ratio, parse, table
from benchmarks.evaluate import text
from benchmarks.llamas import demo_model
from neurosurgery.evaluation.engine.language_model import LanguageModel
from neurosurgery.settings.demo import DEMO

PROMPTS, NEW, BATCH = 48, 96, 16


def padded(model: PreTrainedModel, rows: list[list[int]], cache: str) -> None:
    """Decode in batches, padded on the left."""
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        longest = max(map(len, batch))
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in batch])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in batch])
        with torch.inference_mode():
            model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=NEW,
                do_sample=False,
                cache_implementation=cache,
            )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    arguments = parse(__doc__ or "", argv)
    model, tokenizer = demo_model(), AutoTokenizer.from_pretrained(DEMO.model)
    generator = random.Random(3)
    count = PROMPTS // 3 if arguments.quick else PROMPTS
    prompts = [text(generator, generator.randint(60, 120)) for _ in range(count)]
    rows = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    until = {"until": ["\n\n\n"], "max_gen_toks": NEW, "do_sample": False}
    requests = [
        Instance("generate_until", {}, (prompt, until), place)
        for place, prompt in enumerate(prompts)
    ]
    ours = LanguageModel(model, tokenizer, BATCH)
    config = GenerationConfig(max_new_tokens=NEW, do_sample=False, pad_token_id=0)
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: ours.generate_until(requests, disable_tqdm=True),
        "dynamic": lambda: padded(model, rows, "dynamic"),
        "static": lambda: padded(model, rows, "static"),
        "continuous": lambda: model.generate_batch(rows, generation_config=config, warmup=False),
    }
    seconds = interleaved(ways, 1 if arguments.quick else 5)
    ratios = {
        f"{name}_over_ours": paired_ratio(own, seconds["ours"]) for name, own in seconds.items()
    }
    rows_shown = [(name, median(seconds[name]), ratios[f"{name}_over_ours"]) for name in ways]
    print(table(["decoding", "seconds", "over ours"], rows_shown))
    finish(arguments, ratios, seconds)


if __name__ == "__main__":
    main()
