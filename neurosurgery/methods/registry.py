"""One descriptor per method. Imports no torch; `methods/selectors.py` holds the selection itself."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from neurosurgery.activations.kinds import ACTIVATION_NORMS, EFFECTS, FIRING_COUNTS, OF_SAMPLES
from neurosurgery.masks.kinds import HEAD, MLP, NEURON, PLURALS

MATHNEURO = "mathneuro"
RANDOM = "random"
WANDA = "wanda"
LAPE = "lape"
HEADS = "heads"
RANDOM_HEADS = "random_heads"
MLPS = "mlps"
ALL = "all"
MASK_FILE = "mask_file"
LORA = "lora"
SHIRA = "shira"

OF_EACH_MATRIX = "fraction of each matrix"
WHOLE = "whole"
"""What a size counts, in the tables' column `size_unit`; the others name units (`PLURALS`)."""


@dataclass(frozen=True)
class Method:
    """The facts about a method that other modules need.

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
        twin: it copies another method's counts, so that its size carries no information either.
        unit: the kind of unit that it selects; empty for single weights.
        counts_units: its size is a number of units; else a fraction.
        size_flag: the flag that sets its size.
        size_help: the help text of that flag.
        num_samples: the published default of `--num_samples`.
        folder: its folder in a result's path; None means its name.
        stem: template of a selection's file name, with the fields `against size repeat`.
        given: its masks are files of the user's.
        adapter: its weights are not selected, but added by this method of PEFT.
        control: the method that takes as many weights at random; empty for methods without one.
        of_one_size: what its only size is called in texts; empty for methods with sizes.
    """

    name: str
    label: str
    script: str
    statistics: str = ACTIVATION_NORMS
    against_a_set: bool = False
    over_all_sets: bool = False
    own_counts: bool = True
    twin: bool = False
    unit: str = ""
    counts_units: bool = False
    size_flag: str = "--proportion"
    size_help: str = "top fractions of every weight matrix"
    num_samples: int = 500
    folder: str | None = None
    stem: str = "{against}calculate{size}_run{repeat}"
    given: bool = False
    adapter: bool = False
    control: str = ""
    of_one_size: str = ""

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
        units = PLURALS[self.unit]
        return units if self.counts_units else f"fraction of {units}"

    def size_text(self, size: float) -> str:
        """A size in texts: the methods with a fraction share one word, so that they compare."""
        if self.of_one_size:
            return self.of_one_size
        return f"top {size:g}" if self.counts_units else f"proportion {size:g}"


TRAINED_ONLY = "FineTune.py"
"""The script whose methods can only be trained."""


def _adapter(name: str, label: str) -> Method:
    return Method(
        name,
        label,
        TRAINED_ONLY,
        over_all_sets=True,
        own_counts=False,
        twin=True,
        adapter=True,
    )


def _by_effects(name: str, label: str, unit: str, *, twin: bool = False) -> Method:
    return Method(
        name,
        label,
        "PathPatching.py",
        statistics=EFFECTS,
        own_counts=not twin,
        twin=twin,
        unit=unit,
        counts_units=True,
        size_flag="--top",
        size_help="numbers of units",
        stem="top{size:g}_run{repeat}",
        control=RANDOM_HEADS if name == HEADS else "",
    )


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            MATHNEURO,
            "MathNeuro",
            "MathNeuro.py",
            against_a_set=True,
            folder="",
            control=RANDOM,
        ),
        Method(
            RANDOM,
            "Random",
            "MathNeuro_Ablations.py",
            against_a_set=True,
            own_counts=False,
            twin=True,
        ),
        Method(WANDA, "Wanda", "MathNeuro_Ablations.py", own_counts=False),
        Method(
            LAPE,
            "LAPE",
            "LAPE.py",
            statistics=FIRING_COUNTS,
            over_all_sets=True,
            unit=NEURON,
            size_flag="--ratio",
            size_help="fractions of the model's neurons to select",
            num_samples=100,
            stem="run{repeat}_ratio{size}",
        ),
        _by_effects(HEADS, "Heads", HEAD),
        _by_effects(RANDOM_HEADS, "Random heads", HEAD, twin=True),
        _by_effects(MLPS, "MLPs", MLP),
        Method(
            ALL,
            "All weights",
            TRAINED_ONLY,
            statistics="",
            own_counts=False,
            of_one_size="all weights",
            stem="run{repeat}",
        ),
        Method(
            MASK_FILE,
            "Mask file",
            TRAINED_ONLY,
            statistics="",
            of_one_size="the whole mask",
            given=True,
            stem="{against}run{repeat}",
        ),
        _adapter(LORA, "LoRA"),
        _adapter(SHIRA, "SHiRA"),
    )
}
"""Every method by name, in the order of legends and tables."""


TRAINED_BY_DEFAULT = (MATHNEURO, RANDOM)
"""What `FineTune.py` trains without `--selection`."""


def method_label(name: str) -> str:
    """The method's label; an unknown method keeps its name."""
    return METHODS[name].label if name in METHODS else name


def size_text(method: str, size: float) -> str:
    """A method's size in texts; an unknown method has a proportion."""
    return METHODS[method].size_text(size) if method in METHODS else f"proportion {size:g}"


def counts_units(method: str) -> bool:
    """Whether the method's size is a number of units."""
    return method in METHODS and METHODS[method].counts_units


def has_one_size(method: str) -> bool:
    """Whether the method has a single size, so that nothing can be drawn against it."""
    return method in METHODS and bool(METHODS[method].of_one_size)


def twins() -> set[str]:
    """The methods that copy the counts of another method."""
    return {method.name for method in METHODS.values() if method.twin}


def without_own_counts() -> set[str]:
    """The methods that do not decide the number of weights in each matrix."""
    return {method.name for method in METHODS.values() if not method.own_counts}


def methods_of(script: str) -> tuple[str, ...]:
    """The methods of a script. They share their statistics and their size flag."""
    return tuple(method.name for method in METHODS.values() if method.script == script)


def method_rank(name: str) -> tuple[int, str]:
    """Sort key for legends and tables; unknown methods come last, by name."""
    known = list(METHODS)
    return known.index(name) if name in METHODS else len(known), name


def statistics_of(methods: Collection[str]) -> tuple[str, ...]:
    """The kinds of statistics of samples that these methods need, without repetition."""
    kinds = (METHODS[name].statistics for name in methods)
    return tuple(kind for kind in dict.fromkeys(kinds) if kind in OF_SAMPLES)
