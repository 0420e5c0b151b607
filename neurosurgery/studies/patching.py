"""Run `PathPatching.py`: prompts, effects, key units, knock-out, transfer, figures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch

from neurosurgery.common.terminal import progress, say
from neurosurgery.locate.attention_from_end import attention_from_end
from neurosurgery.locate.patching_metrics import PromptPairs
from neurosurgery.locate.path_patching import check_clean, head_effects
from neurosurgery.masks.head_units import HEAD, head_units, mlp_units
from neurosurgery.masks.kinds import UNIT_KINDS
from neurosurgery.masks.units import Unit
from neurosurgery.methods.key_units import effect_table, strongest
from neurosurgery.models.backbone import check_backbone
from neurosurgery.models.devices import choose_device, choose_dtype, keep_freed_memory
from neurosurgery.models.heads import find_blocks
from neurosurgery.models.load import LoadedModel, load_model, load_tokenizer, read_model_config
from neurosurgery.prompts.pairs import PromptPair
from neurosurgery.report import make_report
from neurosurgery.report.draw.style import figure_style
from neurosurgery.report.page.head_figures import draw_head_figures
from neurosurgery.report.read.heads import (
    AGREEMENT,
    ATTENTION,
    EFFECTS,
    KEY_UNITS,
    RANDOM_UNITS,
    TRANSFER,
    read_heads,
)
from neurosurgery.results.lock import FolderLock
from neurosurgery.settings.identity import Identity, content_of
from neurosurgery.studies.head_cells import HeadCells
from neurosurgery.studies.knock_out import KnockOut, left_out, numbers
from neurosurgery.studies.patching_config import PatchingConfig
from neurosurgery.studies.patching_folder import PatchingFolder
from neurosurgery.studies.patching_groups import COMPARED, agreement_of_groups, transfer_of_groups
from neurosurgery.studies.patching_plan import plan_lines, units_by_config
from neurosurgery.studies.patching_prompts import Prompts, prepare_prompts, tokenised_prompts
from neurosurgery.studies.patching_text import agreement_text, found_text, knock_out_text

BATCH_TOKENS = {"cpu": 4096, "cuda": 16384}
ATTENDED = 64
"""Prompts over which the attention of the key heads is averaged."""


class Patching:
    """One call of `PathPatching.py`.

    Args:
        config: the settings.
        given: the pairs of `--prompts`; None to make arithmetic.
    """

    def __init__(self, config: PatchingConfig, given: Sequence[PromptPair] | None) -> None:
        self._config = config
        self._given = given

    def run(self) -> None:
        """Find the units, knock them out, write tables and figures, print what was found.

        With `--dry_run`, print the plan. With tasks, edit the units and evaluate the model, too.

        Raises:
            UsageError: the model, the prompts, a number of units, a task or the folder cannot be
                used.
            RunError: the run cannot go on; what is found is kept.
        """
        lock = FolderLock(self._config.save_path)
        with nullcontext() if self._config.dry_run else lock.held():
            self._run(lock)

    def _run(self, lock: FolderLock) -> None:
        config = self._config
        device = choose_device(config.model)
        dtype = choose_dtype(config.model, device)
        architecture = read_model_config(config.model)
        commit = getattr(architecture, "_commit_hash", None)
        folder = PatchingFolder(config, commit, str(dtype), self._content())
        folder.check()
        cells = None
        if config.cells is not None:
            cells = HeadCells(config, config.cells, folder.store)
        with_template = config.cells is not None and config.cells.evaluation.apply_chat_template
        tokenizer = load_tokenizer(config.model, with_chat_template=with_template)
        # What the configuration tells is refused before the weights are loaded.
        expected = units_by_config(architecture)
        for kind in (UNIT_KINDS[kind] for kind in config.units):
            if expected[kind]:
                numbers(config.top, expected[kind], kind)
        if config.dry_run:
            say("\n".join(plan_lines(config, self._given, tokenizer, architecture, folder)))
            return
        pairs, tally = tokenised_prompts(tokenizer, config, self._given)
        texts = [pair.source.prompt for pair in pairs]
        of_cells = cells.load_tasks(tokenizer, architecture, texts) if cells else Identity()
        keep_freed_memory(device)
        loaded = load_model(config.model, tokenizer)
        check_backbone(loaded.model)
        if loaded.quantised is not None:
            say(loaded.quantised)
        blocks = find_blocks(loaded.model)
        of_kind = {"heads": head_units(blocks), "mlps": mlp_units(blocks)}
        units = [unit for kind in config.units for unit in of_kind[kind]]
        if cells is not None:
            cells.check_units(units)
        sizes = {UNIT_KINDS[kind]: len(of_kind[kind]) for kind in config.units}
        self._counts = {kind: numbers(config.top, sizes[kind], kind) for kind in sizes}
        batch_tokens = BATCH_TOKENS.get(device.type, BATCH_TOKENS["cpu"])
        prompts = prepare_prompts(loaded, config, pairs, tally, batch_tokens)
        found_on = PromptPairs.of(prompts.found_on)
        check_clean(loaded.model, found_on, config.metric, batch_tokens)
        folder.start(str(device), loaded.quantised, of_cells)
        for line in (*(left_out(config.top, sizes[kind], kind) for kind in sizes), prompts.text):
            if line:
                say(line)
        effects = self._effects(folder, loaded.model, prompts, batch_tokens, units)
        self._tables(folder, loaded, prompts, units, effects, batch_tokens)
        with figure_style():
            for drawing in draw_head_figures(read_heads(folder.path), config.metric):
                drawing.save(folder.path)
        say(f"\ntables and figures in {folder.path}")
        if cells is not None:
            counterfactuals = [pair.counterfactual_ids for pair in prompts.found_on]
            cells.run(loaded, units, effects, counterfactuals, self._counts, lock)
        elif (folder.store.root / "results.csv").exists():
            # The cells of other scripts have a report, which shows these figures too.
            page = make_report(folder.store.root, "--save_path")
            say(f"report of the whole folder in {page}")

    def _tables(
        self,
        folder: PatchingFolder,
        loaded: LoadedModel,
        prompts: Prompts,
        units: Sequence[Unit],
        effects: np.ndarray,
        batch_tokens: int,
    ) -> None:
        """Write and print what was found, what a knock-out does, and what the key heads look at."""
        config = self._config
        table = effect_table(units, effects)
        folder.write(EFFECTS, table)
        say("\n".join(found_text(table, config.metric, effects.shape[1])))
        kinds = list(self._counts)
        agreement = agreement_of_groups(
            units, effects, kinds, prompts.found_on, config.random_state
        )
        folder.write(AGREEMENT, agreement)
        say("\n".join(agreement_text(agreement)))
        knock_out = KnockOut(loaded.model, units, prompts, config, batch_tokens)
        points = self._curves(folder, knock_out, units, effects)
        say("\n".join(knock_out_text(points)))
        moved = transfer_of_groups(units, effects, kinds[0], prompts, knock_out.answers)
        if len(moved):
            folder.write(TRANSFER, moved)
        if "heads" in config.units:
            key = strongest(units, effects, HEAD)[:COMPARED]
            prompts_read = prompts.found_on[:ATTENDED]
            looks = attention_from_end(loaded.model, loaded.tokenizer, key, prompts_read)
            folder.write(ATTENTION, looks)

    def _content(self) -> dict[str, Any] | None:
        """What a file of prompts holds."""
        if self._given is None:
            return None
        text = json.dumps([asdict(pair) for pair in self._given])
        return content_of(hashlib.sha256(text.encode()).hexdigest())

    def _effects(
        self,
        folder: PatchingFolder,
        model: torch.nn.Module,
        prompts: Prompts,
        batch_tokens: int,
        units: Sequence[Unit],
    ) -> np.ndarray:
        """The effects, (units, prompts): kept ones where they are there."""
        config = self._config
        kept = folder.effects(len(units), len(prompts.found_on))
        if kept is None:
            found = head_effects(
                model,
                PromptPairs.of(prompts.found_on),
                metric=config.metric,
                freeze_mlps=config.freeze_mlps,
                units=config.units,
                batch_tokens=batch_tokens,
            )
            kept = found.effects
            how = {
                "metric": found.metric,
                "used": found.used,
                "deviation": f"{found.deviation:.3g}",
            }
            folder.keep_effects(kept, how)
            checked = (
                f"largest deviation from the definition {found.deviation:.1e} of the logits' height"
            )
            how_long = f"{len(units)} units, {len(prompts.found_on)} prompts"
            if found.used == "chain":
                say(f"effects computed without attention, {checked}; {how_long}")
            else:
                say(f"effects by a forward pass for each unit ({found.reason}); {how_long}")
        return kept.numpy()

    def _curves(
        self,
        folder: PatchingFolder,
        knock_out: KnockOut,
        units: Sequence[Unit],
        effects: np.ndarray,
    ) -> pd.DataFrame:
        """The points of the curves of every kind; kept ones are not computed again."""
        config = self._config
        wanted = [
            {"kind": kind, "group": group, "number": number, "draws": draws}
            | {"ablation": config.ablation, "positions": config.positions}
            for kind, counts in self._counts.items()
            for number in counts
            for group, draws in ((KEY_UNITS, 1), (RANDOM_UNITS, config.draws))
        ]
        ranked = {kind: strongest(units, effects, kind) for kind in self._counts}
        for point in progress(wanted, desc="knock-out", unit="point"):
            if not folder.has(point):
                found = knock_out.point(ranked[str(point["kind"])], point)
                folder.add(point | found)
        return folder.points_of(wanted)
