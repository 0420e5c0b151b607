"""The methods: one descriptor each. How a method selects is in `locate/selectors.py`."""

from __future__ import annotations

from dataclasses import dataclass

MATHNEURO = "mathneuro"
RANDOM = "random"
WANDA = "wanda"
LAPE = "lape"

ACTIVATION_NORMS = "activation_norms"
FIRING_COUNTS = "firing_counts"

NEURON = "neuron"


@dataclass(frozen=True)
class Method:
    """What the rest of the suite has to know of a method.

    Attributes:
        name: on the command line, in tables and in paths.
        label: in texts and figures.
        script: the script that offers it.
        statistics: the activation statistics that it needs; methods share them.
        against_a_set: it has one selection for every set that the skill is told apart from.
        over_all_sets: its selection depends on every calibration set.
        own_counts: it decides how many weights of each matrix it takes. False for a copy of another
            method's counts and for a fixed share of every matrix: then "where" says nothing.
        twin: it copies another method's counts, so that its size says nothing either.
        unit: the kind of unit that it selects; empty for single weights.
        size_flag: the flag of its size; its name without dashes is the size's name.
        size_help: what the size is a fraction of.
        num_samples: the published default of `--num_samples`.
        folder: its part of a result's path; None means its name.
        stem: a selection's file name, with the fields `against size repeat`.
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
    size_flag: str = "--proportion"
    size_help: str = "top fractions of every weight matrix"
    num_samples: int = 500
    folder: str | None = None
    stem: str = "{against}calculate{size}_run{repeat}"

    @property
    def size_name(self) -> str:
        """What its size is called: `proportion`, `ratio`."""
        return self.size_flag.removeprefix("--")


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(MATHNEURO, "MathNeuro", "MathNeuro.py", against_a_set=True, folder=""),
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
    )
}
"""Every method by name, in the order of legends and tables."""


def method_label(name: str) -> str:
    """A method's name in texts; an unknown one is its own label."""
    return METHODS[name].label if name in METHODS else name


def twins() -> set[str]:
    """The methods that copy another one's counts."""
    return {method.name for method in METHODS.values() if method.twin}


def without_own_counts() -> set[str]:
    """The methods of which it says nothing how their weights divide over the matrices."""
    return {method.name for method in METHODS.values() if not method.own_counts}


def methods_of(script: str) -> tuple[str, ...]:
    """The methods that a script offers. They share their statistics and the flag of their size."""
    return tuple(method.name for method in METHODS.values() if method.script == script)


def method_rank(name: str) -> tuple[int, str]:
    """Where a method stands in legends and tables; unknown ones come last, by name."""
    known = list(METHODS)
    return known.index(name) if name in METHODS else len(known), name


def statistics_of(methods: tuple[str, ...]) -> tuple[str, ...]:
    """The kinds of statistics that these methods need, each once."""
    return tuple(dict.fromkeys(METHODS[name].statistics for name in methods))
