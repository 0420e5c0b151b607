"""The plan of a run: its cells, which of them are done, and the cost of the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from neurosurgery.methods.base import Needed
from neurosurgery.methods.registry import METHODS
from neurosurgery.results.keys import BASELINE_KEY, CellKey
from neurosurgery.results.store import ResultStore
from neurosurgery.settings.checks import check_file_names
from neurosurgery.settings.experiment import (
    DataConfig,
    ModelConfig,
    OutputConfig,
)

if TYPE_CHECKING:
    # Planning works without transformers, which takes seconds to import.
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Plan:
    """The cells of a run in the order of computation, and the work that is left.

    `pending` cells must be evaluated; `to_select` adds evaluated cells that lack a requested mask,
    model or unit list.
    """

    keys: tuple[CellKey, ...]
    pending: tuple[CellKey, ...]
    to_select: tuple[CellKey, ...]
    baseline_pending: bool

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to compute."""
        return not (self.to_select or self.baseline_pending)


def needed_statistics(data: DataConfig, keys: Sequence[CellKey]) -> tuple[Needed, ...]:
    """The statistics that these cells' selections use, by kind, math first."""
    found = {
        need
        for key in keys
        if key.selection
        for need in METHODS[key.method].needs(key.selection, data.names)
    }
    kinds = list(dict.fromkeys(METHODS[key.method].statistics for key in keys))

    def order(need: Needed) -> tuple[object, ...]:
        kind = kinds.index(need.kind) if need.kind in kinds else len(kinds)
        return kind, need.kind, data.names.index(need.name), need.size or 0

    return tuple(sorted(found, key=order))


def check_sizes(
    sizes: Mapping[str, Sequence[float]], model: ModelConfig, architecture: PretrainedConfig
) -> None:
    """Refuse sizes that a model's matrices cannot have, before it is loaded.

    Args:
        sizes: by method.
        model: the model's settings.
        architecture: the result of `read_model_config`.

    Raises:
        UsageError: names the size.
    """

    @cache
    def widths() -> dict[str, int]:
        from neurosurgery.models.shapes import model_without_weights
        from neurosurgery.models.targets import find_targets

        targets = find_targets(model_without_weights(model, architecture))
        return {target.parameter_name: target.in_features for target in targets}

    for name, of_method in sizes.items():
        METHODS[name].check_sizes(of_method, widths)


def make_plan(
    keys: Sequence[CellKey], output: OutputConfig, store: ResultStore, *, with_baseline: bool
) -> Plan:
    """Find the finished ones of the cells; `with_baseline` adds the unedited model.

    Raises:
        UsageError: the name of a set or of a mask file is too long for the names of cells' files.
    """
    _check_names(keys)

    # --overwrite ignores the existing cells.
    def is_done(key: CellKey) -> bool:
        return not output.overwrite and store.is_done(key)

    def is_saved(key: CellKey) -> bool:
        return store.has_files(key, masks=output.save_masks, model=output.save_model)

    to_select = tuple(key for key in keys if not (is_done(key) and is_saved(key)))
    return Plan(
        tuple(keys),
        pending=tuple(key for key in keys if not is_done(key)),
        to_select=to_select,
        baseline_pending=with_baseline and not is_done(BASELINE_KEY),
    )


def _check_names(keys: Sequence[CellKey]) -> None:
    stems: dict[tuple[str, str], list[str]] = {}
    for key in keys:
        if key.selection is not None:
            given = METHODS[key.method].given
            flag = "--selection" if given else "--calibration_dataset_names"
            names = {(flag, key.selection.against), ("--skill", key.selection.skill)}
            for source in names:
                stems.setdefault(source, []).append(key.stem)
    for (flag, name), of_name in sorted(stems.items()):
        check_file_names(flag, name, of_name)
