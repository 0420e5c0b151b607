"""Files of changes: what is written is read, and nothing else."""

from __future__ import annotations

import pytest
import torch
from conftest import build_model
from safetensors.torch import load_file, save_file
from weights import random_mask

from neurosurgery.common.errors import RunError, UsageError
from neurosurgery.edit.delta import Delta
from neurosurgery.edit.delta_files import (
    holds_delta,
    load_delta,
    read_delta_file,
    write_delta_file,
)
from neurosurgery.masks.files import write_mask_file


@pytest.fixture
def delta() -> Delta:
    mask = random_mask(build_model("llama"))
    return Delta(mask, {name: torch.randn(count) for name, count in mask.counts().items()})


def test_round_trip(delta, tmp_path):
    path = tmp_path / "changes.safetensors"
    write_delta_file(path, delta, {"model": "m", "training": {"--epochs": 2}})
    found, provenance = read_delta_file(path, "FILE")
    assert found.mask == delta.mask
    assert all(torch.equal(found.values[n], delta.values[n]) for n in delta.mask)
    assert provenance == {"model": "m", "training": {"--epochs": 2}}
    assert holds_delta(path)


def test_a_mask_file_is_none(delta, tmp_path):
    path = tmp_path / "mask.safetensors"
    write_mask_file(path, delta.mask, {})
    assert not holds_delta(path)
    with pytest.raises(UsageError, match="is no readable mask file"):
        read_delta_file(path, "FILE")
    with pytest.raises(RunError, match="is no readable file of changes"):
        load_delta(path)


@pytest.mark.parametrize("damage", ["short", "missing", "half"])
def test_damaged_files_are_one_line(delta, damage, tmp_path):
    path = tmp_path / "changes.safetensors"
    write_delta_file(path, delta, {})
    tensors = load_file(path)
    name = next(n for n in tensors if n.startswith("change."))
    if damage == "half":
        path.write_bytes(path.read_bytes()[:-10])
    else:
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        if damage == "short":
            tensors[name] = tensors[name][:-1].clone()
        else:
            del tensors[name]
        save_file(tensors, path, metadata)
    with pytest.raises(RunError, match="is no readable file of changes"):
        load_delta(path)
    # A file of the user's is bad input, whatever is wrong with it.
    with pytest.raises(UsageError, match=r"FILE .*is no readable mask file"):
        read_delta_file(path, "FILE")
