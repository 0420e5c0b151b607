"""Settings of `FineTune.py`. Imports no torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from neurosurgery.common.errors import UsageError
from neurosurgery.methods.base import TRAINED_ONLY
from neurosurgery.methods.registry import METHODS
from neurosurgery.settings.checks import check_path
from neurosurgery.settings.experiment import CalibratedConfig
from neurosurgery.settings.training import TrainingConfig

SCRIPT = TRAINED_ONLY
OF_FILES = next(name for name, method in METHODS.items() if method.given)
"""The method of the values that are files."""


def selections() -> tuple[str, ...]:
    """The values of `--selection` that are not files."""
    return tuple(n for n, method in METHODS.items() if method.is_named and not method.given)


def sized_by() -> dict[str, list[str]]:
    """The flags for sizes of selections, and the methods that each is for."""
    found: dict[str, list[str]] = {}
    for name in selections():
        if not METHODS[name].of_one_size:
            found.setdefault(METHODS[name].size_flag, []).append(name)
    return found


def default_size(flag: str) -> tuple[float]:
    """The size of a selection where nobody gives one."""
    return (5.0,) if METHODS[sized_by()[flag][0]].counts_units else (0.01,)


@dataclass(frozen=True)
class MaskSource:
    """A mask file of the user's; its name stands in tables and paths."""

    name: str
    path: Path


@dataclass(frozen=True)
class SelectionConfig:
    """What is trained: methods with their sizes, and mask files.

    `methods` are those of calibration sets, `of_files` those of mask files: `mask_file` and its
    twins. `sizes` are by the flag that a method's descriptor names. `found_in` is the results
    folder of `PathPatching.py`, from which heads and MLPs are taken; None for the one that is
    written.
    """

    methods: tuple[str, ...]
    of_files: tuple[str, ...]
    files: tuple[MaskSource, ...]
    sizes: Mapping[str, tuple[float, ...]]
    found_in: Path | None = None

    def check(self) -> None:
        """Check names, and that what a method needs is installed.

        Raises:
            UsageError: names the flag.
        """
        if self.found_in is not None:
            check_path("--path_patching", str(self.found_in))
        # Names become file names, and some file systems ignore case.
        names = [file.name.casefold() for file in self.files]
        for name in names:
            if names.count(name) > 1:
                raise UsageError("--selection", name, "expected mask files of different names")
        adapters = [name for name in self.methods if METHODS[name].adapter]
        if adapters and importlib.util.find_spec("peft") is None:
            reason = "expected PEFT to be installed: pip install peft"
            raise UsageError("--selection", adapters[0], reason)

    def sizes_of(self, method: str) -> tuple[float, ...]:
        """The sizes of a method's selections; 1 for one that has no sizes."""
        descriptor = METHODS[method]
        return (1.0,) if descriptor.of_one_size else self.sizes[descriptor.size_flag]


@dataclass(frozen=True)
class FineTuneConfig(CalibratedConfig):
    """All settings of one call of `FineTune.py`."""

    selection: SelectionConfig
    training: TrainingConfig

    def check(self) -> None:
        """The same, and what is trained.

        Raises:
            UsageError: names flag, value and what was expected.
        """
        self.selection.check()
        super().check()
        if self.output.save_model and any(METHODS[n].adapter for n in self.selection.methods):
            reason = "expected without lora and shira, whose values stand beside the weights"
            raise UsageError("--save_model", "", reason)
