"""Settings of `PathPatching.py`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from neurosurgery.common.errors import UsageError
from neurosurgery.edit.kinds import BY_POSITION, SCALE, EditKey, ablate_by, scale_by
from neurosurgery.settings.experiment import RunConfig
from neurosurgery.settings.patching import PromptConfig


@dataclass(frozen=True)
class PatchConfig:
    """What is found, and what is knocked out afterwards; as plain data, for any process.

    `top` holds numbers of units of one kind (1 and more) or shares of them (below 1), None for
    `TOP`; `units` are keys of `units_by_effects`.
    """

    metric: str
    freeze_mlps: bool
    units: tuple[str, ...]
    top: tuple[float, ...] | None
    ablation: str
    positions: str
    num_draws: int
    random_state: int


@dataclass(frozen=True)
class CellsConfig:
    """The cells of the grid: the key units are edited and evaluated on tasks of the harness.

    `scalars` multiply the weights that read the units; without any, the units are knocked out.
    `methods` choose the units.
    """

    scalars: tuple[float, ...]
    num_repeats: int
    pre_train_eval: bool
    methods: tuple[str, ...]

    def edits(self, ablation: str) -> tuple[EditKey, ...]:
        """What is done to the units of a cell."""
        if self.scalars:
            return tuple(scale_by(scalar) for scalar in self.scalars)
        return (ablate_by(ablation),)

    def removal(self, ablation: str) -> str | None:
        """How units are removed, which is one way in a folder; None where none are removed."""
        removing = [edit.kind for edit in self.edits(ablation) if edit.removes]
        return ("zero" if removing[0] == SCALE else ablation) if removing else None


@dataclass(frozen=True)
class PatchingConfig(RunConfig):
    """All settings of one call of `PathPatching.py`.

    Without `cells` and `evaluation`, which stand together, no task of the harness is asked.
    """

    prompts: PromptConfig
    patch: PatchConfig
    cells: CellsConfig | None

    def check(self) -> None:
        """The same, and what cells cannot have.

        Raises:
            UsageError: names flag, value and what was expected.
        """
        super().check()
        if self.cells is None:
            return
        ablation, scaled = self.patch.ablation, bool(self.cells.scalars)
        if ablation == BY_POSITION and not scaled:
            reason = (
                "expected mean, zero, resample or --scalar with tasks, whose documents have other "
                "positions"
            )
            raise UsageError("--ablation", ablation, reason)
        if self.output.save_model and not scaled and ablation != "zero":
            reason = "expected with it --scalar or --ablation zero, which change weights"
            raise UsageError("--save_model", "", reason)
