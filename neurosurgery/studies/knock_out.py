"""Knock out key units and random ones, and count the right answers to held-out prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from transformers import PreTrainedModel

from neurosurgery.common.generator import generator
from neurosurgery.edit.ablation import (
    ablated,
    end_vectors,
    head_means,
    position_means,
    resampled,
)
from neurosurgery.edit.kinds import BY_POSITION
from neurosurgery.masks.units import Unit
from neurosurgery.models.forward import next_tokens
from neurosurgery.report.read.heads import RANDOM_UNITS
from neurosurgery.studies.patching_config import PatchConfig
from neurosurgery.studies.patching_prompts import Prompts
from neurosurgery.verdicts.answers import compare_answers

Answers = Callable[[Sequence[Unit]], Sequence[bool]]
"""Right or wrong for every held-out prompt, with these units knocked out."""


class KnockOut:
    """Knocks units out and asks the held-out prompts.

    Args:
        model: the unedited model.
        units: all units; their means over the counterfactuals are computed once.
        prompts: the prompts.
        config: ablation, positions and seed.
        batch_tokens: tokens per batch.
        means: those over the counterfactuals, where they are known.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        units: Sequence[Unit],
        prompts: Prompts,
        config: PatchConfig,
        batch_tokens: int,
        means: Mapping[Unit, torch.Tensor] | None = None,
    ) -> None:
        self._model = model
        self._held_out = prompts.held_out
        self._positions = config.positions
        self._seed = config.random_state
        self._batch_tokens = batch_tokens
        self._counterfactuals = [pair.counterfactual_ids for pair in prompts.found_on]
        self._vectors = self._values(units, config.ablation, means)
        self._baseline = self.answers([])
        self._whole_baseline = self.whole_answers([], self._baseline)
        answers = Counter(pair.answer_id for pair in self._held_out)
        # What a model reaches that has lost the skill, and always gives the commonest answer.
        self._commonest = answers.most_common(1)[0][1] / answers.total()

    def _values(
        self, units: Sequence[Unit], ablation: str, means: Mapping[Unit, torch.Tensor] | None
    ) -> Mapping[Unit, torch.Tensor] | None:
        """What replaces every unit, for `ablated`; to resample, a vector per held-out prompt."""
        if ablation == "zero":
            return None
        read = self._model, self._counterfactuals, units, self._batch_tokens
        if ablation == "mean":
            return means or head_means(*read)
        if ablation == BY_POSITION:
            return position_means(*read)
        found = end_vectors(*read)
        return resampled(found, len(self._held_out), self._seed)

    def answers(self, units: Sequence[Unit]) -> list[bool]:
        """Right or wrong for every held-out prompt, by the answer's first token."""
        return self._right(units, {n: pair.prompt_ids for n, pair in enumerate(self._held_out)}, 0)

    def whole_answers(self, units: Sequence[Unit], first: Sequence[bool]) -> list[bool]:
        """Right or wrong by all of the answer's tokens, written one after the other.

        What follows the answer is not looked at.

        Args:
            units: they are knocked out.
            first: the result of `answers`.
        """
        right = list(first)
        for step in range(1, max(pair.answer_tokens for pair in self._held_out)):
            prompts = {
                place: (*pair.prompt_ids, pair.answer_id, *pair.rest_ids[: step - 1])
                for place, pair in enumerate(self._held_out)
                if right[place] and step < pair.answer_tokens
            }
            for place, is_right in zip(prompts, self._right(units, prompts, step), strict=True):
                right[place] = is_right
        return right

    def _right(
        self, units: Sequence[Unit], prompts: Mapping[int, Sequence[int]], step: int
    ) -> list[bool]:
        """Whether the model, without the units, goes on with the answer's token of a step.

        Args:
            units: they are knocked out.
            prompts: number of the held-out pair to token ids.
            step: the answer's token, from 0.
        """
        places = list(prompts)

        def inside(batch: Sequence[int]) -> AbstractContextManager[None]:
            values = self._vectors
            if values is not None:
                rows = [places[number] for number in batch]
                values = {
                    unit: values[unit][rows] if values[unit].ndim == 2 else values[unit]
                    for unit in units
                }
            return ablated(self._model, units, values, self._positions, step)

        found = next_tokens(self._model, list(prompts.values()), self._batch_tokens, inside)
        pairs = [self._held_out[place] for place in places]
        return [
            token == (pair.answer_id, *pair.rest_ids)[step]
            for token, pair in zip(found, pairs, strict=True)
        ]

    def point(self, ranked: Sequence[Unit], point: Mapping[str, object]) -> dict[str, object]:
        """Measure one point of a curve.

        Random units are drawn from all units of the kind, key ones included, anew in every draw;
        one draw's larger selection holds its smaller ones.
        """
        number, draws = int(str(point["number"])), int(str(point["draws"]))
        selections = [list(ranked[:number])]
        if point["group"] == RANDOM_UNITS:
            orders = [
                generator(self._seed, draw, ranked[0].kind, "random units").permutation(len(ranked))
                for draw in range(draws)
            ]
            selections = [[ranked[place] for place in order[:number]] for order in orders]
        edited = [self.answers(units) for units in selections]
        whole = [
            self.whole_answers(units, first)
            for units, first in zip(selections, edited, strict=True)
        ]
        found = compare_answers(edited, self._baseline)
        return {
            "share": number / len(ranked),
            "accuracy": float(np.mean(edited)),
            "baseline": float(np.mean(self._baseline)),
            "difference": found.difference,
            "ci_low": found.interval.low,
            "ci_high": found.interval.high,
            "p_value": found.p_value,
            "commonest": self._commonest,
            "whole": float(np.mean(whole)),
            "whole_baseline": float(np.mean(self._whole_baseline)),
            "prompts": len(self._baseline),
        }
