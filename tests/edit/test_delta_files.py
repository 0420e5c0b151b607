"""Files of changes: what is written is read, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import build_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from weights import random_mask

from neurosurgery.common.errors import RunError, UsageError
from neurosurgery.edit.delta import Delta
from neurosurgery.edit.delta_files import (
    load_delta,
    read_delta_file,
    write_delta_file,
)
from neurosurgery.masks.files import read_mask_file, write_mask_file


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


def test_a_mask_file_is_none(delta, tmp_path):
    path = tmp_path / "mask.safetensors"
    write_mask_file(path, delta.mask, {})
    with pytest.raises(UsageError, match=r"holds a mask in .*, not neurosurgery-delta/1"):
        read_delta_file(path, "FILE")
    with pytest.raises(RunError, match="is no readable file of changes"):
        load_delta(path)


def rewrite(path: Path, change) -> None:
    """Write a file's tensors and metadata anew, after `change(tensors, metadata)`."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors, metadata)
    save_file(tensors, path, metadata)


def first(tensors, prefix="change."):
    return next(name for name in sorted(tensors) if name.startswith(prefix))


def put(prefix, make):
    """Replace the first tensor of a kind."""

    def change(tensors, _metadata):
        name = first(tensors, prefix)
        tensors[name] = make(tensors[name])

    return change


def at_place(place, value):
    def make(values):
        values = values.clone()
        values[place] = value
        return values

    return make


def shapes(text):
    return lambda _tensors, metadata: metadata.update(shapes=text)


DAMAGES = {
    "a change short": put("change.", lambda v: v[:-1].clone()),
    "a change more": put("change.", lambda v: torch.cat([v, v[:1]])),
    "two dimensions": put("change.", lambda v: v[None]),
    "no dimension": put("change.", lambda v: v[0].clone()),
    "NaN": put("change.", at_place(0, torch.nan)),
    "NaN at the end": put("change.", at_place(-1, torch.nan)),
    "infinity": put("change.", at_place(3, torch.inf)),
    "minus infinity": put("change.", at_place(3, -torch.inf)),
    **{
        f"changes in {dtype}": put("change.", lambda v, dtype=dtype: v.to(dtype))
        for dtype in "float64 float16 bfloat16 int64 int32 uint8 bool complex64".split()
        for dtype in [getattr(torch, dtype)]
    },
    "mask in int8": put("mask.", lambda v: v.to(torch.int8)),
    "mask in bfloat16": put("mask.", lambda v: v.to(torch.bfloat16)),
    "mask short": put("mask.", lambda v: v[:-1].clone()),
    "mask of other weights": put("mask.", torch.zeros_like),
    "no change": lambda tensors, _metadata: tensors.pop(first(tensors)),
    "no mask": lambda tensors, _metadata: tensors.pop(first(tensors, "mask.")),
    "a tensor more": lambda tensors, _metadata: tensors.update(x=torch.zeros(1)),
    "no shapes": lambda _tensors, metadata: metadata.pop("shapes"),
    "shapes that are a list": shapes("[]"),
    "shapes of text": shapes('{"a": "24"}'),
    "a negative shape": shapes('{"a": [-1]}'),
    "a shape of truth": shapes('{"a": [true]}'),
    "a shape of NaN": shapes('{"a": [NaN]}'),
    "a shape twice": shapes('{"a": [1], "a": [1]}'),
    "deep shapes": shapes("[" * 100_000 + "]" * 100_000),
    "a long number": shapes('{"a": [' + "9" * 5000 + "]}"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_one_line(delta, damage, tmp_path):
    """A file of the user's is bad input, whatever is wrong with it; one of a run fails the run."""
    path = tmp_path / "changes.safetensors"
    write_delta_file(path, delta, {})
    rewrite(path, DAMAGES[damage])
    with pytest.raises(RunError, match="is no readable file of changes"):
        load_delta(path)
    with pytest.raises(UsageError, match=r"FILE .*is no readable file of changes") as error:
        read_delta_file(path, "FILE")
    assert len(str(error.value)) < 300 + len(str(path))


def test_deep_provenance_is_one_line(delta, tmp_path):
    path = tmp_path / "changes.safetensors"
    write_delta_file(path, delta, {})
    deep = "[" * 900 + "]" * 900
    rewrite(path, lambda _tensors, metadata: metadata.update(note=deep))
    with pytest.raises(UsageError, match="nested more than 100 levels deep"):
        read_delta_file(path, "FILE")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS"),
        (b"GGUF" + bytes(60), "a GGUF file"),
        (b"PK\x03\x04" + bytes(60), "a zip archive"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"{}", "no safetensors file"),
        (b"\xff" * 100, "no safetensors file"),
    ],
)
def test_other_files_are_named(content, reason, tmp_path):
    path = tmp_path / "changes.safetensors"
    path.write_bytes(content)
    for read in (lambda: read_delta_file(path, "FILE"), lambda: read_mask_file(path)):
        with pytest.raises(UsageError, match=reason):
            read()
    with pytest.raises(RunError, match=reason):
        load_delta(path)


@pytest.mark.parametrize("share", [0.0001, 0.1, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_called_so(delta, share, tmp_path):
    path = tmp_path / "changes.safetensors"
    write_delta_file(path, delta, {})
    whole = path.read_bytes()
    path.write_bytes(whole[: max(9, int(share * len(whole)))])
    with pytest.raises(UsageError, match="it is cut off"):
        read_delta_file(path, "FILE")


def test_a_folder_is_called_one(tmp_path):
    with pytest.raises(UsageError, match="is a folder; expected a file of changes"):
        read_delta_file(tmp_path, "FILE")
