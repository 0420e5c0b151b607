"""Path patching of every head: rows of one product against a forward pass per head.

    python -m benchmarks.heads
    python -m benchmarks.heads --quick --json heads.json
    python -m benchmarks.heads --device cuda

Ten tokens a prompt; the demo model, a Llama of 84M random parameters, and (not with `--quick`) the
shape of SmolLM2-135M. Four ways to the same numbers, one after the other in every round
(`deviation` is the largest difference from `passes`, as a fraction of the logits' height):

- `chain`: two passes and the chain, without checks;
- `checked`: `head_effects` as it is called, which finds the heads and compares with the definition;
- `passes`: the definition, a forward pass of the batch per head;
- `cached`: the same, but only the last token runs, with the other tokens' keys and values.

`passes_over_chain` and `cached_over_chain` are the smallest ratios of the table. The metric is the
default, log-probability, for which all of them compute the logits of the whole vocabulary.

`peak` is how far memory rises above the loaded weights in `chain`; `bound` is 1.5 × the largest
layer plus the budget, `ROWS` rows of what a layer computes for one (two hidden states and three
vectors of the MLP).

Without `--quick` a second table shows growth: of one model the layers, the heads in a layer, or the
prompts are doubled, and the others stay.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.utils import logging

from benchmarks.common import finish, interleaved, paired_ratio, parse, table
from benchmarks.llamas import LLAMA_84M, Size, demo_model, random_ids, random_llama
from benchmarks.memory import peak_bytes
from neurosurgery.localisation.patching_chain import chain_changes
from neurosurgery.localisation.patching_hooks import hook_changes, replacements
from neurosurgery.localisation.patching_metrics import (
    LOGPROB,
    PromptPairs,
    above_median,
    pick,
    read_metric,
)
from neurosurgery.localisation.patching_runs import Batch, Setting, collect_batch, token_ids
from neurosurgery.localisation.path_patching import head_effects
from neurosurgery.masks.head_units import head_units
from neurosurgery.masks.units import Unit
from neurosurgery.models.heads import find_blocks
from neurosurgery.models.sites import site_hooks

TOKENS = 10
ROWS = 4096

SMOLLM2_135M = Size(576, 30, 1536, 49152, 3, tied=True)
"""Nine heads with three heads of keys and values, in each of thirty layers."""


def random_pairs(model: PreTrainedModel, prompts: int) -> PromptPairs:
    """Prompts of random tokens; a counterfactual has another token in the middle."""
    vocabulary = model.config.vocab_size
    references = random_ids(vocabulary, prompts, TOKENS, TOKENS)
    middle = TOKENS // 2
    counterfactuals = [
        [*ids[:middle], (ids[middle] + 1) % vocabulary, *ids[middle + 1 :]] for ids in references
    ]
    answers = [ids[0] for ids in random_ids(vocabulary, prompts, 1, 1, seed=1)]
    return PromptPairs(references, counterfactuals, answers)


def by_chain(setting: Setting, units: list[Unit], pairs: PromptPairs) -> torch.Tensor:
    """Two passes, and all heads at once."""
    return chain_changes(setting, units, _collected(setting, pairs), ROWS).change


def by_passes(setting: Setting, units: list[Unit], pairs: PromptPairs) -> torch.Tensor:
    """Two passes, and one per head."""
    return hook_changes(setting, units, _collected(setting, pairs))


def by_cached_passes(setting: Setting, units: list[Unit], pairs: PromptPairs) -> torch.Tensor:
    """Two passes, one that keeps keys and values, and one of a single token per head."""
    batch = _collected(setting, pairs)
    model = setting.model
    ids = token_ids(model, batch.prompts)
    cache = DynamicCache(config=model.config)
    model.base_model(input_ids=ids[:, :-1], past_key_values=cache, use_cache=True)
    clean = batch.clean(setting.metric)
    changes = []
    for unit in units:
        hooks = replacements(setting, unit, batch.reference, batch.counterfactual)
        with site_hooks(model, hooks):
            logits = model(input_ids=ids[:, -1:], past_key_values=cache, use_cache=True).logits
        cache.crop(-1)
        picked = pick(setting.metric, logits[:, -1], batch.columns)
        changes.append(read_metric(setting.metric, picked).double() - clean)
    return torch.stack(changes)


def _collected(setting: Setting, pairs: PromptPairs) -> Batch:
    return collect_batch(setting, pairs, range(len(pairs.references)))


def compare(name: str, model: PreTrainedModel, prompts: int, rounds: int) -> dict[str, object]:
    """Time the four ways and check that they agree; a row of the table."""
    pairs = random_pairs(model, prompts)
    blocks = find_blocks(model)
    setting, units = Setting(model, blocks, LOGPROB, freeze_mlps=False), head_units(blocks)
    found: dict[str, torch.Tensor] = {}

    def keep(way: str, changes: Callable[[], torch.Tensor]) -> Callable[[], object]:
        return lambda: found.update({way: changes()})

    functions = {
        "chain": keep("chain", partial(by_chain, setting, units, pairs)),
        "checked": keep(
            "checked",
            lambda: head_effects(model, pairs, units=("heads",), row_budget=ROWS).changes,
        ),
        "passes": keep("passes", partial(by_passes, setting, units, pairs)),
        "cached": keep("cached", partial(by_cached_passes, setting, units, pairs)),
    }
    with torch.inference_mode():
        batch = _collected(setting, pairs)  # libraries warm up
        peak = peak_bytes(functions["chain"], model.device.type)
        times = interleaved(functions, rounds, warm_up=False)
    largest = float(above_median(batch.reference.logits).max())
    found = {way: change.cpu() for way, change in found.items()}
    differences = [float((each - found["passes"]).abs().max()) for each in found.values()]
    deviation = max(differences) / largest
    row: dict[str, object] = {"model": name, "heads": len(units), "prompts": prompts}
    row |= {f"{way}_s": median(seconds) for way, seconds in times.items()}
    for way in ("passes", "cached"):
        for ours in ("chain", "checked"):
            row[f"{way}/{ours}"] = paired_ratio(times[way], times[ours])
    row |= {"deviation": deviation}
    return row | {"peak_mib": peak and peak >> 20, "bound_mib": _bound(model) >> 20}


def _bound(model: PreTrainedModel) -> int:
    """The memory that the chain may take beside the weights, in bytes."""
    config = model.config
    layers = model.base_model.layers
    largest = max(sum(p.numel() for p in layer.parameters()) for layer in layers)
    return 4 * int(1.5 * largest + ROWS * (2 * config.hidden_size + 3 * config.intermediate_size))


BASE = Size(512, 8, 1536, 8000)
"""Eight heads in each of eight layers."""


def growth(rounds: int, device: str) -> list[dict[str, object]]:
    """Seconds of the chain and of the cached loop, with one quantity changed at a time."""
    cases = [("layers", n, BASE._replace(layers=n), 16) for n in (4, 8, 16)]
    cases += [("heads a layer", n, BASE._replace(hidden=64 * n), 16) for n in (4, 8, 16)]
    cases += [("prompts", n, BASE, n) for n in (4, 16, 64)]
    rows = []
    for varied, value, size, prompts in cases:
        model = random_llama(size, device=device)
        pairs, blocks = random_pairs(model, prompts), find_blocks(model)
        setting, units = Setting(model, blocks, LOGPROB, freeze_mlps=False), head_units(blocks)
        ways = {
            "chain": partial(by_chain, setting, units, pairs),
            "cached": partial(by_cached_passes, setting, units, pairs),
        }
        with torch.inference_mode():
            times = interleaved(ways, rounds)
        row: dict[str, object] = {"varied": varied, "value": value, "heads": len(units)}
        row |= {"prompts": prompts}
        row |= {f"{way}_s": median(seconds) for way, seconds in times.items()}
        rows.append(row | {"cached/chain": paired_ratio(times["cached"], times["chain"])})
    return rows


def main(argv: list[str] | None = None) -> None:
    """Measure, print, write."""
    arguments = parse("Time of path patching.", argv, with_device=True)
    device = arguments.device
    prompts, rounds = (4, 1) if arguments.quick else (16, 3)
    logging.disable_progress_bar()
    models: dict[str, Callable[[], PreTrainedModel]] = {"demo": partial(demo_model, device=device)}
    if not arguments.smallest:
        models["Llama, 84M"] = partial(random_llama, LLAMA_84M, device=device)
    rows = [compare(name, build(), prompts, rounds) for name, build in models.items()]
    if not arguments.quick:
        # A forward pass for each of its 270 heads takes a minute and more.
        smollm2 = random_llama(SMOLLM2_135M, device=device)
        rows.append(compare("SmolLM2-135M's shape", smollm2, 4, 1))
    print(table(list(rows[0]), [list(row.values()) for row in rows]))
    grown = [] if arguments.quick else growth(rounds, device)
    if grown:
        print(table(list(grown[0]), [list(row.values()) for row in grown]))
    ratios: dict[str, float | None] = {
        f"{way}_over_chain": min(float(str(row[f"{way}/chain"])) for row in rows)
        for way in ("passes", "cached")
    }
    ratios["deviation"] = max(float(str(row["deviation"])) for row in rows)
    finish(arguments, ratios, rows + grown)


if __name__ == "__main__":
    main()
