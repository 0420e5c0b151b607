"""What a method is: the facts that other modules need, and how it selects. Imports no torch.

A method ranks weights (`OfWeights`) or units. Its ranking gives three selections: `select` takes
the top of it, `at_random` as many at random, and `least` as many of the least important. A `Twin`
makes a method of its own of one of the last two, so that a control exists for every method.

What needs torch is imported when something is selected: command lines are read without it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from neurosurgery.activations.kinds import ACTIVATION_NORMS, OF_SAMPLES
from neurosurgery.masks.kinds import UNITS

if TYPE_CHECKING:
    from neurosurgery.masks.mask import ParameterMask
    from neurosurgery.masks.selection import Selection
    from neurosurgery.methods.evidence import Evidence
    from neurosurgery.methods.keys import SelectionKey

OF_EACH_MATRIX = "fraction of each matrix"
WHOLE = "whole"
"""What a size counts, in the tables' column `size_unit`; the others name units (`UNITS`)."""

RANDOM = "random"
BOTTOM = "bottom"
DRAWS = (RANDOM, BOTTOM)
"""The kinds of twins: as many at random, or as many of the least important."""

TRAINED_ONLY = "FineTune.py"
"""The script whose methods can only be trained."""


class Needed(NamedTuple):
    """Statistics of one calibration set; `size` for those that are kept for one size alone."""

    kind: str
    name: str
    size: float | None = None


@dataclass(frozen=True)
class Method(ABC):
    """The facts about a method that other modules need, and its selection.

    Attributes:
        name: its name on the command line, in tables and in paths.
        label: its name in texts and figures.
        script: the script that runs it.
        statistics: the kind of activation statistics that it needs; methods may share one. Empty
            for a method that needs none.
        against_a_set: it makes one selection for every set that it compares the skill with.
        over_all_sets: its selection depends on every calibration set.
        own_counts: it decides the number of weights in each matrix. If False (copied counts or a
            fixed share), their distribution over the matrices carries no information.
        unit: the kind of unit that it selects; empty for single weights.
        counts_units: its size is a number of units; else a fraction.
        size_flag: the flag that sets its size.
        size_help: the help text of that flag.
        num_samples: the published default of `--num_samples`.
        folder: its folder in a result's path; None means its name.
        stem: template of a selection's file name, with the fields `against size repeat`.
        given: its masks are files of the user's.
        adapter: its weights are not selected, but added by this method of PEFT.
        of_one_size: what its only size is called in texts; empty for methods with sizes.
        is_named: users call it by name; the other twins come with `--twins`.
        by_default: its script runs it without `--methods`.
        one_repeat: it draws nothing, so that every repeat would select the same.
    """

    name: str
    label: str
    script: str
    statistics: str = ACTIVATION_NORMS
    against_a_set: bool = False
    over_all_sets: bool = False
    own_counts: bool = True
    unit: str = ""
    counts_units: bool = False
    size_flag: str = "--proportion"
    size_help: str = "top fractions of every weight matrix"
    num_samples: int = 500
    folder: str | None = None
    stem: str = "{against}calculate{size}_run{repeat}"
    given: bool = False
    adapter: bool = False
    of_one_size: str = ""
    is_named: bool = True
    by_default: bool = True
    one_repeat: bool = False

    @property
    def basis(self) -> Method:
        """The method that a twin is of; any other method itself."""
        return self

    @property
    def draw(self) -> str:
        """The kind of twin; empty for a method that is none."""
        return ""

    @property
    def size_name(self) -> str:
        """The name of its size: `proportion`, `ratio` or `top`."""
        return self.size_flag.removeprefix("--")

    @property
    def size_unit(self) -> str:
        """What its size counts, in the tables' column `size_unit`."""
        if self.of_one_size:
            return WHOLE
        if not self.unit:
            return OF_EACH_MATRIX
        units = UNITS[self.unit].plural
        return units if self.counts_units else f"fraction of {units}"

    def size_text(self, size: float) -> str:
        """A size in texts: the methods with a fraction share one word, so that they compare."""
        if self.of_one_size:
            return self.of_one_size
        return f"top {size:g}" if self.counts_units else f"proportion {size:g}"

    def needs(self, key: SelectionKey, names: Sequence[str]) -> Iterator[Needed]:
        """The statistics that a selection is made from; `names` are those of all sets."""
        if self.statistics in OF_SAMPLES:
            sets = names if self.over_all_sets else filter(None, (key.skill, key.against))
            yield from (Needed(self.statistics, name) for name in sets)

    def least_needs(self, key: SelectionKey) -> Iterator[Needed]:
        """What `least` needs besides."""
        yield from ()

    def check_sizes(  # noqa: B027
        self, sizes: Sequence[float], widths: Callable[[], Mapping[str, int]]
    ) -> None:
        """Refuse sizes that a model's matrices cannot have.

        Args:
            sizes: those of the grid.
            widths: gives the number of inputs of every scored matrix, by parameter name.

        Raises:
            UsageError: names the size.
        """

    @abstractmethod
    def select(self, evidence: Evidence, key: SelectionKey) -> Selection:
        """The selection of one cell; the model must be unedited.

        Raises:
            RunError: a weight is not finite.
        """

    def at_random(self, evidence: Evidence, key: SelectionKey) -> Selection:
        """As many at random as `select` takes."""
        raise NotImplementedError(f"{self.name} has no random twin")

    def least(self, evidence: Evidence, key: SelectionKey) -> Selection:
        """As many as `select` takes, of the least important."""
        raise NotImplementedError(f"{self.name} has no bottom twin")


class Ranks(Protocol):
    """The weights of every scored matrix, ranked by their scores."""

    def mask(self, size: float) -> ParameterMask:
        """The largest scores of every matrix, at one of the grid's sizes."""

    def least(self, counts: Mapping[str, int], size: float) -> ParameterMask:
        """The smallest scores of every matrix: as many as `counts` says, which `size` came to."""


class OfMask(Method):
    """A method whose selection is a mask of single weights."""

    @abstractmethod
    def specific(self, evidence: Evidence, key: SelectionKey) -> tuple[ParameterMask, int | None]:
        """The mask, and the size of the skill's top-K; None where it is of none."""

    def select(self, evidence: Evidence, key: SelectionKey) -> Selection:
        """The mask."""
        from neurosurgery.masks.selection import Selection

        return Selection(*self.specific(evidence, key))

    def at_random(self, evidence: Evidence, key: SelectionKey) -> Selection:
        """In every matrix as many random weights; each method, set, size and repeat has its own."""
        from neurosurgery.common.generator import generator
        from neurosurgery.masks.selection import Selection
        from neurosurgery.methods.twins import random_twin

        mask, topk = self.specific(evidence, key)
        role = f"{key.method} twin of {key.skill} at {key.size}"
        draw = generator(evidence.seed, key.repeat, key.against, role)
        return Selection(random_twin(mask, draw), topk)


class OfWeights(OfMask):
    """A method that scores every weight: it takes the top-K of the skill in every matrix.

    One that is `against_a_set` takes off that set's top-K (set difference).
    """

    @abstractmethod
    def ranks(self, evidence: Evidence, name: str, repeat: int) -> Ranks:
        """The ranking by the statistics of one set and repeat."""

    def _ranks(self, evidence: Evidence, name: str, repeat: int) -> Ranks:
        # Methods of one class share their scores.
        place = type(self), name, repeat
        return evidence.kept(place, lambda: self.ranks(evidence, name, repeat))

    def specific(self, evidence: Evidence, key: SelectionKey) -> tuple[ParameterMask, int | None]:
        """The skill's top-K minus the other set's, if any, and the size of the skill's top-K."""

        def compute() -> tuple[ParameterMask, int | None]:
            top = mask = self._ranks(evidence, key.skill, key.repeat).mask(key.size)
            if key.against:
                mask = top - self._ranks(evidence, key.against, key.repeat).mask(key.size)
            return mask, top.count()

        # Cells that differ only in the twin or the edit follow each other.
        place = type(self), key.skill, key.against, key.repeat, key.size
        return evidence.last(place, compute)

    def least(self, evidence: Evidence, key: SelectionKey) -> Selection:
        """In every matrix as many weights of the smallest scores for the skill."""
        from neurosurgery.masks.selection import Selection

        mask, topk = self.specific(evidence, key)
        ranks = self._ranks(evidence, key.skill, key.repeat)
        return Selection(ranks.least(mask.counts(), key.size), topk)


@dataclass(frozen=True)
class Twin(Method):
    """A control: as many weights or units as its basis takes, random or least important ones."""

    of: Method = field(kw_only=True)
    kind: str = field(kw_only=True)

    @property
    def basis(self) -> Method:
        """The method that it is the twin of."""
        return self.of

    @property
    def draw(self) -> str:
        """`random` or `bottom`."""
        return self.kind

    def needs(self, key: SelectionKey, names: Sequence[str]) -> Iterator[Needed]:
        """What the basis needs, and what its least important are known from."""
        yield from self.of.needs(key, names)
        if self.kind == BOTTOM:
            yield from self.of.least_needs(key)

    def check_sizes(self, sizes: Sequence[float], widths: Callable[[], Mapping[str, int]]) -> None:
        """As the basis."""
        self.of.check_sizes(sizes, widths)

    def select(self, evidence: Evidence, key: SelectionKey) -> Selection:
        """As many as the basis selects at the same set, size and repeat."""
        choose = self.of.at_random if self.kind == RANDOM else self.of.least
        return choose(evidence, key)


def twin(of: Method, kind: str, **facts: Any) -> Twin:
    """A twin of a method; `facts` replace those that it takes over."""
    taken = {each.name: getattr(of, each.name) for each in fields(Method)}
    # A unit's own name is a common noun, a method's is not.
    noun = UNITS[of.unit].plural if of.counts_units else of.label
    own = {
        "name": f"{kind}_{of.name}",
        "label": f"{kind.capitalize()} {noun}",
        "folder": None,
        "own_counts": False,
        "is_named": False,
        "by_default": False,
        "one_repeat": of.one_repeat and kind == BOTTOM,
    }
    return Twin(**(taken | own | facts), of=of, kind=kind)


def with_its_twins(method: Method) -> tuple[Method, ...]:
    """A method, and its twins of every kind."""
    return method, *(twin(method, kind) for kind in DRAWS)
