from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from neurosurgery.common.errors import UsageError
from neurosurgery.masks.files import (
    load_mask,
    named_provenance,
    read_mask_file,
    read_mask_info,
    write_mask_file,
)
from neurosurgery.masks.mask import ParameterMask
from neurosurgery.masks.overlap import overlap_by_parameter, total


def random_mask(seed: int, density: float = 0.3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(shape, generator=generator) < density
        for name, shape in {"a.weight": (5, 7), "b.weight": (3, 8), "c.weight": (1, 1)}.items()
    }


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_set_operations_are_those_of_booleans(first_seed, second_seed):
    first, second = random_mask(first_seed), random_mask(second_seed, 0.6)
    a, b = ParameterMask.from_tensors(first), ParameterMask.from_tensors(second)
    for name, mask in first.items():
        assert torch.equal(a.tensor(name), mask)
        assert torch.equal((a - b).tensor(name), mask & ~second[name])
        assert torch.equal((a & b).tensor(name), mask & second[name])
    union = sum(int((first[name] | second[name]).sum()) for name in first)
    common = sum(int((first[name] & second[name]).sum()) for name in first)
    assert a.count() == sum(int(mask.sum()) for mask in first.values())
    expected = common / union if union else math.nan
    # Exactly; NaN equals NaN here.
    np.testing.assert_equal(total(overlap_by_parameter(a, b)).jaccard, expected)
    with_itself = total(overlap_by_parameter(a, a)).jaccard
    np.testing.assert_equal(with_itself, 1.0 if a.count() else math.nan)


def test_two_empty_masks_have_no_jaccard_index():
    empty = ParameterMask.from_tensors(random_mask(0, density=0))
    assert empty.count() == 0
    assert math.isnan(total(overlap_by_parameter(empty, empty)).jaccard)


def test_file_format(tmp_path):
    tensors = random_mask(0)
    mask = ParameterMask.from_tensors(tensors)
    path = tmp_path / "mask.safetensors"
    provenance = {"model": "m", "repeat": 2, "counts": mask.counts()}
    write_mask_file(path, mask, provenance)
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        for name, tensor in tensors.items():
            stored = file.get_tensor(name)
            assert stored.dtype == np.uint8
            np.testing.assert_array_equal(stored, np.packbits(tensor.numpy().reshape(-1)))
    assert metadata["format"] == "neurosurgery-mask/1"
    assert json.loads(metadata["shapes"]) == {name: list(t.shape) for name, t in tensors.items()}
    assert json.loads(metadata["repeat"]) == 2
    assert load_mask(path) == mask
    whole, head = read_mask_file(path), read_mask_info(path)
    assert whole.mask == mask
    assert head.shapes == mask.shapes
    assert whole.path == head.path == path
    assert whole.provenance == head.provenance == provenance


def test_other_safetensors_files_are_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3, np.uint8)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="neurosurgery-mask/1"):
        load_mask(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("shapes", "bits", "message"),
    [
        (None, [0], "no lists of whole numbers"),
        ("[1]", [0], "no lists of whole numbers"),
        ('{"a": 3}', [0], "no lists of whole numbers"),
        ('{"a": [-3]}', [0], "no lists of whole numbers"),
        ('{"b": [3]}', [0], "does not hold the tensors"),
        ('{"a": [3, 3]}', [0], r"a has shape \[1\]; expected \[2\]"),
        ('{"a": [3]}', [0.5], "a is F32; expected U8"),
        ('{"a": [3]}', [0b11110000], "a has bits set behind its last entry"),
    ],
)
def test_files_that_contradict_themselves_are_refused(shapes, bits, message, tmp_path):
    from safetensors.numpy import save_file

    metadata = {"format": "neurosurgery-mask/1"} | ({} if shapes is None else {"shapes": shapes})
    dtype = np.uint8 if isinstance(bits[0], int) else np.float32
    save_file({"a": np.array(bits, dtype)}, tmp_path / "bad.safetensors", metadata)
    with pytest.raises(UsageError, match=message):
        load_mask(tmp_path / "bad.safetensors")


def test_masks_of_different_models_do_not_mix():
    tensors = random_mask(0)
    a = ParameterMask.from_tensors(tensors)
    b = ParameterMask.from_tensors(tensors | {"b.weight": torch.zeros(8, 3, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"b\.weight differs"):
        a - b


def test_a_mask_says_the_name_that_its_run_gave_the_skill():
    shown = named_provenance({"skill": "math", "against": "facts", "skill_name": "code"})
    assert shown == {"skill": "code", "against": "facts"}
    # A control run, in which the skill is one of the others.
    control = named_provenance({"skill": "facts", "against": "math", "skill_name": "code"})
    assert control == {"skill": "facts", "against": "code"}
    assert named_provenance({"skill": "math"}) == {"skill": "math"}
