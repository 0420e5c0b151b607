"""One descriptor per method. `locate/selectors.py` holds the selection itself."""

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
    """The facts about a method that other modules need.

    Attributes:
        name: its name on the command line, in tables and in paths.
        label: its name in texts and figures.
        script: the script that runs it.
        statistics: the kind of activation statistics that it needs; methods may share one.
        against_a_set: it makes one selection for every set that it compares the skill with.
        over_all_sets: its selection depends on every calibration set.
        own_counts: it decides the number of weights in each matrix. If False (copied counts or a
            fixed share), their distribution over the matrices carries no information.
        twin: it copies another method's counts, so that its size carries no information either.
        unit: the kind of unit that it selects; empty for single weights.
        size_flag: the flag that sets its size.
        size_help: the help text of that flag.
        num_samples: the published default of `--num_samples`.
        folder: its folder in a result's path; None means its name.
        stem: template of a selection's file name, with the fields `against size repeat`.
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
        """The name of its size: `proportion` or `ratio`."""
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
    """The method's label; an unknown method keeps its name."""
    return METHODS[name].label if name in METHODS else name


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


def statistics_of(methods: tuple[str, ...]) -> tuple[str, ...]:
    """The kinds of statistics that these methods need, without repetition."""
    return tuple(dict.fromkeys(METHODS[name].statistics for name in methods))
