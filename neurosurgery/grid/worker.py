"""A loaded model, taken through the cells of a plan: select, edit, evaluate, restore, store."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence

from lm_eval.models.huggingface import HFLM
from tqdm import tqdm

from neurosurgery.common.errors import RunError
from neurosurgery.config.experiment import LAPE, ExperimentConfig
from neurosurgery.config.keys import ACTIVATION_NORMS, BASELINE_KEY, FIRING_COUNTS, RunKey
from neurosurgery.edit.export import export_model
from neurosurgery.edit.scale import AppliedFactor, scaled_weights
from neurosurgery.evaluate.harness import (
    Evaluation,
    Harness,
    chatter_to,
    harness_model,
    preserved_generators,
)
from neurosurgery.grid.gather import Gatherer, say
from neurosurgery.grid.plan import Plan
from neurosurgery.locate.selectors import NeuronSelector, Selection, Selector, WeightSelector
from neurosurgery.models.load import LoadedModel, Target, find_targets, scored_share
from neurosurgery.models.neurons import find_neuron_layers
from neurosurgery.results.provenance import model_fingerprint
from neurosurgery.results.store import CellRecord, ResultStore
from neurosurgery.verdicts.table import VerdictTable

SCORED_SHARE_WARNING = 0.9


class Grid:
    """A loaded model, taken through the cells of a plan."""

    def __init__(
        self,
        config: ExperimentConfig,
        store: ResultStore,
        loaded: LoadedModel,
        gatherer: Gatherer,
        harnesses: Mapping[str, Harness],
        verdicts: VerdictTable,
    ) -> None:
        self._config = config
        self._store = store
        self._loaded = loaded
        self._gatherer = gatherer
        self._harnesses = harnesses
        self._verdicts = verdicts
        with store.open_log() as log, chatter_to(log):
            self._lm: HFLM = harness_model(loaded, config.evaluation.batch_size)
        self._commit = getattr(loaded.model.config, "_commit_hash", None)
        self._parameters = sum(p.numel() for p in loaded.model.parameters())

    def run(self, plan: Plan) -> None:
        """Compute what is pending; every finished cell is on disk before the next one starts.

        Raises:
            RunError: the model, its weights or its activations are not fit for the method.
        """
        if not (plan.baseline_pending or self._store.is_done(BASELINE_KEY)):
            say("no baseline in this folder: without --pre_train_eval there will be no verdict")
        if 1 in self._config.scalars:
            say("--scalar 1 changes nothing: its cells repeat the baseline")
        selector = self._selector(plan)
        # What is there by now stays; a full collection would look through it in every cell, which
        # takes a tenth of a second and more.
        gc.freeze()
        try:
            with tqdm(
                total=len(plan.pending) + plan.baseline_pending, desc="grid", unit="cell"
            ) as progress:
                if plan.baseline_pending:
                    self._evaluate(BASELINE_KEY)
                    progress.update()
                for key in plan.to_mask:
                    selection = selector.select(key)
                    self._save(key, selection)
                    if key in plan.pending:
                        self._run_cell(key, selection)
                        progress.update()
        finally:
            gc.unfreeze()

    def _selector(self, plan: Plan) -> Selector:
        targets = find_targets(self._loaded.model)
        if LAPE in self._config.methods:
            return self._neuron_selector(plan, targets)
        norms = {
            name: self._gatherer.activation_norms(name, ACTIVATION_NORMS, targets)
            for name in plan.sets_needed
        }
        if norms:
            # A module that no sample reached (the image side of a model, say) has no importance.
            reached = set.intersection(*(set(of_set[0]) for of_set in norms.values()))
            targets = [target for target in targets if target.name in reached]
        self._describe_model(targets)
        proportions = list(dict.fromkeys(key.proportion for key in plan.to_mask))
        return WeightSelector(targets, norms, proportions, self._config.random_state)

    def _neuron_selector(self, plan: Plan, targets: Sequence[Target]) -> NeuronSelector:
        layers = find_neuron_layers(self._loaded.model)
        if not layers:
            raise RunError(
                f"{self._config.model.label} has no MLP with an activation module between linear "
                "modules; LAPE needs one"
            )
        neurons = sum(layer.neurons for layer in layers)
        say(
            f"{self._config.model.label}: {self._parameters:,} parameters, {self._loaded.dtype}; "
            f"{neurons:,} neurons in {len(layers)} MLPs"
        )
        counts = {
            name: self._gatherer.firing_counts(name, FIRING_COUNTS, layers)
            for name in plan.sets_needed
        }
        return NeuronSelector(targets, layers, counts)

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

    def _run_cell(self, key: RunKey, selection: Selection) -> None:
        if selection.neurons is not None:
            say(f"{key.stem}: {_neurons_text(selection.neurons, key.skill)}")
        with scaled_weights(self._loaded.model, selection.mask, key.scalar) as factor:
            if factor is not None and factor.blurs(key.scalar):
                say(
                    f"{key.stem}: in {self._loaded.dtype} the factor {key.scalar} became "
                    f"{factor.median:.5g} (median; {factor.smallest:.5g} to {factor.largest:.5g})"
                )
            self._evaluate(key, selection, factor)

    def _evaluate(
        self,
        key: RunKey,
        selection: Selection | None = None,
        factor: AppliedFactor | None = None,
    ) -> None:
        start = time.monotonic()
        with self._store.open_log() as log, chatter_to(log), preserved_generators():
            math = self._harness("math", self._config.evaluation.math_documents)
            other = self._harness("other", self._config.evaluation.other_documents)
        edited = selection.mask.count() if selection else 0
        topk = selection.topk if selection else None
        record = CellRecord(
            key=key,
            edited=edited,
            edited_share=edited / self._parameters,
            topk_share=edited / topk if topk else None,
            factor=factor,
            seconds=time.monotonic() - start,
            groups=math.groups | other.groups,
            neurons=selection.neurons if selection else None,
        )
        self._store.write_cell(record, math, other)
        self._verdicts.update()

    def _harness(self, name: str, limit: int | None) -> Evaluation:
        return self._harnesses[name].evaluate(self._lm, limit)

    def _save(self, key: RunKey, selection: Selection) -> None:
        """Write the mask and the edited model, where they are asked for and not there yet."""
        mask_file, folder = self._store.mask_file(key), self._store.model_folder(key)
        if self._config.save_masks and not mask_file.exists():
            selection.mask.save(mask_file, self._provenance(key, selection))
        if self._config.save_model and not folder.exists():
            model, tokenizer = self._loaded.model, self._loaded.tokenizer
            provenance = self._provenance(key, selection)
            with self._store.open_log() as log, chatter_to(log):
                export_model(model, tokenizer, selection.mask, key.scalar, folder, provenance)

    def _provenance(self, key: RunKey, selection: Selection) -> dict[str, object]:
        return {
            "model": self._config.model.name,
            "revision": self._config.model.revision,
            "model_content": model_fingerprint(self._config.model.name, self._commit),
            "method": key.method,
            "skill": key.skill,
            "calibration": key.calibration,
            "proportion": key.proportion,
            "repeat": key.repeat,
            "seed": self._config.random_state,
            "num_samples": self._config.num_samples,
            "counts": selection.mask.counts(),
            "skill_topk": selection.topk,
            "neurons": selection.neurons,
        }


def _neurons_text(neurons: Mapping[str, int], skill: str) -> str:
    text = (
        f"{neurons['selected']:,} of {neurons['all']:,} neurons selected, "
        f"{neurons['skill']:,} belong to {skill}"
    )
    return text if neurons["skill"] else f"{text}; the model is evaluated unedited"
