"""The study of `MathNeuro.py`, `MathNeuro_Ablations.py` and `LAPE.py`: a grid of edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.edit.kinds import EditKey, scale_by
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.methods.registry import METHODS
from neurosurgery.results.keys import CellKey
from neurosurgery.run.plan import Plan, check_sizes
from neurosurgery.settings.experiment import DataConfig, ExperimentConfig, GridConfig
from neurosurgery.settings.identity import MATH
from neurosurgery.studies.calibrated import CalibratedStudy

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class GridStudy(CalibratedStudy):
    """Selections by calibration sets, each edited and evaluated.

    Args:
        config: the settings.
        sets: calibration sets by name.
    """

    config: ExperimentConfig

    def __init__(self, config: ExperimentConfig, sets: Mapping[str, CalibrationSet]) -> None:
        super().__init__(config, sets)
        self.with_baseline = config.grid.pre_train_eval

    @property
    def methods(self) -> Sequence[str]:
        """All of the grid."""
        return self.config.grid.methods

    def read_configuration(self, architecture: PretrainedConfig, commit: str | None) -> None:
        """Refuse sizes that the matrices cannot have."""
        grid = self.config.grid
        check_sizes(dict.fromkeys(grid.methods, grid.sizes), self.config.model, architecture)

    def keys(self) -> tuple[CellKey, ...]:
        """All cells (`grid_keys`)."""
        return grid_keys(self.config.data, self.config.grid)

    def cells_text(self, method: str, plan: Plan) -> str:
        """How many cells of a method there are, and what makes them."""
        data, grid, of_method = self.config.data, self.config.grid, METHODS[method]
        sets = len(against_sets(data, grid))
        skill = "" if grid.skill == MATH else f"for the skill {grid.skill} "
        return (
            f"{skill}{super().cells_text(method, plan)}: "
            f"{f'{sets} calibration sets × ' if of_method.against_a_set else ''}"
            f"{1 if of_method.one_repeat else data.num_repeats} repeats × {len(grid.sizes)} "
            f"{of_method.size_name}s × {len(grid.edits)} edits"
        )


def against_sets(data: DataConfig, grid: GridConfig) -> tuple[str, ...]:
    """The calibration sets except the skill's own."""
    return tuple(name for name in data.names if name != grid.skill)


def grid_keys(data: DataConfig, grid: GridConfig) -> tuple[CellKey, ...]:
    """All cells: set × repeat × size × method × edit, then the methods without a set."""
    with_set = [method for method in grid.methods if METHODS[method].against_a_set]
    groups = [(name, with_set) for name in against_sets(data, grid)]
    groups.append(("", [method for method in grid.methods if method not in with_set]))
    return tuple(
        CellKey(SelectionKey(method, grid.skill, name, size, repeat), _of_unit(edit, method, grid))
        for name, methods in groups
        for repeat in range(data.num_repeats)
        for size in grid.sizes
        for method in methods
        if not (repeat and METHODS[method].one_repeat)
        for edit in grid.edits
    )


def _of_unit(edit: EditKey, method: str, grid: GridConfig) -> EditKey:
    """The edit, or what removes units of the method's kind in its place."""
    is_removal = edit == scale_by(0.0)
    return grid.removals.get(METHODS[method].unit, edit) if is_removal else edit
