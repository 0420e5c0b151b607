"""What `PathPatching.py --dry_run` prints: prompts, passes and cells, without the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from neurosurgery.masks.kinds import HEAD, MLP, PLURALS, UNIT_KINDS
from neurosurgery.methods.registry import METHODS
from neurosurgery.prompts.pairs import PromptPair
from neurosurgery.run.plan import evaluation_line, make_plan
from neurosurgery.studies.head_cells import head_keys
from neurosurgery.studies.knock_out import left_out, numbers
from neurosurgery.studies.patching_config import CellsConfig, PatchingConfig
from neurosurgery.studies.patching_folder import PatchingFolder
from neurosurgery.studies.patching_prompts import tokenised_prompts


def units_by_config(architecture: PretrainedConfig) -> dict[str, int]:
    """How many heads and MLPs a configuration tells of; 0 where it does not tell."""
    text = architecture.get_text_config()
    layers = getattr(text, "num_hidden_layers", 0) or 0
    return {HEAD: layers * (getattr(text, "num_attention_heads", 0) or 0), MLP: layers}


def plan_lines(
    config: PatchingConfig,
    given: Sequence[PromptPair] | None,
    tokenizer: PreTrainedTokenizerBase,
    architecture: PretrainedConfig,
    folder: PatchingFolder,
) -> Iterator[str]:
    """The lines of the plan.

    How many prompts the model answers right is unknown without it; heads are counted by its
    configuration.

    Raises:
        UsageError: prompts or a number of units that there are not.
    """
    tokens, tally = tokenised_prompts(tokenizer, config, given)
    of_kind = units_by_config(architecture)
    kinds = [UNIT_KINDS[kind] for kind in config.units]
    counts = {kind: numbers(config.top, of_kind[kind], kind) for kind in kinds if of_kind[kind]}
    found_on = round(len(tokens) * (1 - config.prompts.held_out))
    held_out = len(tokens) - found_on
    yield f"model        {config.model.label}"
    yield f"results in   {folder.path}"
    yield f"prompts      {tally.text().removeprefix('prompts: ')}"
    yield (
        f"             of those that the model answers right, at most {found_on} to find units "
        f"with and {held_out} held out"
    )
    names = ", ".join(f"{of_kind[kind] or 'unknown'} {PLURALS[kind]}" for kind in kinds)
    yield f"effects      {names}: 2 forward passes a prompt, the rest without attention"
    passes = sum(len(mine) for mine in counts.values()) * (1 + config.draws) + 1
    points = "; ".join(
        f"{' '.join(map(str, mine))} of {of_kind[kind]} {PLURALS[kind]}"
        for kind, mine in counts.items()
    )
    for kind in counts:
        if line := left_out(config.top, of_kind[kind], kind):
            yield f"             {line}"
    yield (
        f"knock-out    {points}: key units, and {config.draws} draws of random ones; "
        f"{passes} × {held_out} prompts"
    )
    if config.cells is None:
        yield "cells        none; --train_lm_eval_task and --eval_datasets would add them"
        return
    yield from _cells(config, config.cells, folder, counts)


def _cells(
    config: PatchingConfig,
    cells: CellsConfig,
    folder: PatchingFolder,
    counts: dict[str, list[int]],
) -> Iterator[str]:
    keys = head_keys(cells, config.ablation, counts)
    plan = make_plan(keys, cells.output, folder.store, with_baseline=cells.pre_train_eval)
    edits = len(cells.edits(config.ablation))
    for method in dict.fromkeys(key.method for key in keys):
        mine = sum(key.method == method for key in keys)
        to_do = sum(key.method == method for key in plan.pending)
        sizes = len(counts[METHODS[method].unit])
        yield (
            f"cells        {method} {mine} ({mine - to_do} done, {to_do} to do): "
            f"{cells.num_repeats} repeats × {sizes} numbers × {edits} edit{'s' * (edits > 1)}"
        )
    states = len(plan.pending) + plan.baseline_pending
    yield f"baseline     {'to do' if plan.baseline_pending else 'done, or none'}"
    yield evaluation_line(states, cells.evaluation)
