"""What a script asks of a model: the part of a run that differs between scripts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from neurosurgery.results.keys import CellKey
from neurosurgery.results.store import ResultStore
from neurosurgery.run.plan import Plan
from neurosurgery.settings.declare import Settings
from neurosurgery.settings.experiment import RunConfig
from neurosurgery.settings.identity import Identity

if TYPE_CHECKING:
    # torch and transformers take seconds to import, so bad flags are refused first.
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from neurosurgery.models.shapes import ModelSize
    from neurosurgery.run.executors import Executor
    from neurosurgery.run.observations import Observations
    from neurosurgery.run.tasks import Tasks


class Growth(NamedTuple):
    """How many times the work of a small study (`Study.small`) another one is.

    Attributes:
        observing: the work of observing.
        cell: that of a cell besides asking it.
    """

    observing: float = 1.0
    cell: float = 1.0


class Needs(NamedTuple):
    """Bytes of memory, by what takes them.

    Attributes:
        kept: what is there all the time.
        passing: what is there for a while, one after the other.
    """

    kept: Mapping[str, int] = {}
    passing: Mapping[str, int] = {}


class Study(ABC):
    """A script's cells, what they are made from, and what the script adds to a run.

    `run.run_study` calls the methods in the order in which they stand here. Those before
    `check_model` know no weights; they leave what they find in the study.

    Attributes:
        config: the settings.
        store: the folder's files.
        overlap: which samples repeat tests (`data.used.overlap_table`), once compared.
        lines: what the user should know of that.
        with_baseline: whether the unedited model is a cell.
    """

    config: RunConfig
    overlap: pd.DataFrame | None = None
    lines: Sequence[str] = ()
    with_baseline = True

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.store = ResultStore(config.output.save_path, config.model.label)

    def facts(self) -> Identity:
        """What results depend on besides model, settings and tasks, as far as it is known.

        It is asked again after each of the next steps.

        Raises:
            UsageError: the folder holds something that excludes this run.
        """
        return Identity()

    def read_configuration(  # noqa: B027
        self, architecture: PretrainedConfig, commit: str | None
    ) -> None:
        """Check, and read, what the model's configuration tells.

        Raises:
            UsageError: a setting does not fit the model.
        """

    def read_tokens(self, tokenizer: PreTrainedTokenizerBase, tests: Tasks | None) -> None:  # noqa: B027
        """Tokenise what needs it, and compare samples with the documents that the run asks.

        Raises:
            UsageError: samples or prompts cannot be used.
        """

    @classmethod
    def small(cls, settings: Settings) -> dict[str, Any]:
        """Values of settings with which a study is as these, and its cells are made sooner."""
        return {}

    def growth(self, settings: Settings) -> Growth:
        """How much more work a study with these settings is; this one has read its samples."""
        return Growth()

    @abstractmethod
    def keys(self) -> tuple[CellKey, ...]:
        """All cells, in the order of computation."""

    def is_done(self, plan: Plan) -> bool:
        """Whether nothing is left to compute."""
        return plan.is_done

    def cells_text(self, method: str, plan: Plan) -> str:
        """How many cells of a method there are, for `--dry_run`."""
        mine = sum(key.method == method for key in plan.keys)
        to_do = sum(key.method == method for key in plan.pending)
        return f"{mine} ({mine - to_do} done, {to_do} to do)"

    def plan_lines(self, plan: Plan) -> Iterator[str]:
        """What `--dry_run` prints of the work besides cells."""
        yield from ()

    def memory(self, plan: Plan, size: ModelSize) -> Needs:
        """What is needed besides the weights and to evaluate, for `--dry_run`."""
        return Needs()

    def writes(self, plan: Plan, size: ModelSize) -> dict[str, int]:
        """Bytes that cells would write besides their records, by what asks for them."""
        from neurosurgery.run.plan_cost import disk_of

        return disk_of(plan, self, size)

    @property
    def texts(self) -> Mapping[str, Sequence[str]]:
        """Samples by set, whose tokens must have rows in the model's embedding."""
        return {}

    def check_model(self, executor: Executor) -> None:  # noqa: B027
        """Check what only the loaded model tells; nothing is written yet. Cells may follow.

        Raises:
            UsageError: it cannot be used for this study.
        """

    def start(self) -> None:  # noqa: B027
        """Write what stands in the folder from the beginning; the model is known to be usable."""

    @abstractmethod
    def observe(self, executor: Executor, plan: Plan) -> Observations | None:
        """Compute, and keep, what selections are made from and what the study adds; say of it.

        Raises:
            UsageError, RunError: it cannot be computed; what is finished is kept.
        """

    @property
    def origin(self) -> Mapping[str, object]:
        """The provenance that all masks share, besides the model's."""
        return {}

    def notes(self) -> Iterator[str]:
        """What the user should know before the cells are computed."""
        yield from ()

    def publish(self) -> None:  # noqa: B027
        """Print, and draw, what the study adds, from the folder's files."""
