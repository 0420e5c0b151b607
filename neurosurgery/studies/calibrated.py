"""What grids and trainings share: their selections come from calibration sets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from neurosurgery.activations.batches import default_batch_tokens
from neurosurgery.activations.kinds import OF_GRADIENTS
from neurosurgery.data.calibration import CalibrationSet
from neurosurgery.methods.base import OF_EACH_MATRIX, Needed
from neurosurgery.methods.registry import METHODS
from neurosurgery.models.devices import choose_device
from neurosurgery.results.keys import shown_set
from neurosurgery.results.provenance import facts_of_sets
from neurosurgery.run.plan import Plan, needed_statistics
from neurosurgery.run.study import Growth, Needs, Study
from neurosurgery.settings.declare import Settings
from neurosurgery.settings.experiment import CalibratedConfig
from neurosurgery.settings.identity import Identity

if TYPE_CHECKING:
    # torch and transformers take seconds to import, so bad flags are refused first.
    from transformers import PreTrainedTokenizerBase

    from neurosurgery.data.overlap import Record
    from neurosurgery.models.shapes import ModelSize
    from neurosurgery.run.executors import Executor
    from neurosurgery.run.host import Host
    from neurosurgery.run.observations import Observations
    from neurosurgery.run.tasks import Tasks


_FEW_SAMPLES = 16
"""With which statistics are timed."""
_OF_LARGEST = 1.5
"""What ranking the weights of a matrix takes, in sizes of the largest one in float32."""


class CalibratedStudy(Study):
    """A study that selects by statistics of calibration sets.

    Args:
        config: the settings.
        sets: calibration sets by name.
    """

    config: CalibratedConfig

    def __init__(self, config: CalibratedConfig, sets: Mapping[str, CalibrationSet]) -> None:
        super().__init__(config)
        self.sets = sets
        self.records: Mapping[str, Sequence[Record]] = {}
        self._longest = 0

    @property
    @abstractmethod
    def methods(self) -> Sequence[str]:
        """The methods that select by these sets."""

    @property
    def texts(self) -> Mapping[str, Sequence[str]]:
        """The samples of every set."""
        return {name: found.samples for name, found in self.sets.items()}

    @classmethod
    def small(cls, settings: Settings) -> dict[str, Any]:
        """Statistics of a few samples."""
        return {"num_samples": min(settings.num_samples, _FEW_SAMPLES)}

    def growth(self, settings: Settings) -> Growth:
        """By the samples that are drawn from all sets."""
        seed = self.config.data.random_state
        drawn = [
            sum(
                int(found.multiplicities(one.num_samples, one.num_repeats, seed).any(axis=0).sum())
                for found in self.sets.values()
            )
            for one in (settings, self.config.data)
        ]
        return Growth(drawn[0] / drawn[1])

    def facts(self) -> Identity:
        """The samples of every set, and how many statistics take."""
        return facts_of_sets(self.config.data, self.methods, self.sets)

    def read_tokens(self, tokenizer: PreTrainedTokenizerBase, tests: Tasks | None) -> None:
        """Compare the sets with the documents that the run asks."""
        from neurosurgery.data.used import check_sets

        data = self.config.data
        longest = max((text for found in self.sets.values() for text in found.samples), key=len)
        self._longest = len(tokenizer.encode(longest, verbose=False))
        asked = {} if tests is None else tests.records()
        checked = check_sets(self.sets, data.sources, asked, drop=data.drop_used)
        self.sets, self.records = checked.sets, checked.records
        self.overlap, self.lines = checked.overlap, checked.lines

    @property
    def needs_devices(self) -> str:
        """What needs all weights on devices; empty where nothing does."""
        of_gradients = (METHODS[name].basis.statistics in OF_GRADIENTS for name in self.methods)
        return "a backward pass" if any(of_gradients) else ""

    def check_model(self, executor: Executor) -> None:
        """Refuse weights off the devices where something needs them there, before anything runs."""
        from neurosurgery.run.executors import Call

        if self.needs_devices:
            call = Call("weights on devices", _check_devices, (self.needs_devices,))
            for _ in executor.call([call]):
                pass

    def start(self) -> None:
        """Write how a file of programs is split."""
        if (split := self.sets[self.config.data.math.name].programs) is not None:
            self.store.write_split(split.listing())

    def observe(self, executor: Executor, plan: Plan) -> Observations:
        """Read or compute the statistics of every set."""
        from neurosurgery.run.observations import Observations
        from neurosurgery.run.observe import observe_sets

        data = self.config.data
        needed = needed_statistics(data, plan.to_select)
        return Observations(
            observe_sets(executor, data, self.sets, needed, self.store),
            _sizes_of_rankings(plan),
            data.random_state,
        )

    def notes(self) -> Iterator[str]:
        """Which experts few tokens reach."""
        from neurosurgery.run.routing import few_tokens_text, routing_table

        yield from few_tokens_text(routing_table(self.store), self.config.settings)

    @property
    def origin(self) -> Mapping[str, object]:
        """How samples were drawn."""
        return {"seed": self.config.data.random_state, "num_samples": self.config.data.num_samples}

    def plan_lines(self, plan: Plan) -> Iterator[str]:
        """The passes over every set."""
        total = total_backwards = 0
        data = self.config.data
        missing = [n for n in needed_statistics(data, plan.to_select) if self._is_missing(n)]
        for calibration_set in self.sets.values():
            drawn = calibration_set.multiplicities(
                data.num_samples, data.num_repeats, data.random_state
            )
            unique = int(drawn.any(axis=0).sum())
            kinds = {need.kind for need in missing if need.name == calibration_set.name}
            backwards = kinds & OF_GRADIENTS
            passes = unique * len(kinds - backwards)
            total += passes
            there_and_back = int(np.count_nonzero(drawn)) * len(backwards)
            total_backwards += there_and_back
            shown = shown_set(calibration_set.name, self.config.output.skill_name)
            yield (
                f"scoring      {shown}: {data.num_samples} of "
                f"{len(calibration_set.samples)} samples × {data.num_repeats} repeats = {unique} "
                f"forward passes{'' if passes else ' (not needed)'}"
                f"{f', {there_and_back} forwards and backwards' if there_and_back else ''}"
            )
        back = f" and {total_backwards} forwards and backwards" if total_backwards else ""
        yield f"             {total} forward passes{back} in all, of the base model"

    def memory(self, plan: Plan, size: ModelSize) -> Needs:
        """Statistics, and what a scoring pass and a ranking need."""
        needed = needed_statistics(self.config.data, plan.to_select)
        if not needed:
            return Needs()
        data, model = self.config.data, self.config.model
        tokens = data.batch_tokens or default_batch_tokens(choose_device(model))
        # A layer's activations, and those before and after it.
        passing = {
            "scoring": 2 * tokens * size.passing,
            "ranking": int(_OF_LARGEST * size.largest_matrix),
        }
        if any(need.kind in OF_GRADIENTS for need in needed):
            of_token = size.layers * size.passing + size.logits
            passing["gradients"] = 4 * size.scored + self._longest * of_token
        return Needs({"statistics": self.statistics_bytes(needed, size)}, passing)

    def statistics_bytes(self, needed: Sequence[Needed], size: ModelSize) -> int:
        """Bytes of statistics: a mask of every matrix, or a float64 for each of its inputs."""
        each = (size.packed if need.kind in OF_GRADIENTS else 8 * size.inputs for need in needed)
        return self.config.data.num_repeats * sum(each)

    def writes(self, plan: Plan, size: ModelSize) -> dict[str, int]:
        """Statistics besides."""
        needed = needed_statistics(self.config.data, plan.to_select)
        missing = [need for need in needed if self._is_missing(need)]
        return {"statistics": self.statistics_bytes(missing, size)} | super().writes(plan, size)

    def _is_missing(self, need: Needed) -> bool:
        repeats = self.config.data.num_repeats
        files = self.store.statistics_files(need.kind, need.name, need.size, repeats)
        return self.config.output.overwrite or not all(map(self.store.has_statistics, files))


def _check_devices(host: Host, wanted_by: str) -> None:
    from neurosurgery.models.offload import check_on_devices

    check_on_devices(host.loaded.model, wanted_by)


def _sizes_of_rankings(plan: Plan) -> list[float]:
    """All sizes of top-Ks in the plan; every matrix is ranked once for all of them."""
    ranked = [
        key.selection.size
        for key in plan.to_select
        if key.selection and METHODS[key.method].size_unit == OF_EACH_MATRIX
    ]
    return list(dict.fromkeys(ranked))
