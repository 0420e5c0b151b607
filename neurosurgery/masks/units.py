"""Units: the named parts of a model that a method selects, and where in the model they are.

A unit is what a selection is made of where single weights are not: an MLP neuron now. It knows the
slices of the parameters that are its own, and the site where its activation can be seen.
"""

from __future__ import annotations

import io
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from neurosurgery.masks.mask import ParameterMask, Shapes

_LAYER = re.compile(r"(?:^|\.)(\d+)\.")


_UNIT_COLUMNS = ("kind", "layer", "module", "index", "belongs", "entropy")


class Place(NamedTuple):
    """Where a parameter is: its layer, None for what is in none (`lm_head`), and its kind."""

    layer: int | None
    kind: str


class Slice(NamedTuple):
    """Entries `start` to `stop` of one dimension of a parameter."""

    parameter: str
    dimension: int
    start: int
    stop: int


class Site(NamedTuple):
    """Where a unit's activation can be seen: some features of a module's `input` or `output`."""

    module: str
    side: str
    start: int
    stop: int


@dataclass(frozen=True)
class Unit:
    """A named part of a model.

    `index` counts the units of a kind within their module, from 0.
    """

    kind: str
    layer: int | None
    module: str
    index: int
    slices: tuple[Slice, ...]
    site: Site


def place_of(parameter: str) -> Place:
    """Layer and kind of a parameter or module: the first number in its name, and what follows it.

    The numbers of experts are left out, so that the experts of a layer are one kind.
    """
    name = parameter.removesuffix(".weight")
    layer = _LAYER.search(name)
    if layer is None:
        return Place(None, name)
    rest = name[layer.end() :]
    return Place(int(layer.group(1)), ".".join(p for p in rest.split(".") if not p.isdigit()))


def layer_order(layer: int | None) -> float:
    """Sorts layers; what is in none comes last."""
    return math.inf if layer is None else layer


def short_kinds(kinds: Sequence[str]) -> dict[str, str]:
    """The last part of every kind's name, or all of it where the last part is not unique."""
    last = [kind.rpartition(".")[2] for kind in kinds]
    return {
        kind: name if last.count(name) == 1 else kind
        for kind, name in zip(kinds, last, strict=True)
    }


def units_mask(units: Sequence[Unit], shapes: Shapes) -> ParameterMask:
    """The mask of all weights that belong to the units.

    Args:
        units: of a model with these parameters.
        shapes: name to shape of every parameter that the mask is to cover.

    Raises:
        KeyError: a unit owns part of a parameter that is not among them.
    """
    owned: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for unit in units:
        for part in unit.slices:
            owned[part.parameter][part.dimension] += range(part.start, part.stop)
    masks = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in shapes.items()}
    for name, by_dimension in owned.items():
        for dimension, places in by_dimension.items():
            masks[name].index_fill_(dimension, torch.tensor(places), value=True)
    return ParameterMask.from_tensors(masks)


def unit_table(
    units: Sequence[Unit], columns: Mapping[str, Sequence[object]] | None = None
) -> pd.DataFrame:
    """One row per unit: `kind layer module index`, then the columns given, in the units' order."""
    return pd.DataFrame(
        {
            "kind": [unit.kind for unit in units],
            "layer": pd.array([unit.layer for unit in units], dtype="Int64"),
            "module": [unit.module for unit in units],
            "index": [unit.index for unit in units],
            **(columns or {}),
        }
    )


def unit_csv(table: pd.DataFrame, origin: Mapping[str, object]) -> str:
    """A unit table as the text of a CSV file, with `origin` as columns of one value each."""
    text = io.StringIO()
    full = table.copy()
    for name, value in origin.items():
        full[name] = value
    full.to_csv(text, index=False, float_format="%.10g", lineterminator="\n")
    return text.getvalue()


def read_unit_csv(path: Path) -> pd.DataFrame | None:
    """Read what `unit_csv` gave; None where there is no such file or it holds something else."""
    if not path.is_file():
        return None
    try:
        table = pd.read_csv(path)
    except (ValueError, UnicodeDecodeError):
        return None
    return table if set(_UNIT_COLUMNS) <= set(table.columns) else None
