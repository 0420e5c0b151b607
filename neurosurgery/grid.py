"""A loaded model, taken through the cells of a plan: score, edit, evaluate, restore, store."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from lm_eval.models.huggingface import HFLM
from tqdm import tqdm

from neurosurgery.activations import collect_activation_norms, encode_samples
from neurosurgery.config import MATH, ExperimentConfig
from neurosurgery.dataset import CalibrationSet
from neurosurgery.evaluation import (
    Evaluation,
    Harness,
    chatter_to,
    harness_model,
    preserved_generators,
)
from neurosurgery.interventions import AppliedFactor, scaled_weights
from neurosurgery.masks import ParameterMask, TopK
from neurosurgery.models import (
    LoadedModel,
    Target,
    context_length,
    find_targets,
    scored_share,
)
from neurosurgery.plan import Plan
from neurosurgery.results import BASELINE_KEY, METHOD, CellRecord, ResultStore, RunKey
from neurosurgery.verdict import VerdictTable

SCORED_SHARE_WARNING = 0.9


def say(text: str) -> None:
    """Print a line above whatever progress bar is running."""
    tqdm.write(text, file=sys.stdout)


class Grid:
    """A loaded model, taken through the cells of a plan."""

    def __init__(
        self,
        config: ExperimentConfig,
        sets: Mapping[str, CalibrationSet],
        store: ResultStore,
        loaded: LoadedModel,
        harnesses: Mapping[str, Harness],
        verdicts: VerdictTable,
    ) -> None:
        self._config = config
        self._sets = sets
        self._store = store
        self._loaded = loaded
        self._harnesses = harnesses
        self._verdicts = verdicts
        with store.open_log() as log, chatter_to(log):
            self._lm: HFLM = harness_model(loaded, config.evaluation.batch_size)
        self._parameters = sum(p.numel() for p in loaded.model.parameters())

    def run(self, plan: Plan) -> None:
        """Compute what is pending; every finished cell is on disk before the next one starts."""
        targets = find_targets(self._loaded.model)
        norms = {name: self._norms(name, targets) for name in plan.pending_sets(MATH)}
        if norms:
            # A module that no sample reached (the image side of a model, say) has no importance.
            reached = set.intersection(*(set(of_set[0]) for of_set in norms.values()))
            targets = [target for target in targets if target.name in reached]
        self._describe_model(targets)
        with tqdm(
            total=len(plan.pending) + plan.baseline_pending, desc="grid", unit="cell"
        ) as progress:
            if plan.baseline_pending:
                self._evaluate(BASELINE_KEY, edited=0, topk_share=None, factor=None)
                progress.update()
            groups: dict[tuple[str, int], list[RunKey]] = {}
            for key in plan.to_mask:
                groups.setdefault((key.calibration, key.repeat), []).append(key)
            for (calibration, repeat), keys in groups.items():
                proportions = list(dict.fromkeys(key.proportion for key in keys))
                math = TopK(targets, norms[MATH][repeat], proportions)
                nonmath = TopK(targets, norms[calibration][repeat], proportions)
                for proportion in proportions:
                    top = math.mask(proportion)
                    mask = top - nonmath.mask(proportion)
                    for key in keys:
                        if key.proportion == proportion:
                            if self._config.save_masks:
                                self._save_mask(key, mask, top.count())
                            if key in plan.pending:
                                self._run_cell(key, mask, top.count())
                                progress.update()

    def _describe_model(self, targets: Sequence[Target]) -> None:
        share = scored_share(self._loaded.model, targets)
        say(
            f"{self._config.model.label}: {self._parameters:,} parameters, {self._loaded.dtype}; "
            f"{len(targets)} weight matrices are scored, {share:.1%} of what is not embeddings"
        )
        if share < SCORED_SHARE_WARNING:
            say(
                f"warning: {1 - share:.1%} of the parameters outside the embeddings are in no "
                "linear module and are not scored; a skill may sit there"
            )

    def _norms(self, name: str, targets: Sequence[Target]) -> list[dict[str, torch.Tensor]]:
        """Activation norms of one set for every repeat, from the folder or from one pass.

        The pass always covers all repeats, so that a killed run that is started again forms the
        same batches and so the same numbers to the last bit.
        """
        repeats = range(self._config.num_repeats)
        found = [self._store.read_statistics(name, repeat, METHOD) for repeat in repeats]
        if any(statistics is None for statistics in found):
            computed = self._score(self._sets[name], targets)
            for repeat in repeats:
                if found[repeat] is None:
                    self._store.write_statistics(name, repeat, METHOD, computed[repeat])
                    found[repeat] = computed[repeat]
        return [statistics for statistics in found if statistics is not None]

    def _score(
        self, calibration_set: CalibrationSet, targets: Sequence[Target]
    ) -> list[dict[str, torch.Tensor]]:
        loaded, config = self._loaded, self._config
        multiplicities = calibration_set.multiplicities(
            config.num_samples, config.num_repeats, config.random_state
        )
        drawn = np.flatnonzero(multiplicities.any(axis=0))
        encoded = encode_samples(
            [calibration_set.samples[index] for index in drawn],
            loaded.tokenizer,
            context_length(loaded.model, loaded.tokenizer),
        )
        if encoded.truncated:
            say(f"{calibration_set.name}: {encoded.truncated} samples cut at the context length")
        start = time.monotonic()
        tokens = 0
        with tqdm(
            total=len(drawn),
            desc=f"scoring {calibration_set.name}",
            unit="sample",
        ) as progress:

            def on_batch(samples: int, batch_tokens: int) -> None:
                nonlocal tokens
                tokens += batch_tokens
                rate = tokens / (time.monotonic() - start)
                progress.set_postfix_str(f"{rate:,.0f} tokens/s", refresh=False)
                progress.update(samples)

            return collect_activation_norms(
                loaded.model,
                targets,
                encoded.ids,
                multiplicities[:, drawn],
                config.batch_tokens,
                on_batch,
            )

    def _run_cell(self, key: RunKey, mask: ParameterMask, topk: int) -> None:
        edited = mask.count()
        with scaled_weights(self._loaded.model, mask, key.scalar) as factor:
            if factor is not None and factor.blurs(key.scalar):
                say(
                    f"{key.stem}: in {self._loaded.dtype} the factor {key.scalar} became "
                    f"{factor.median:.5g} (median; {factor.smallest:.5g} to {factor.largest:.5g})"
                )
            topk_share = edited / topk if topk else None
            self._evaluate(key, edited=edited, topk_share=topk_share, factor=factor)

    def _evaluate(
        self,
        key: RunKey,
        *,
        edited: int,
        topk_share: float | None,
        factor: AppliedFactor | None,
    ) -> None:
        start = time.monotonic()
        with self._store.open_log() as log, chatter_to(log), preserved_generators():
            math = self._harness("math", self._config.evaluation.math_documents)
            other = self._harness("other", self._config.evaluation.other_documents)
        record = CellRecord(
            key=key,
            edited=edited,
            edited_share=edited / self._parameters,
            topk_share=topk_share,
            factor=factor,
            seconds=time.monotonic() - start,
            groups=math.groups | other.groups,
        )
        self._store.write_cell(record, math, other)
        self._verdicts.update()

    def _harness(self, name: str, limit: int | None) -> Evaluation:
        return self._harnesses[name].evaluate(self._lm, limit)

    def _save_mask(self, key: RunKey, mask: ParameterMask, topk: int) -> None:
        path = self._store.mask_file(key)
        if path.exists():
            return
        provenance = {
            "model": self._config.model.name,
            "revision": self._config.model.revision,
            "method": key.method,
            "calibration": key.calibration,
            "proportion": key.proportion,
            "repeat": key.repeat,
            "seed": self._config.random_state,
            "num_samples": self._config.num_samples,
            "counts": mask.counts(),
            "math_topk": topk,
        }
        mask.save(path, provenance)
