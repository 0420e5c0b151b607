"""Agreement of masks: by hand, by simulation, and that its parts add up."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from conftest import build_model
from hypothesis import given
from hypothesis import strategies as st

from neurosurgery.masks.mask import ParameterMask
from neurosurgery.masks.overlap import (
    Overlap,
    by_kind,
    by_layer,
    first_difference,
    first_misfit,
    overlap_by_parameter,
    total,
)
from neurosurgery.masks.units import place_of
from neurosurgery.models.targets import find_targets

SHAPES = {
    "model.layers.0.self_attn.q_proj.weight": (3, 5),
    "model.layers.0.mlp.experts.7.down_proj.weight": (4, 4),
    "model.layers.1.self_attn.q_proj.weight": (3, 5),
    "model.layers.1.mlp.experts.7.down_proj.weight": (1, 2),
    "lm_head.weight": (2, 9),
}


def mask_of(selected: dict[str, list[int]], shapes=SHAPES) -> ParameterMask:
    """A mask from flat indices."""
    tensors = {}
    for name, shape in shapes.items():
        flat = torch.zeros(math.prod(shape), dtype=torch.bool)
        flat[selected.get(name, [])] = True
        tensors[name] = flat.reshape(shape)
    return ParameterMask.from_tensors(tensors)


def random_mask(seed: int) -> ParameterMask:
    generator = np.random.default_rng(seed)
    return mask_of(
        {
            name: generator.permutation(math.prod(shape))[
                : generator.integers(math.prod(shape) + 1)
            ].tolist()
            for name, shape in SHAPES.items()
        }
    )


def test_measures_by_hand():
    """Two matrices, (2, 5) and (1, 4), worked out on paper."""
    shapes = {"layers.0.a.weight": (2, 5), "layers.0.b.weight": (1, 4)}
    a = mask_of({"layers.0.a.weight": [0, 1, 2, 3], "layers.0.b.weight": [0, 1]}, shapes)
    b = mask_of({"layers.0.a.weight": [3, 4, 5], "layers.0.b.weight": [1]}, shapes)
    found = total(overlap_by_parameter(a, b))
    # By chance 4 · 3 / 10 in the first, 2 · 1 / 4 in the second.
    assert found == Overlap(14, 6, 4, 2, pytest.approx(1.2 + 0.5))
    assert found.jaccard == Fraction(2, 8)
    assert found.overlap_coefficient == Fraction(2, 4)
    assert found.overlap == pytest.approx(2 / 5)
    assert found.jaccard_by_chance == pytest.approx(1.7 / (6 + 4 - 1.7))
    assert found.overlap_coefficient_by_chance == pytest.approx(1.7 / 4)
    assert found.overlap_by_chance == pytest.approx(1.7 / 5)


def test_chance_is_what_random_masks_have_in_common():
    """The mean over random pairs of the same counts per matrix, within five standard errors."""
    counts_a = dict(zip(SHAPES, (4, 9, 1, 1, 6), strict=True))
    counts_b = dict(zip(SHAPES, (7, 3, 15, 1, 2), strict=True))
    generator = np.random.default_rng(0)

    def draw(counts):
        return mask_of(
            {
                name: generator.choice(math.prod(shape), counts[name], replace=False).tolist()
                for name, shape in SHAPES.items()
            }
        )

    found = [total(overlap_by_parameter(draw(counts_a), draw(counts_b))) for _ in range(500)]
    common = np.array([overlap.common for overlap in found])
    error = common.std(ddof=1) / math.sqrt(len(common))
    assert common.mean() == pytest.approx(found[0].common_by_chance, abs=5 * error)
    assert error < 0.1


def test_chance_is_counted_per_matrix_and_not_over_all():
    """All of one matrix in both masks: chance already makes them equal."""
    shapes = {"a.weight": (1, 2), "b.weight": (1, 8)}
    mask = mask_of({"a.weight": [0, 1]}, shapes)
    found = total(overlap_by_parameter(mask, mask))
    assert found.common_by_chance == 2
    assert found.jaccard_by_chance == 1


def test_nothing_selected_has_no_measure():
    nothing, something = mask_of({}), mask_of({"lm_head.weight": [3]})
    both = total(overlap_by_parameter(nothing, nothing))
    assert math.isnan(both.jaccard)
    assert math.isnan(both.overlap)
    one = total(overlap_by_parameter(nothing, something))
    assert one.jaccard == one.overlap == one.jaccard_by_chance == 0
    assert math.isnan(one.overlap_coefficient)


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_parts_add_up_to_the_whole(seed_a, seed_b):
    a, b = random_mask(seed_a), random_mask(seed_b)
    overlaps = overlap_by_parameter(a, b)
    whole = total(overlaps)
    assert (whole.count_a, whole.count_b) == (a.count(), b.count())
    assert whole.common == (a & b).count()
    assert whole.size == sum(math.prod(shape) for shape in SHAPES.values())
    for groups in (by_layer(overlaps), by_kind(overlaps)):
        together = sum(groups.values(), Overlap())
        assert together.common_by_chance == pytest.approx(whole.common_by_chance)
        for field in ("size", "count_a", "count_b", "common"):
            assert getattr(together, field) == getattr(whole, field)
    if whole.count_a and whole.count_b:
        assert 0 <= whole.jaccard <= whole.overlap <= whole.overlap_coefficient <= 1


def test_groups():
    overlaps = overlap_by_parameter(random_mask(1), random_mask(2))
    assert list(by_layer(overlaps)) == [0, 1, None]
    assert {kind: overlap.size for kind, overlap in by_kind(overlaps).items()} == {
        "q_proj": 30,
        "down_proj": 18,
        "lm_head": 18,
    }
    assert [place_of(name).layer for name in SHAPES] == [0, 0, 1, 1, None]
    assert place_of("transformer.h.11.attn.c_attn.weight").kind == "attn.c_attn"


def test_kinds_of_one_last_name_are_told_apart():
    """GPT-2 has a `c_proj` in its attention and another in its MLP."""
    model = build_model("gpt2")
    targets = find_targets(model)
    shapes = {target.parameter_name: tuple(target.weight.shape) for target in targets}
    selected = {"transformer.h.0.attn.c_proj.weight": [0], "transformer.h.1.mlp.c_proj.weight": [3]}
    mask = mask_of(selected, shapes)
    kinds = by_kind(overlap_by_parameter(mask, mask))
    assert list(kinds) == ["c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"]
    assert [overlap.size for overlap in kinds.values()] == [
        2 * 24 * 72,
        2 * 24 * 24,
        2 * 24 * 96,
        2 * 96 * 24,
    ]
    assert [overlap.count_a for overlap in kinds.values()] == [0, 1, 0, 1]


def test_layers_come_in_the_order_of_numbers():
    shapes = {f"h.{layer}.fc.weight": (1, 1) for layer in (10, 9, 2)}
    mask = mask_of({}, shapes)
    assert list(by_layer(overlap_by_parameter(mask, mask))) == [2, 9, 10]


def test_first_difference():
    assert first_difference(SHAPES, dict(reversed(SHAPES.items()))) is None
    changed = SHAPES | {"lm_head.weight": (9, 2)}
    assert first_difference(SHAPES, changed) == "lm_head.weight is (2, 9) here and (9, 2) there"
    assert first_difference({}, {"x": (1,)}) == "x is missing here and (1,) there"


def test_first_misfit():
    parameters = SHAPES | {"embed.weight": (9, 9)}
    assert first_misfit(SHAPES, parameters, SHAPES) is None
    misfit = first_misfit({"lm_head.weight": (9, 2)}, parameters, SHAPES)
    assert misfit == "lm_head.weight is (9, 2) in the mask and (2, 9) in the model"
    misfit = first_misfit({"x": (1,)}, parameters, SHAPES)
    assert misfit == "x is (1,) in the mask and missing in the model"
    # A part that no sample reached may be left out, a layer may not.
    without_head = {name: shape for name, shape in SHAPES.items() if name != "lm_head.weight"}
    assert first_misfit(without_head, parameters, SHAPES) is None
    layer_0 = {name: shape for name, shape in without_head.items() if ".0." in name}
    misfit = first_misfit(layer_0, parameters, SHAPES)
    name = "model.layers.1.self_attn.q_proj.weight"
    assert misfit == f"{name} is missing in the mask and (3, 5) in the model"
