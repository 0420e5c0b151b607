"""Overlaps and counts as tables: tidy for files, aligned for the terminal."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from neurosurgery.common.terminal import visible_line
from neurosurgery.masks.overlap import Overlap, by_kind, by_layer, total

WHOLE, KIND, LAYER = "whole", "kind", "layer"

_COMPARE = "{:<14} {:>11} {:>11} {:>11} {:>12}  {:>7} {:>7}  {:>7} {:>7}"
_SHOW = "{:<14} {:>13} {:>15} {:>8}"


def _groups(overlaps: Mapping[str, Overlap]) -> list[tuple[str, str, Overlap]]:
    """(part, group, overlap); the group is empty for the whole and for modules in no layer."""
    layers = by_layer(overlaps).items()
    return [
        (WHOLE, "", total(overlaps)),
        *((KIND, kind, overlap) for kind, overlap in by_kind(overlaps).items()),
        *((LAYER, "" if layer is None else str(layer), overlap) for layer, overlap in layers),
    ]


def overlap_table(overlaps: Mapping[str, Overlap]) -> pd.DataFrame:
    """A row for the whole, each kind of module and each layer; columns as in `Overlap`."""
    return pd.DataFrame(
        {
            "part": part,
            "group": group,
            "size": overlap.size,
            "count_a": overlap.count_a,
            "count_b": overlap.count_b,
            "common": overlap.common,
            "common_by_chance": overlap.common_by_chance,
            "jaccard": overlap.jaccard,
            "jaccard_by_chance": overlap.jaccard_by_chance,
            "overlap_coefficient": overlap.overlap_coefficient,
            "overlap_coefficient_by_chance": overlap.overlap_coefficient_by_chance,
        }
        for part, group, overlap in _groups(overlaps)
    )


def tidy_table(tables: Sequence[tuple[Path, Path, pd.DataFrame]]) -> pd.DataFrame:
    """Stack the tables of several pairs; the first two columns are the paths of the masks."""
    rows = []
    for path_a, path_b, table in tables:
        rows.append(table.copy())
        rows[-1].insert(0, "mask_a", str(path_a))
        rows[-1].insert(1, "mask_b", str(path_b))
    return pd.concat(rows, ignore_index=True)


def overlap_text(table: pd.DataFrame) -> str:
    """Format an `overlap_table` for the terminal."""
    lines = [
        _COMPARE.format("", "", "", "", "", "", "by", "overlap", "by"),
        _COMPARE.format(
            "", "A", "B", "common", "by chance", "Jaccard", "chance", "coeff.", "chance"
        ),
    ]
    for _, row in table.iterrows():
        lines.append(
            _COMPARE.format(
                _label(row["part"], row["group"]),
                f"{row['count_a']:,}",
                f"{row['count_b']:,}",
                f"{row['common']:,}",
                f"{row['common_by_chance']:,.1f}",
                *(
                    _share(row[column])
                    for column in (
                        "jaccard",
                        "jaccard_by_chance",
                        "overlap_coefficient",
                        "overlap_coefficient_by_chance",
                    )
                ),
            )
        )
    return "\n".join(lines)


def counts_text(overlaps: Mapping[str, Overlap]) -> str:
    """Format a mask's counts in total, per kind and per layer, from its overlap with itself."""
    lines = [_SHOW.format("", "selected", "of", "share")]
    for part, group, overlap in _groups(overlaps):
        share = f"{overlap.count_a / overlap.size:.3%}" if overlap.size else "–"
        lines.append(
            _SHOW.format(_label(part, group), f"{overlap.count_a:,}", f"{overlap.size:,}", share)
        )
    return "\n".join(lines)


def _label(part: str, group: str) -> str:
    if part == LAYER:
        return f"layer {group}" if group else "in no layer"
    return visible_line(group or part)


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def short_names(paths: Sequence[Path]) -> list[str]:
    """Distinct names for mask files: their stems, with folders only if stems repeat."""
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(stems):
        return [visible_line(stem) for stem in stems]
    parents = {str(path.absolute().parent) for path in paths}
    common = Path(os.path.commonpath(parents))
    names = [path.absolute().relative_to(common).with_suffix("").as_posix() for path in paths]
    return [visible_line(name) for name in names]
