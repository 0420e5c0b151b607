"""Every method by name, and what other modules ask about them. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from neurosurgery.activations.kinds import OF_SAMPLES
from neurosurgery.methods import experts, given, heads, lape, magnitude, mathneuro, snip, wanda
from neurosurgery.methods.base import DRAWS, RANDOM, Method

if TYPE_CHECKING:
    from neurosurgery.masks.selection import Selection
    from neurosurgery.methods.evidence import Evidence
    from neurosurgery.methods.keys import SelectionKey

METHODS: dict[str, Method] = {
    method.name: method
    for module in (mathneuro, wanda, lape, heads, snip, magnitude, experts, given)
    for method in module.METHODS
}
"""Every method by name, in the order of legends and tables."""

MATHNEURO = mathneuro.MATHNEURO.name
"""The method of the paper, whose figures and texts stand in the model card and the report."""

DEFAULT_METHOD = MATHNEURO
"""What finds a skill where no method is named."""

TRAINED_BY_DEFAULT = tuple(method.name for method in mathneuro.METHODS if method.is_named)
"""What `FineTune.py` trains without `--selection`."""


def select(evidence: Evidence, key: SelectionKey) -> Selection:
    """The selection of one cell; the model must be unedited.

    Raises:
        RunError: a weight is not finite.
    """
    return METHODS[key.method].select(evidence, key)


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
    """The methods whose masks are as large as those of another method."""
    return {method.name for method in METHODS.values() if method.draw or method.adapter}


def without_own_counts() -> set[str]:
    """The methods that do not decide the number of weights in each matrix."""
    return {method.name for method in METHODS.values() if not method.own_counts}


def methods_of(script: str) -> tuple[str, ...]:
    """The methods of a script that are called by name. They share their size flag."""
    return tuple(name for name in cells_of(script) if METHODS[name].is_named)


def cells_of(script: str) -> tuple[str, ...]:
    """The methods whose cells a script makes: those called by name, and the twins of all."""
    return tuple(name for name, method in METHODS.items() if method.script == script)


def twin_of(name: str, draw: str) -> str:
    """The twin of a method; empty where it has none."""
    found = (m.name for m in METHODS.values() if m.draw == draw and m.basis.name == name)
    return next(found, "")


def twin_basis(name: str) -> str:
    """The method that a twin is of; empty for a method that is none."""
    return METHODS[name].basis.name if name in METHODS and METHODS[name].draw else ""


def is_named(name: str) -> bool:
    """Whether users call a method by its name; an unknown one is."""
    return name not in METHODS or METHODS[name].is_named


def control_of(name: str) -> str:
    """The method that takes as many at random; empty where there is none."""
    return twin_of(name, RANDOM)


def with_twins(methods: Iterable[str], draws: Collection[str]) -> tuple[str, ...]:
    """Some methods, each followed by its twins of these kinds, without repetition."""
    found = dict.fromkeys(methods)
    kinds = [draw for draw in DRAWS if draw in draws]
    together = (each for name in found for each in (name, *(twin_of(name, d) for d in kinds)))
    return tuple(dict.fromkeys(name for name in together if name))


def method_rank(name: str) -> tuple[int, str]:
    """Sort key for legends and tables; unknown methods come last, by name."""
    known = list(METHODS)
    return known.index(name) if name in METHODS else len(known), name


def statistics_of(methods: Collection[str]) -> tuple[str, ...]:
    """The kinds of statistics of samples that these methods need, without repetition."""
    kinds = (METHODS[name].statistics for name in methods)
    return tuple(kind for kind in dict.fromkeys(kinds) if kind in OF_SAMPLES)
