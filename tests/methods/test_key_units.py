"""Ranks, standard errors and agreement of heads, against sums done by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neurosurgery.masks.units import Site, Unit
from neurosurgery.methods.key_units import UnitEffects, effect_table, top_overlap


def unit(kind: str, layer: int, index: int) -> Unit:
    name = f"layers.{layer}.{kind}"
    return Unit(kind, layer, name, index, (), Site(name, "input", 0, 1))


UNITS = [unit("head", 0, 0), unit("head", 0, 1), unit("head", 1, 0), unit("mlp", 0, 0)]
EFFECTS = UnitEffects(UNITS, np.array([[0.1, 0.3], [-0.4, -0.2], [-0.5, 0.1], [0.0, 0.2]]))


def test_table_against_hand_computed_numbers():
    table = effect_table(EFFECTS)
    assert table["effect"].tolist() == pytest.approx([0.2, -0.3, -0.2, 0.1])
    # Two values at a distance d: s = d / √2, and s / √2 = d / 2.
    assert table["stderr"].tolist() == pytest.approx([0.1, 0.1, 0.3, 0.1])
    assert table["same_sign"].tolist() == [1.0, 1.0, 0.5, 0.5]
    assert table["rank"].tolist() == [3, 1, 2, 1]
    assert table["kind"].tolist() == ["head", "head", "head", "mlp"]


def test_strongest_is_the_most_negative_of_its_kind():
    assert EFFECTS.ranked("head") == [UNITS[1], UNITS[2], UNITS[0]]
    assert EFFECTS.ranked("mlp") == [UNITS[3]]
    assert EFFECTS.on([1]).ranked("head") == [UNITS[1], UNITS[2], UNITS[0]]
    assert EFFECTS.least() == [3, 0, 2, 1]


def test_units_of_one_effect_keep_their_order():
    alike = UnitEffects(UNITS, np.array([[0.1], [-0.3], [-0.3], [-0.3]]))
    assert alike.order() == [1, 2, 3, 0]
    assert effect_table(alike)["rank"].tolist() == [3, 1, 2, 1]


def test_effects_are_joined_to_units_by_name_in_whatever_order_they_are_kept():
    kept = {
        unit.name: torch.from_numpy(row) for unit, row in zip(UNITS, EFFECTS.effects, strict=True)
    }
    backwards = dict(reversed(kept.items()))
    found = UnitEffects.by_name(UNITS, backwards, {UNITS[0].name: torch.ones(1)})
    assert np.array_equal(found.effects, EFFECTS.effects)
    assert set(found.vectors) == {UNITS[0]}
    with pytest.raises(KeyError):
        UnitEffects.by_name(UNITS, dict(list(kept.items())[1:]))


def test_a_repeat_has_its_vector_where_there_is_one_for_each():
    rows = torch.arange(4.0).reshape(2, 2)
    found = UnitEffects(UNITS, EFFECTS.effects, {UNITS[0]: rows, UNITS[1]: rows[0]})
    assert found.vector(UNITS[0], 1).tolist() == [2, 3]
    assert found.vector(UNITS[1], 1).tolist() == [0, 1]


def test_overlap_and_chance():
    ranked = EFFECTS.ranked("head")
    assert top_overlap(ranked, ranked, 2) == (1.0, pytest.approx(2 / 3))
    assert top_overlap(ranked, ranked[::-1], 1) == (0.0, pytest.approx(1 / 3))
    assert top_overlap(ranked, ranked[::-1], 2) == (0.5, pytest.approx(2 / 3))
