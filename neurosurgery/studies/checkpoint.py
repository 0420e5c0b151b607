"""Checkpoints of `consistency`, so that a killed measurement can resume."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path

from safetensors.torch import load_file, save

from neurosurgery.common.files import write_atomically
from neurosurgery.common.json_files import read_json
from neurosurgery.localisation.consistency import Norms, Overlaps, Pair, Subset
from neurosurgery.masks.overlap import Overlap

_FOLDER = "consistency"


class SubsetCheckpoint:
    """Norms and overlaps of an unfinished measurement, in a folder named by what they depend on.

    Args:
        parent: the parent of the folder.
        basis: everything that the numbers depend on (model, files, seed), in JSON types.
    """

    def __init__(self, parent: Path, basis: Mapping[str, object]) -> None:
        self._parent = parent / _FOLDER
        text = json.dumps(basis, sort_keys=True)
        self._folder = self._parent / hashlib.sha256(text.encode()).hexdigest()[:16]

    def norms(self, name: str) -> Norms | None:
        """Read the norms of a set; None if there is no file."""
        path = self._norms_file(name)
        if not path.exists():
            return None
        norms: Norms = {}
        for key, values in load_file(path).items():
            size, number, module = key.split("/", 2)
            norms.setdefault(Subset(int(size), int(number)), {})[module] = values
        # safetensors sorts entries as text; subsets are compared in numeric order.
        return dict(sorted(norms.items()))

    def keep_norms(self, name: str, norms: Norms) -> None:
        """Write the norms of a set."""
        tensors = {
            f"{subset.size}/{subset.number}/{module}": values
            for subset, of_subset in norms.items()
            for module, values in of_subset.items()
        }
        write_atomically(self._norms_file(name), save(tensors))

    def overlaps(self) -> tuple[int, Overlaps]:
        """Read the number of compared weight matrices, and the sums of their overlaps."""
        path = self._folder / "overlaps.json"
        if not path.exists():
            return 0, {}
        content = read_json(path)
        overlaps = {Pair(*pair): Overlap(*values) for pair, values in content["overlaps"]}
        return content["compared"], overlaps

    def keep_overlaps(self, compared: int, overlaps: Overlaps) -> None:
        """Write the summed overlaps of the first `compared` weight matrices."""
        rows = [(pair, astuple(overlap)) for pair, overlap in overlaps.items()]
        content = json.dumps({"compared": compared, "overlaps": rows})
        write_atomically(self._folder / "overlaps.json", content)

    def clear(self) -> None:
        """Delete this and every other unfinished measurement of the model."""
        shutil.rmtree(self._parent, ignore_errors=True)

    def _norms_file(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"
