"""What path patching asks of a loaded model: functions for whoever holds it (`executors.Call`).

They share a bench, which a host makes once: the units, and the prompts that the model answers
right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import pandas as pd
import torch

from neurosurgery.common.generator import generator
from neurosurgery.edit.ablation import end_vectors, head_means
from neurosurgery.localisation.attention_from_end import attention_from_end
from neurosurgery.localisation.patching_metrics import PromptPairs
from neurosurgery.localisation.path_patching import HeadEffects, check_clean, head_effects
from neurosurgery.masks.head_units import model_units
from neurosurgery.masks.kinds import units_by_effects
from neurosurgery.masks.units import Unit
from neurosurgery.models.architecture import Architecture
from neurosurgery.models.load import LoadedModel
from neurosurgery.models.offload import check_on_devices
from neurosurgery.run.host import Host
from neurosurgery.studies.knock_out import KnockOut
from neurosurgery.studies.patching_prompts import Prompts, TokenisedPrompts, prepare_prompts

BATCH_TOKENS = {"cpu": 4096, "cuda": 16384}
ATTENDED = 64
"""Prompts over which the attention of the key heads is averaged."""


class Bench:
    """A loaded model, its units, and the prompts that it answers right.

    Raises:
        UsageError: weights are off the devices; the model has no separable heads; too few prompts
            are left, or an effect would be a share of a value that is not well above 0.
    """

    def __init__(self, loaded: LoadedModel, asked: TokenisedPrompts) -> None:
        self.model, self._tokenizer = loaded.model, loaded.tokenizer
        check_on_devices(self.model, "path patching")
        self.patch = asked.patch
        kinds = units_by_effects()
        self.architecture = Architecture(self.model)
        chosen = [kinds[kind].name for kind in asked.patch.units]
        self.units = model_units(self.architecture, chosen)
        self.batch_tokens = BATCH_TOKENS.get(self.model.device.type, BATCH_TOKENS["cpu"])
        self.prompts = prepare_prompts(loaded, asked, self.batch_tokens)
        self.found_on = PromptPairs.of(self.prompts.found_on)
        check_clean(self.model, self.found_on, self.patch.metric, self.batch_tokens)

    @property
    def counterfactuals(self) -> list[Sequence[int]]:
        """Those of the prompts that units are found with, as token ids."""
        return [pair.counterfactual_ids for pair in self.prompts.found_on]

    @cached_property
    def means(self) -> dict[Unit, torch.Tensor]:
        """What every unit gives on average over the counterfactuals, (size,)."""
        return head_means(self.model, self.counterfactuals, self.units, self.batch_tokens)

    @cached_property
    def knock_out(self) -> KnockOut:
        """Units knocked out, and the held-out prompts asked."""
        means = self.means if self.patch.ablation == "mean" else None
        return KnockOut(self.model, self.units, self.prompts, self.patch, self.batch_tokens, means)

    def attention(self, heads: Sequence[Unit]) -> pd.DataFrame:
        """The share of every head's attention on every part of a prompt."""
        prompts = self.prompts.found_on[:ATTENDED]
        return attention_from_end(self.model, self._tokenizer, heads, prompts)


def bench(host: Host, asked: TokenisedPrompts) -> Bench:
    """The host's bench, made the first time."""
    return host.kept("path patching", lambda: Bench(host.loaded, asked))


def found(host: Host, asked: TokenisedPrompts) -> tuple[list[Unit], Prompts]:
    """The units and the prompts."""
    here = bench(host, asked)
    return here.units, here.prompts


def effects(host: Host, asked: TokenisedPrompts) -> HeadEffects:
    """The effect of every unit on every prompt."""
    here, patch = bench(host, asked), asked.patch
    return head_effects(
        here.model,
        here.found_on,
        metric=patch.metric,
        freeze_mlps=patch.freeze_mlps,
        units=patch.units,
        batch_tokens=here.batch_tokens,
        architecture=here.architecture,
    )


def vectors(host: Host, asked: TokenisedPrompts, repeats: int) -> dict[str, torch.Tensor]:
    """What takes the place of every unit in the cells, by its name.

    The mean over the counterfactuals, (size,); to resample, what all units give on the one that a
    repeat draws, (repeats, size).
    """
    here = bench(host, asked)
    if asked.patch.ablation == "mean":
        found = here.means
    else:
        seed = asked.patch.random_state
        drawn = [
            int(generator(seed, repeat, "", "counterfactual").integers(len(here.counterfactuals)))
            for repeat in range(repeats)
        ]
        prompts = [here.counterfactuals[place] for place in drawn]
        found = end_vectors(here.model, prompts, here.units, here.batch_tokens)
    return {unit.name: values.cpu() for unit, values in found.items()}


def point(
    host: Host, asked: TokenisedPrompts, ranked: Sequence[Unit], wanted: Mapping[str, object]
) -> dict[str, object]:
    """One point of a knock-out curve."""
    return bench(host, asked).knock_out.point(ranked, wanted)


def answers(host: Host, asked: TokenisedPrompts, units: Sequence[Unit]) -> list[bool]:
    """Right or wrong for every held-out prompt, with these units knocked out."""
    return bench(host, asked).knock_out.answers(units)


def attention(host: Host, asked: TokenisedPrompts, heads: Sequence[Unit]) -> pd.DataFrame:
    """What heads look at from the last position."""
    return bench(host, asked).attention(heads)
