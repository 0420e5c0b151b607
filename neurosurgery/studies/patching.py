"""The study of `PathPatching.py`: heads and MLPs by their effects, knocked out and edited.

1. Prompts with a known answer and their counterfactuals are made or read, and tokenised.
2. Those that the model answers right are split: units are found with one part.
3. The effect of every unit on every prompt (`locate.path_patching`) is a statistic of the folder.
4. The strongest units and random ones are knocked out, and the held-out prompts asked: the curve,
   and the transfer between groups of prompts.
5. With tasks, the strongest units are also cells of the grid, as weights are for other scripts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurosurgery.common.errors import UsageError
from neurosurgery.common.terminal import progress, say
from neurosurgery.edit.kinds import POSITIONS, SCALE
from neurosurgery.masks.kinds import HEAD, UNITS, units_by_effects
from neurosurgery.methods.keys import SelectionKey
from neurosurgery.methods.registry import METHODS, cells_of
from neurosurgery.prompts.pairs import PromptPair
from neurosurgery.report.read.heads import (
    AGREEMENT,
    ATTENTION,
    DROPPED,
    EFFECTS,
    HEADS_FOLDER,
    KEY_UNITS,
    RANDOM_UNITS,
    TRANSFER,
    read_heads,
)
from neurosurgery.results.effects import counted_units, read_effects, write_effects
from neurosurgery.results.keys import CellKey
from neurosurgery.run.plan import Plan
from neurosurgery.run.study import Growth, Needs, Study
from neurosurgery.settings import identity
from neurosurgery.settings.declare import Settings
from neurosurgery.settings.identity import CELLS, Fact, Identity, content_of
from neurosurgery.settings.patching import SCRIPT
from neurosurgery.studies.patching_config import CellsConfig, PatchingConfig
from neurosurgery.studies.patching_folder import PatchingTables, Wanted
from neurosurgery.studies.unit_counts import left_out, numbers

if TYPE_CHECKING:
    # torch and transformers take seconds to import, so bad flags are refused first.
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from neurosurgery.masks.units import Unit
    from neurosurgery.methods.key_units import UnitEffects
    from neurosurgery.models.shapes import ModelSize
    from neurosurgery.run.executors import Executor
    from neurosurgery.run.observations import Observations
    from neurosurgery.run.tasks import Tasks
    from neurosurgery.studies.patching_prompts import TokenisedPrompts

ALL = POSITIONS[0]
REMOVAL = "ablation", CELLS
"""How units are removed, in the identity of a folder, in which it is one way."""


_FEW_PROMPTS = 24
"""Of an operator: enough of them are answered right by most models."""


class PatchingStudy(Study):
    """Heads and MLPs by path patching.

    Args:
        config: the settings.
        given: the pairs of `--prompts`; None to make arithmetic.
    """

    config: PatchingConfig

    def __init__(self, config: PatchingConfig, given: Sequence[PromptPair] | None) -> None:
        super().__init__(config)
        self._given = given
        self._tables = PatchingTables(self.store.root / HEADS_FOLDER / self.store.model)
        self._counts: Mapping[str, list[int]] = {}
        self._units: Sequence[Unit] = ()
        self._is_told = False
        self.with_baseline = config.cells is not None and config.cells.pre_train_eval

    @property
    def _kinds(self) -> list[str]:
        kinds = units_by_effects()
        return [kinds[kind].name for kind in self.config.patch.units]

    @classmethod
    def small(cls, settings: Settings) -> dict[str, Any]:
        """A quarter of the prompts that are made; those of a file are all needed."""
        few = max(settings.num_prompts // 4, min(settings.num_prompts, _FEW_PROMPTS))
        return {} if settings.prompts is not None else {"num_prompts": few}

    def growth(self, settings: Settings) -> Growth:
        """By the prompts."""
        return Growth(settings.num_prompts / self.config.prompts.number)

    def facts(self) -> Identity:
        """Prompts and metric; with cells, how units are removed."""
        config = self.config
        content = None
        if self._given is not None:
            text = json.dumps([asdict(pair) for pair in self._given])
            content = content_of(hashlib.sha256(text.encode()).hexdigest())
        source = Path(config.prompts.file or "").name
        found = config.settings.facts(identity.EFFECTS)
        found |= [Fact("prompts", content, identity.EFFECTS, source)]
        return found if config.cells is None else found | self._removal(config.cells)

    def _removal(self, cells: CellsConfig) -> list[Fact]:
        ablation = self.config.patch.ablation
        removal = cells.removal(ablation)
        there = self.store.identity.value(*REMOVAL) or removal
        removed = any(key.edit and key.edit.removes for key in self.store.edited(cells_of(SCRIPT)))
        if removed and removal not in (None, there) and not self.config.output.overwrite:
            flag, value = ("--scalar", "0") if cells.scalars else ("--ablation", ablation)
            reason = (
                f"the units in {self.store.root} are removed by {there}, and a folder holds one "
                "way; choose another --save_path, or --overwrite"
            )
            raise UsageError(flag, value, reason)
        setting, about = REMOVAL
        return [] if removal is None else [Fact(setting, removal, about)]

    def read_configuration(self, architecture: PretrainedConfig, commit: str | None) -> None:
        """Refuse numbers of units that the model has not, as far as its configuration tells."""
        there = {} if self.config.output.overwrite else counted_units(self.store)
        told = {kind: UNITS[kind].count(architecture) for kind in self._kinds}
        self._take_counts(there or told)

    def _take_counts(self, sizes: Mapping[str, int]) -> None:
        self._sizes = {kind: sizes[kind] for kind in self._kinds if sizes.get(kind)}
        top = self.config.patch.top
        self._counts = {kind: numbers(top, size, kind) for kind, size in self._sizes.items()}

    def read_tokens(self, tokenizer: PreTrainedTokenizerBase, tests: Tasks | None) -> None:
        """Make the prompts, and look which of the tests' documents are among them."""
        from neurosurgery.data.overlap import identified, sample_record
        from neurosurgery.data.used import READ_WITH_CARE, compare, overlap_table
        from neurosurgery.studies.patching_prompts import tokenised_prompts

        self._asked: TokenisedPrompts = tokenised_prompts(tokenizer, self.config, self._given)
        if tests is None:
            return
        prompts = [sample_record(pair.source.prompt) for pair in self._asked.tokens]
        compared = compare("prompts", identified(prompts), tests.records())
        self.overlap = overlap_table(compared.rows_of_tasks(left_out=False))
        line = compared.line("prompts", READ_WITH_CARE)
        self.lines = [] if line is None else [line]

    def keys(self) -> tuple[CellKey, ...]:
        """The cells; none without tasks."""
        cells = self.config.cells
        return () if cells is None else head_keys(cells, self.config.patch.ablation, self._counts)

    def is_done(self, plan: Plan) -> bool:
        """Whether cells, effects, tables and points are there."""
        from neurosurgery.studies.patching_groups import groups_of

        names = [AGREEMENT, *([ATTENTION] if HEAD in self._kinds else [])]
        if len(groups_of(self._asked.tokens).names) > 1:
            names.append(TRANSFER)
        return (
            plan.is_done
            and not self.config.output.overwrite
            and (units := counted_units(self.store)).keys() == set(self._kinds)
            and self._tables.has(EFFECTS, sum(units.values()))
            and all(map(self._tables.has, names))
            and not self._tables.missing(self._wanted())
        )

    def cells_text(self, method: str, plan: Plan) -> str:
        """How many cells of a method there are, and what makes them."""
        text, cells = super().cells_text(method, plan), self.config.cells
        if cells is None:
            return text
        edits = len(cells.edits(self.config.patch.ablation))
        return (
            f"{text}: {cells.num_repeats} repeats × {len(self._counts[METHODS[method].unit])} "
            f"numbers × {edits} edit{'s' * (edits > 1)}"
        )

    def plan_lines(self, plan: Plan) -> Iterator[str]:
        """Prompts, effects and knock-outs; how many prompts the model answers is not known."""
        from neurosurgery.prompts.dropped import dropped_text

        patch, tokens = self.config.patch, self._asked.tokens
        found_on = round(len(tokens) * (1 - self._asked.held_out))
        held_out = len(tokens) - found_on
        yield f"prompts      {self._asked.tally.text().removeprefix('prompts: ')}"
        yield (
            "             of those that the model answers right, at most "
            f"{found_on} to find units with and {held_out} held out"
        )
        for line in dropped_text(self._asked.dropped):
            yield f"             {line}"
        names = ", ".join(f"{self._sizes.get(k, 'unknown')} {UNITS[k].plural}" for k in self._kinds)
        is_there = bool(counted_units(self.store)) and not self.config.output.overwrite
        passes = "done" if is_there else "2 forward passes a prompt, the rest without attention"
        yield f"effects      {names}: {passes}"
        for line in self._left_out():
            yield f"             {line}"
        points = "; ".join(
            f"{' '.join(map(str, counts))} of {self._sizes[kind]} {UNITS[kind].plural}"
            for kind, counts in self._counts.items()
        )
        wanted = self._wanted()
        missing = wanted if self.config.output.overwrite else self._tables.missing(wanted)
        draws = sum(int(str(point["draws"])) for point in missing)
        yield (
            f"knock-out    {points}: key units, and {patch.num_draws} draws of random ones; "
            f"{len(wanted)} points ({len(wanted) - len(missing)} done), "
            f"{draws + bool(missing)} × {held_out} prompts"
        )

    def memory(self, plan: Plan, size: ModelSize) -> Needs:
        """A batch of prompts whose activations stay in every layer; chain and curve need less."""
        from neurosurgery.models.devices import choose_device
        from neurosurgery.studies.patching_bench import BATCH_TOKENS

        longest = max((len(pair.prompt_ids) for pair in self._asked.tokens), default=0)
        device = choose_device(self.config.model).type
        tokens = BATCH_TOKENS.get(device, BATCH_TOKENS["cpu"])
        tokens = min(max(tokens, longest), 2 * longest * len(self._asked.tokens))
        return Needs({}, {"prompts": tokens * (size.layers * size.passing + size.remembered)})

    def _left_out(self) -> list[str]:
        top = self.config.patch.top
        lines = (left_out(top, size, kind) for kind, size in self._sizes.items())
        return [line for line in lines if line]

    def check_model(self, executor: Executor) -> None:
        """Find the units, ask the prompts, and refuse what the model cannot give."""
        from neurosurgery.studies import patching_bench

        self._units, self._prompts = self._ask(executor, patching_bench.found)
        self._take_counts({kind: _count(self._units, kind) for kind in self._kinds})
        cells, ablation = self.config.cells, self.config.patch.ablation
        scaled = cells is not None and any(e.kind == SCALE for e in cells.edits(ablation))
        if scaled and not all(unit.slices for unit in self._units):
            reason = "an MLP of experts has no single output projection; it can be knocked out only"
            raise UsageError("--units", " ".join(self.config.patch.units), reason)

    def _ask(self, executor: Executor, function: Any, *arguments: Any) -> Any:
        """What one of the bench's functions gives."""
        from neurosurgery.run.executors import Call

        name = f"path patching: {function.__name__}"
        call = Call(name, function, (self._asked, *arguments))
        [(_, found)] = executor.call([call])
        return found

    def observe(self, executor: Executor, plan: Plan) -> Observations | None:
        """Effects, tables and the curve; with cells, what these are made from."""
        from neurosurgery.methods.key_units import effect_table
        from neurosurgery.studies.patching_groups import agreement_of_groups

        for line in (*self._left_out(), self._prompts.text):
            say(line)
        self._tell_dropped()
        effects = self._effects(executor)
        self._tables.write(EFFECTS, effect_table(effects))
        seed = self.config.patch.random_state
        agreement = agreement_of_groups(effects, self._counts, self._prompts.found_on, seed)
        self._tables.write(AGREEMENT, agreement)
        self._curves(executor, effects)
        self._more_tables(executor, effects)
        self._tell()
        return None if self.config.cells is None else self._observations(executor, plan)

    def _tell_dropped(self) -> None:
        """Print the first prompts of a file that cannot be used; a table has all."""
        from neurosurgery.prompts.dropped import dropped_table, dropped_text

        dropped = self._prompts.dropped
        for line in dropped_text(dropped):
            say(line)
        if dropped:
            self._tables.write(DROPPED, dropped_table(dropped))
            say(f"all {len(dropped)} with their tokens: {self._tables.path / DROPPED}")

    def _effects(self, executor: Executor) -> UnitEffects:
        """The effects of every unit: kept ones where they are there."""
        from neurosurgery.methods.key_units import UnitEffects
        from neurosurgery.studies import patching_bench

        kept, prompts = read_effects(self.store), len(self._prompts.found_on)
        names = {unit.name for unit in self._units}
        if kept is None or kept.keys() != names or any(len(e) != prompts for e in kept.values()):
            found = self._ask(executor, patching_bench.effects)
            kept = {
                unit.name: row for unit, row in zip(found.units, found.effects.cpu(), strict=True)
            }
            write_effects(self.store, kept)
            how_long = f"{len(kept)} units, {prompts} prompts"
            if found.used == "chain":
                say(
                    "effects computed without attention, largest deviation from the definition "
                    f"{found.deviation:.1e} of the logits' height; {how_long}"
                )
            else:
                say(f"effects by a forward pass for each unit ({found.reason}); {how_long}")
        return UnitEffects.by_name(self._units, kept)

    def _wanted(self) -> list[Wanted]:
        """The points of the curves of every kind."""
        patch = self.config.patch
        return [
            {"kind": kind, "group": group, "number": number, "draws": draws}
            | {"ablation": patch.ablation, "positions": patch.positions}
            for kind, counts in self._counts.items()
            for number in counts
            for group, draws in ((KEY_UNITS, 1), (RANDOM_UNITS, patch.num_draws))
        ]

    def _curves(self, executor: Executor, effects: UnitEffects) -> None:
        """Compute the points that are not there; each is on disk as soon as it is back."""
        from neurosurgery.run.executors import Call
        from neurosurgery.studies import patching_bench

        ranked = {kind: effects.ranked(kind) for kind in self._counts}
        missing = self._tables.missing(self._wanted())
        calls = {}
        for point in missing:
            arguments = (self._asked, ranked[str(point["kind"])], point)
            name = f"knock-out: {point['number']} {point['kind']}, {point['group']}"
            calls[Call(name, patching_bench.point, arguments)] = point
        with progress(total=len(calls), desc="knock-out", unit="point") as bar:
            for call, found in executor.call(list(calls)):
                self._tables.add(calls[call] | found)
                bar.update()
        if missing:
            self._tables.sort(missing)

    def _more_tables(self, executor: Executor, effects: UnitEffects) -> None:
        """How units transfer between groups of prompts, and what the key heads look at."""
        from neurosurgery.studies import patching_bench
        from neurosurgery.studies.patching_groups import COMPARED, transfer_of_groups

        def answers(units: Sequence[Unit]) -> list[bool]:
            right: list[bool] = self._ask(executor, patching_bench.answers, units)
            return right

        moved = transfer_of_groups(effects, next(iter(self._counts)), self._prompts, answers)
        if len(moved):
            self._tables.write(TRANSFER, moved)
        if HEAD in self._kinds:
            key = effects.ranked(HEAD)[:COMPARED]
            self._tables.write(ATTENTION, self._ask(executor, patching_bench.attention, key))

    def _tell(self) -> None:
        """Print what was found, from the folder's files."""
        from neurosurgery.studies.patching_text import agreement_text, found_text, knock_out_text

        effects = read_effects(self.store) or {}
        prompts = max((len(of_unit) for of_unit in effects.values()), default=0)
        table = self._tables.read(EFFECTS)
        say("\n".join(found_text(table, self.config.patch.metric, prompts)))
        say("\n".join(agreement_text(self._tables.read(AGREEMENT))))
        say("\n".join(knock_out_text(self._tables.points_of(self._wanted()))))
        self._is_told = True

    def _observations(self, executor: Executor, plan: Plan) -> Observations:
        from neurosurgery.run.observations import Observations
        from neurosurgery.studies import patching_bench

        vectors, cells = {}, self.config.cells
        if cells and any(key.edit and key.edit.kind != SCALE for key in plan.pending):
            vectors = self._ask(executor, patching_bench.vectors, cells.num_repeats)
        return Observations(
            seed=self.config.patch.random_state,
            effects=read_effects(self.store),
            vectors=vectors,
        )

    @property
    def origin(self) -> Mapping[str, object]:
        """How units were found, and what was measured with them."""
        patch, cells = self.config.patch, self.config.cells
        found: dict[str, object] = {
            "seed": patch.random_state,
            "num_prompts": len(self._prompts.found_on),
            "metric": patch.metric,
        }
        if cells is not None and any(e.kind != SCALE for e in cells.edits(patch.ablation)):
            # Nobody should take a model pruned by this mask for the one that was measured.
            by = "means" if patch.ablation == "mean" else "resampling"
            found["evaluated_as"] = f"knocked out by {by}, which is not pruning"
        return found

    def notes(self) -> Iterator[str]:
        """Where the grid's cells differ from the curve."""
        if self.config.patch.positions != ALL:
            yield "in the cells of the grid units are edited at every position"

    def publish(self) -> None:
        """Draw the figures."""
        from neurosurgery.report.figures.figure import save
        from neurosurgery.report.figures.heads import plot_heads

        if not self._is_told:
            self._tell()
        for figure in plot_heads(read_heads(self._tables.path), self.config.patch.metric):
            save(figure, self._tables.path)
        say(f"\ntables and figures in {self._tables.path}")


def head_keys(
    config: CellsConfig, ablation: str, numbers: Mapping[str, Sequence[int]]
) -> tuple[CellKey, ...]:
    """All cells: repeat × method × number of units × edit.

    Args:
        config: repeats and edits.
        ablation: what a knock-out puts in a unit's place.
        numbers: kind of unit to the numbers of units.
    """
    return tuple(
        CellKey(SelectionKey(method, size=float(number), repeat=repeat), edit)
        for repeat in range(config.num_repeats)
        for method in config.methods
        for number in numbers.get(METHODS[method].unit, ())
        for edit in config.edits(ablation)
    )


def _count(units: Sequence[Unit], kind: str) -> int:
    return sum(unit.kind == kind for unit in units)
