"""Compute cells with a loaded model: select, edit, evaluate, restore. Prints nothing."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from neurosurgery.common.errors import RunError, UsageError
from neurosurgery.edit.edits import Change, Edit
from neurosurgery.edit.restore import undone
from neurosurgery.edit.scale import AppliedFactor
from neurosurgery.evaluation.asked import Part
from neurosurgery.evaluation.evaluation import Evaluation
from neurosurgery.evaluation.harness import harness_model
from neurosurgery.evaluation.isolation import chatter_to, preserved_generators
from neurosurgery.evaluation.remembered import Responses
from neurosurgery.masks.kinds import UNITS
from neurosurgery.masks.selection import Selection
from neurosurgery.methods.evidence import Evidence
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.methods.registry import METHODS, select
from neurosurgery.models.load import LoadedModel
from neurosurgery.results.cells import CellRecord, CellResult
from neurosurgery.results.keys import CellKey, shown_set
from neurosurgery.run.tasks import Tasks
from neurosurgery.run.training import Training


class Questions(NamedTuple):
    """What a cell is asked: part of its documents, and what it has answered of them before."""

    parts: Mapping[str, Part] | None
    responses: Responses


class Worker:
    """Computes cells with a model that it owns.

    Between two cells the model is the unedited one, bit for bit. The whole output of a cell is in
    its `CellResult`, so a worker can run in another process.

    Args:
        loaded: the unedited model.
        evidence: weights and statistics for the selections.
        tasks: the tasks, loaded.
        training: trains selections; None for grids without trainings.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        evidence: Evidence,
        tasks: Tasks,
        training: Training | None = None,
    ) -> None:
        self._training = training
        self._loaded = loaded
        self._evidence = evidence
        self._harnesses = tasks.harnesses
        self._chatter = io.StringIO()
        with chatter_to(self._chatter):
            self._lm = harness_model(loaded, tasks.evaluation.batch_size)
        self._parameters = sum(p.numel() for p in loaded.model.parameters())

    def select(self, key: SelectionKey) -> Selection:
        """The selection of one cell.

        Raises:
            RunError: a weight is not finite.
        """
        return select(self._evidence, key)

    def run(
        self,
        key: CellKey,
        parts: Mapping[str, Part] | None = None,
        responses: Responses | None = None,
    ) -> CellResult:
        """Compute one cell.

        Args:
            key: the cell.
            parts: which part of its documents it is asked (`Job.parts`).
            responses: what it has answered of them before.

        Raises:
            RunError: the method cannot use the model, its weights or its activations.
            RestoreError: the edit was not undone; the worker must not be used any more.
        """
        asked = Questions(parts, dict(responses or {}))
        if key.selection is None or key.edit is None:
            return self._evaluate(key, asked)
        selection = self.select(key.selection)
        # A training is most of its cell.
        start = time.monotonic()
        model = self._loaded.model
        with undone(model):
            edit = self._edit(key, selection)
            with edit.applied(model) as factor:
                return self._evaluate(key, asked, selection, edit.edited, factor, start)

    def _edit(self, key: CellKey, selection: Selection) -> Edit:
        if key.edit is None:
            raise RunError(f"{key.stem}: no edit")
        return key.edit.of_kind.make(key.edit, selection, lambda: self._changed(key, selection))

    def _changed(self, key: CellKey, selection: Selection) -> Change:
        if self._training is None:
            raise RunError(f"{key.stem}: this run trains nothing")
        return self._training.changed(key, selection)

    def export(
        self, key: CellKey, selection: Selection, folder: Path, provenance: Mapping[str, object]
    ) -> None:
        """Write a cell's edited model to a folder.

        Raises:
            RunError: the folder cannot be written, the edited weights are not finite, or the edit
                does not scale weights.
        """
        try:
            with self._quiet(), undone(self._loaded.model):
                self._edit(key, selection).export(self._loaded, folder, provenance)
        except UsageError as error:
            raise RunError(f"{key.stem} cannot be saved: {error}") from error

    def _evaluate(
        self,
        key: CellKey,
        asked: Questions,
        selection: Selection | None = None,
        edited: int = 0,
        factor: AppliedFactor | None = None,
        start: float | None = None,
    ) -> CellResult:
        start = time.monotonic() if start is None else start
        usual = self._lm.batch_size
        try:
            with self._quiet(), preserved_generators():
                repeat = key.selection.repeat if key.selection else None
                known = None if asked.parts is None else asked.responses
                math, other = (
                    self._harnesses[name].evaluate(self._lm, repeat, asked.parts, known)
                    for name in ("math", "other")
                )
        finally:
            # Where memory was short for this cell, the next one may have enough.
            at_once, self._lm.batch_size_per_gpu = self._lm.batch_size, usual
        topk = selection.topk if selection else None
        record = CellRecord(
            key=key,
            edited=edited,
            edited_share=edited / self._parameters,
            topk_share=edited / topk if topk else None,
            factor=factor,
            seconds=time.monotonic() - start,
            groups=math.groups | other.groups,
            units=selection.unit_counts if selection else None,
            higher_is_better=math.higher_is_better | other.higher_is_better,
        )
        notes = (
            *self._notes(key, selection, factor),
            *_broken_notes(key, math, other),
            *([] if at_once == usual else [_memory_note(key, usual, at_once)]),
            *self._lm.checks.take_notes(),
        )
        chatter = self._take_chatter()
        return CellResult(record, math, other, selection, notes, chatter, asked.responses)

    def _notes(
        self, key: CellKey, selection: Selection | None, factor: AppliedFactor | None
    ) -> Iterator[str]:
        """Lines about this cell for the user."""
        counts = selection.unit_counts if selection else None
        # Where the size is a number of units, the cell's name says all.
        if counts is not None and key.selection and not METHODS[key.method].counts_units:
            yield f"{key.stem}: {_units_text(counts, key.selection)}"
        elif selection is not None and not selection.mask.count():
            yield f"{key.stem}: no weight is selected; the model is evaluated unedited"
        scalar = key.edit.value if key.edit else None
        if factor is not None and scalar is not None and factor.blurs(scalar):
            yield (
                f"{key.stem}: in {self._loaded.dtype} the factor {scalar} became "
                f"{factor.median:.5g} (median; {factor.smallest:.5g} to {factor.largest:.5g})"
            )

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        with chatter_to(self._chatter):
            yield

    def _take_chatter(self) -> str:
        chatter = self._chatter.getvalue()
        self._chatter = io.StringIO()
        return chatter


def _memory_note(key: CellKey, usual: int, at_once: int) -> str:
    return f"{key.stem}: too little memory for {usual} requests at once, asked {at_once} at once"


def _broken_notes(key: CellKey, *evaluations: Evaluation) -> Iterator[str]:
    """A line about answers whose likelihoods are no numbers."""
    documents = [document for each in evaluations for document in each.documents]
    broken = [document["task"] for document in documents if document["broken"]]
    if broken:
        yield (
            f"{key.stem}: broken, {len(broken)} of {len(documents)} answers of the model are NaN "
            f"or infinite ({', '.join(dict.fromkeys(broken))})"
        )


def _units_text(counts: Mapping[str, int], key: SelectionKey) -> str:
    units = UNITS[METHODS[key.method].unit].plural
    skill = shown_set(key.skill, "the skill")
    selected = f"{counts['selected']:,} of {counts['all']:,} {units} selected"
    if METHODS[key.method].draw:
        return f"{selected}, a control"
    text = f"{selected}, {counts['skill']:,} belong to {skill}"
    return text if counts["skill"] else f"{text}; the model is evaluated unedited"
