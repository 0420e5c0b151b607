"""Checks of user input before any model is loaded. Imports no torch."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neurosurgery.common.errors import UsageError, first_line
from neurosurgery.common.json_files import read_object
from neurosurgery.config.gguf import check_gguf, gguf_file
from neurosurgery.config.keys import MATH

_SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


_MOST = 2**31 - 1
"""Larger counts are typing errors, which would run for ever or end deep in a library."""


def check_at_least(least: int, values: Mapping[str, int | None], most: int | None = _MOST) -> None:
    """Refuse a value below `least` or above `most`; None is skipped.

    Raises:
        UsageError: names the first such flag and its value.
    """
    for flag, value in values.items():
        if value is not None and value < least:
            raise UsageError(flag, value, f"expected a whole number of at least {least}")
        if value is not None and most is not None and value > most:
            raise UsageError(flag, value, f"expected a whole number of at most {most:,}")


def check_fractions(flag: str, values: Sequence[float]) -> None:
    """Refuse values outside (0, 1].

    Raises:
        UsageError: names flag and value.
    """
    for value in values:
        if not 0 < value <= 1:
            raise UsageError(flag, value, "expected a fraction in (0, 1]")


def check_finite(flag: str, values: Sequence[float]) -> None:
    """Refuse infinities and NaN.

    Raises:
        UsageError: names flag and value.
    """
    for value in values:
        if not math.isfinite(value):
            raise UsageError(flag, value, "expected a finite number")


def check_one_place(device: str | None, device_map: str | None) -> None:
    """Refuse `--device` together with `--device_map`.

    Raises:
        UsageError: both are given.
    """
    if device is not None and device_map is not None:
        raise UsageError("--device", device, "cannot be had with --device_map")


def check_set_names(names: Sequence[str]) -> None:
    """Refuse set names that are not valid file names, occur twice, or are `math`.

    Raises:
        UsageError: names the first such set.
    """
    flag = "--calibration_dataset_names"
    seen: set[str] = set()
    for name in names:
        if not _SET_NAME.fullmatch(name):
            raise UsageError(flag, name, "expected letters, digits, '.', '_' and '-'")
        if name.casefold() == MATH:
            raise UsageError(flag, name, "is the name of the math set")
        # Names become file names, and some file systems ignore case.
        if name.casefold() in seen:
            raise UsageError(flag, name, "two calibration sets of one name")
        seen.add(name.casefold())


def check_model_folder(name: str) -> None:
    """Refuse a local folder without a model, and a quantised checkpoint other than a GGUF file.

    A possible hub id is checked later, when its config is fetched.

    Raises:
        UsageError: no readable config.json or GGUF file, or a quantised checkpoint.
    """
    check_gguf(name)
    if gguf_file(name) is not None:
        return
    folder = Path(name)
    if not folder.is_dir():
        if folder.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise UsageError("--model", name, "expected a model folder, a GGUF file or a hub id")
        return
    if not (folder / "config.json").exists():
        raise UsageError("--model", name, "expected a folder with a config.json or a GGUF file")
    content = _model_settings(name, "config.json")
    if (folder / "generation_config.json").exists():
        # transformers goes on without one that is damaged, and says nothing.
        _model_settings(name, "generation_config.json")
    if content.get("quantization_config") is not None:
        raise UsageError("--model", name, "is quantised; expected float weights to edit")


def _model_settings(name: str, file: str) -> dict[str, Any]:
    try:
        return read_object(Path(name) / file)
    except (OSError, ValueError) as error:
        raise UsageError("--model", name, f"{file} cannot be read ({first_line(error)})") from None


def check_writable(folder: Path, flag: str = "--save_path") -> None:
    """Check that the folder can be created and written; leave no file behind.

    Raises:
        UsageError: the folder cannot be created or written.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return
    except OSError as error:
        raise UsageError(
            flag, folder, f"expected a folder that can be written ({error.strerror})"
        ) from None
