"""Ranks, standard errors and agreement of heads, against sums done by hand."""

from __future__ import annotations

import numpy as np
import pytest

from neurosurgery.masks.units import Site, Unit
from neurosurgery.methods.key_units import effect_table, strongest, top_overlap


def unit(kind: str, layer: int, index: int) -> Unit:
    name = f"layers.{layer}.{kind}"
    return Unit(kind, layer, name, index, (), Site(name, "input", 0, 1))


UNITS = [unit("head", 0, 0), unit("head", 0, 1), unit("head", 1, 0), unit("mlp", 0, 0)]
EFFECTS = np.array([[0.1, 0.3], [-0.4, -0.2], [-0.5, 0.1], [0.0, 0.2]])


def test_table_against_hand_computed_numbers():
    table = effect_table(UNITS, EFFECTS)
    assert table["effect"].tolist() == pytest.approx([0.2, -0.3, -0.2, 0.1])
    # Two values at a distance d: s = d / √2, and s / √2 = d / 2.
    assert table["stderr"].tolist() == pytest.approx([0.1, 0.1, 0.3, 0.1])
    assert table["same_sign"].tolist() == [1.0, 1.0, 0.5, 0.5]
    assert table["rank"].tolist() == [3, 1, 2, 1]
    assert table["kind"].tolist() == ["head", "head", "head", "mlp"]


def test_strongest_is_the_most_negative_of_its_kind():
    assert strongest(UNITS, EFFECTS, "head") == [UNITS[1], UNITS[2], UNITS[0]]
    assert strongest(UNITS, EFFECTS, "mlp") == [UNITS[3]]


def test_overlap_and_chance():
    ranked = strongest(UNITS, EFFECTS, "head")
    assert top_overlap(ranked, ranked, 2) == (1.0, pytest.approx(2 / 3))
    assert top_overlap(ranked, ranked[::-1], 1) == (0.0, pytest.approx(1 / 3))
    assert top_overlap(ranked, ranked[::-1], 2) == (0.5, pytest.approx(2 / 3))
