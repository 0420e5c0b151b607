from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from neurosurgery.masks.mask import ParameterMask


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
    assert a.jaccard(b) == (common / union if union else 1.0)
    assert a.jaccard(a) == 1.0


def test_file_format(tmp_path):
    tensors = random_mask(0)
    mask = ParameterMask.from_tensors(tensors)
    mask.save(tmp_path / "mask.safetensors", {"model": "m", "repeat": 2, "counts": {"a": 1}})
    with safe_open(tmp_path / "mask.safetensors", framework="numpy") as file:
        metadata = file.metadata()
        for name, tensor in tensors.items():
            stored = file.get_tensor(name)
            assert stored.dtype == np.uint8
            np.testing.assert_array_equal(stored, np.packbits(tensor.numpy().reshape(-1)))
    assert metadata["format"] == "neurosurgery-mask/1"
    assert json.loads(metadata["shapes"]) == {name: list(t.shape) for name, t in tensors.items()}
    assert json.loads(metadata["repeat"]) == 2
    assert ParameterMask.load(tmp_path / "mask.safetensors") == mask


def test_other_safetensors_files_are_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3, np.uint8)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="neurosurgery-mask/1"):
        ParameterMask.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("shapes", "bits", "message"),
    [
        (None, [0], "Expecting value"),
        ("[1]", [0], "no lists of whole numbers"),
        ('{"a": 3}', [0], "no lists of whole numbers"),
        ('{"a": [-3]}', [0], "no lists of whole numbers"),
        ('{"b": [3]}', [0], "does not hold the tensors"),
        ('{"a": [3, 3]}', [0], r"a is no packed mask of shape \(3, 3\)"),
        ('{"a": [3]}', [0.5], "a is no packed mask"),
        ('{"a": [3]}', [0b11110000], "a has bits set behind its last entry"),
    ],
)
def test_files_that_contradict_themselves_are_refused(shapes, bits, message, tmp_path):
    from safetensors.numpy import save_file

    metadata = {"format": "neurosurgery-mask/1"} | ({} if shapes is None else {"shapes": shapes})
    dtype = np.uint8 if isinstance(bits[0], int) else np.float32
    save_file({"a": np.array(bits, dtype)}, tmp_path / "bad.safetensors", metadata)
    with pytest.raises(ValueError, match=message):
        ParameterMask.load(tmp_path / "bad.safetensors")


def test_masks_of_different_models_do_not_mix():
    tensors = random_mask(0)
    a = ParameterMask.from_tensors(tensors)
    b = ParameterMask.from_tensors(tensors | {"b.weight": torch.zeros(8, 3, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"b\.weight differs"):
        a - b
