"""Units: named parts of a model that a method selects instead of single weights (MLP neurons).

A unit holds the slices of its parameters, and the site of its activation.
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

from neurosurgery.common.tables import matched, read_table
from neurosurgery.masks.mask import ParameterMask, Shapes
from neurosurgery.models.sites import Site

_LAYER = re.compile(r"(?:^|\.)(\d+)\.")


_UNIT_COLUMNS = ("kind", "layer", "module", "index", "belongs")


class Place(NamedTuple):
    """Location of a parameter: its layer (None outside the layers, as `lm_head`) and its kind."""

    layer: int | None
    kind: str


class Slice(NamedTuple):
    """Entries `start` to `stop` of one dimension of a parameter."""

    parameter: str
    dimension: int
    start: int
    stop: int


@dataclass(frozen=True)
class Unit:
    """A named part of a model; `index` counts the units of a kind in a module, from 0."""

    kind: str
    layer: int | None
    module: str
    index: int
    slices: tuple[Slice, ...]
    site: Site

    @property
    def name(self) -> str:
        """What files call it."""
        return f"{self.kind}/{self.module}/{self.index}"


def place_of(parameter: str) -> Place:
    """Layer and kind of a parameter or module: the first number in its name, and the rest after it.

    Numbers of experts are left out, so that all experts of a layer are one kind.
    """
    name = parameter.removesuffix(".weight")
    layer = _LAYER.search(name)
    if layer is None:
        return Place(None, name)
    rest = name[layer.end() :]
    return Place(int(layer.group(1)), ".".join(p for p in rest.split(".") if not p.isdigit()))


def without_layer(parameter: str) -> str:
    """A parameter's name with `*` for the number of its layer."""
    return _LAYER.sub(lambda found: found.group(0).replace(found.group(1), "*"), parameter, 1)


def layer_order(layer: int | None) -> float:
    """Sort key of layers; None comes last."""
    return math.inf if layer is None else layer


def short_kinds(kinds: Sequence[str]) -> dict[str, str]:
    """The last part of every kind's name, or the whole name if the last part is not unique."""
    last = [kind.rpartition(".")[2] for kind in kinds]
    return {
        kind: name if last.count(name) == 1 else kind
        for kind, name in zip(kinds, last, strict=True)
    }


def units_mask(units: Sequence[Unit], shapes: Shapes) -> ParameterMask:
    """The mask of all weights of the units, over the parameters in `shapes`.

    Raises:
        KeyError: a unit owns part of a parameter that is not in `shapes`.
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
    """A unit table as CSV text, with every entry of `origin` as a constant column."""
    text = io.StringIO()
    full = table.copy()
    for name, value in origin.items():
        full[name] = value
    full.to_csv(text, index=False, float_format="%.10g", lineterminator="\n")
    return text.getvalue()


def read_unit_csv(path: Path, flag: str = "MASK") -> pd.DataFrame | None:
    """Read what `unit_csv` wrote; None if there is no such file.

    Raises:
        UsageError: the file holds something else.
    """
    if not path.is_file():
        return None
    _, table = read_table(flag, path)
    matched(flag, path, table, [_UNIT_COLUMNS])
    for name in table.columns:
        numbers = pd.to_numeric(table[name], errors="coerce")
        if (numbers.notna() | (table[name] == "")).all():
            table[name] = numbers
    return table
