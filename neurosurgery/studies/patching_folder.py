"""What path patching keeps in a results folder, so that a run goes on where it was stopped."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save

from neurosurgery.common.errors import UsageError
from neurosurgery.common.files import write_atomically
from neurosurgery.common.folders import make_folder
from neurosurgery.common.numbers import count_of
from neurosurgery.edit.kinds import TRAIN
from neurosurgery.methods.base import TRAINED_ONLY
from neurosurgery.methods.registry import cells_of
from neurosurgery.report.read.heads import HEADS_FOLDER, KNOCK_OUT
from neurosurgery.results.provenance import describe_run, facts_of_model
from neurosurgery.results.store import ResultStore
from neurosurgery.run.kept_effects import VALUES
from neurosurgery.settings.identity import EFFECTS, Fact, Identity
from neurosurgery.settings.patching import SCRIPT
from neurosurgery.studies.patching_config import PatchingConfig

_POINT = ["kind", "group", "number", "ablation", "positions", "draws"]


class PatchingFolder:
    """`SAVE_PATH/path_patching/MODEL`: effects per prompt, tables, points of the knock-out curve.

    Args:
        config: the settings of the run.
        commit: the commit of a hub model.
        dtype: the number format of the weights.
        prompts: what their file depends on; None where they are made.
    """

    def __init__(
        self, config: PatchingConfig, commit: str | None, dtype: str, prompts: Any
    ) -> None:
        self.path = config.save_path / HEADS_FOLDER / config.model.label
        self.store = ResultStore(config.save_path, config.model.label)
        self._overwrite = config.overwrite
        self._settings = config.settings
        self._shared = facts_of_model(config.model, dtype.removeprefix("torch."), commit)
        self._own = config.settings.facts(EFFECTS) | [
            Fact("prompts", prompts, EFFECTS, Path(config.prompts.file or "").name)
        ]

    def check(self) -> None:
        """Refuse a folder of something else, and settings other than those of what is there.

        Raises:
            UsageError: names the first flag that differs; or `--overwrite` would take away what
                trainings started from.
        """
        self.store.check_folder()
        self.store.check(self._shared)
        if not self._overwrite:
            self.store.check(self._own)
            return
        there = self.store.edited(cells_of(SCRIPT))
        if trained := [key for key in there if key.edit and key.edit.kind == TRAIN]:
            # They could neither go on nor be judged beside cells of other effects.
            reason = (
                f"would delete the effects that {count_of(len(trained), 'training')} of "
                f"{TRAINED_ONLY} in {self.store.root} started from; choose another --save_path"
            )
            raise UsageError("--overwrite", "", reason)

    def start(
        self,
        device: str,
        quantised: str | None,
        of_cells: Identity,
    ) -> None:
        """Note the run in config.json; with `--overwrite`, delete what path patching left before.

        Args:
            device: where the model is.
            quantised: what of its weights was quantised.
            of_cells: what the cells of the grid depend on besides (`studies.head_cells`).
        """
        if self._overwrite:
            shutil.rmtree(self.path, ignore_errors=True)
            self.store.clear_cells(cells_of(SCRIPT))
        make_folder(self.path)
        run = describe_run(self._settings, device, quantised)
        self.store.write_config(self._shared | self._own | of_cells, run)

    def effects(self, units: int, prompts: int) -> torch.Tensor | None:
        """The kept effects, (units, prompts), float64; None if there are none of this shape."""
        path = self.path / VALUES
        if not path.is_file():
            return None
        values = load_file(path)["effects"]
        return values if values.shape == (units, prompts) else None

    def keep_effects(self, effects: torch.Tensor, how: Mapping[str, str]) -> None:
        """Keep effects of every unit on every prompt."""
        write_atomically(self.path / VALUES, save({"effects": effects.contiguous()}, dict(how)))

    def write(self, name: str, table: pd.DataFrame) -> None:
        """Write one of the tables."""
        write_atomically(self.path / name, table.to_csv(index=False))

    def has(self, point: Mapping[str, object]) -> bool:
        """Whether a point of the knock-out curve is there."""
        return len(self.points_of([point])) > 0

    def points_of(self, wanted: Sequence[Mapping[str, object]]) -> pd.DataFrame:
        """The rows of the wanted points that are there, in their order."""
        there = self._points()
        if there.empty:
            return there
        names = {tuple(str(point[name]) for name in _POINT): n for n, point in enumerate(wanted)}
        order = there[_POINT].astype(str).apply(lambda row: names.get(tuple(row), -1), axis=1)
        rows = there.assign(order=order)
        return rows[rows["order"] >= 0].sort_values("order").drop(columns="order")

    def add(self, point: Mapping[str, object]) -> None:
        """Add a point to the curve."""
        table = pd.DataFrame([point])
        # As text: some versions of pandas read the last digit of a number otherwise than it stands.
        there = self._points(dtype=str, keep_default_na=False)
        self.write(KNOCK_OUT, pd.concat([there, table]) if len(there) else table)

    def _points(self, **how: Any) -> pd.DataFrame:
        path = self.path / KNOCK_OUT
        return pd.read_csv(path, **how) if path.is_file() else pd.DataFrame(columns=_POINT)
