"""Files of tensors: equal content is equal bytes, and the library reads them as its own."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load, save

from neurosurgery.common.tensor_files import in_fixed_order

TENSORS = {"b": np.arange(5, dtype=np.uint8), "a.weight": np.ones((2, 3)), "empty": np.zeros(0)}
METADATA = {f"key {number}": json.dumps({"né": number}) for number in range(12)}


def fixed(tensors, metadata) -> bytes:
    return b"".join(in_fixed_order(save(tensors, metadata)))


def test_equal_content_is_equal_bytes():
    files = {fixed(TENSORS, METADATA) for _ in range(20)}
    assert len(files) == 1
    # A random order is what the library gives: else this test says nothing.
    assert len({save(TENSORS, METADATA) for _ in range(20)}) > 1


@settings(deadline=None, max_examples=50)
@given(
    metadata=st.dictionaries(st.text(max_size=20), st.text(max_size=50), min_size=1, max_size=6),
    sizes=st.dictionaries(st.text(min_size=1, max_size=9), st.integers(0, 20), max_size=5),
)
def test_the_library_reads_what_it_wrote(metadata, sizes, tmp_path_factory):
    sizes.pop("__metadata__", None)
    tensors = {name: np.arange(size, dtype=np.float32) for name, size in sizes.items()}
    content = fixed(tensors, metadata)
    found = load(content)
    assert found.keys() == tensors.keys()
    assert all(np.array_equal(found[name], tensors[name]) for name in tensors)
    path = tmp_path_factory.mktemp("file") / "x.safetensors"
    path.write_bytes(content)
    with safe_open(path, framework="numpy") as file:
        assert (file.metadata() or {}) == metadata
    assert int.from_bytes(content[:8], "little") % 8 == 0


@pytest.mark.parametrize("metadata", [None, {}])
def test_without_metadata(metadata):
    content = fixed(TENSORS, metadata)
    assert load(content).keys() == TENSORS.keys()
