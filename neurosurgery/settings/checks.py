"""Checks of user input before any model is loaded. Imports no torch."""

from __future__ import annotations

import json
import math
import os
import re
import tempfile
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from neurosurgery.common.errors import UsageError, first_line
from neurosurgery.common.files import TEMPORARY_ADDS
from neurosurgery.common.json_files import read_object
from neurosurgery.settings.declare import whole
from neurosurgery.settings.gguf import check_gguf, gguf_file
from neurosurgery.settings.identity import MATH
from neurosurgery.settings.quantised import check_quantised, quantisation_of

_SET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_at_least(least: int, values: Mapping[str, int | None]) -> None:
    """Refuse a value below `least`, or one that no count can have; None is skipped.

    Raises:
        UsageError: names the first such flag and its value.
    """
    for flag, value in values.items():
        if value is not None and (reason := whole(least).refuse(value)) is not None:
            raise UsageError(flag, value, reason)


def check_finite(flag: str, values: Sequence[float]) -> None:
    """Refuse infinities and NaN.

    Raises:
        UsageError: names flag and value.
    """
    for value in values:
        if not math.isfinite(value):
            raise UsageError(flag, value, "expected a finite number")


DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
"""The values of `--device_map` by which accelerate decides."""


def check_one_place(device: str | None, device_map: str | None) -> None:
    """Refuse `--device` together with `--device_map`, and a map that is none.

    Raises:
        UsageError: both are given, or the map cannot be read.
    """
    if device is not None and device_map is not None:
        raise UsageError("--device", device, "cannot be had with --device_map")
    read_device_map(device_map)


def read_device_map(text: str | None) -> str | dict[str, str | int] | None:
    """What accelerate is given: the name of a way to decide, or module names with their places.

    A place is a device, `cpu` or `disk`. A map names every module, or the one that holds it.

    Raises:
        UsageError: it is neither.
    """
    if text is None or text in DEVICE_MAPS:
        return text
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(type(at) in (str, int) for at in found.values()):
        names = ", ".join(DEVICE_MAPS)
        example = '{"model": 0, "lm_head": "cpu"}'
        raise UsageError("--device_map", text, f"expected {names}, or a map as {example}")
    for inner in found:
        for outer in found:
            if inner != outer and (not outer or inner.startswith(f"{outer}.")):
                reason = f"{inner} is inside {outer or 'the model'}; expected modules side by side"
                raise UsageError("--device_map", text, reason)
    return found


def check_skill_name(name: str, sets: Sequence[str]) -> None:
    """Refuse a name of the skill that another set has.

    Raises:
        UsageError: it is taken.
    """
    if name.casefold() in (one.casefold() for one in sets if one != MATH):
        raise UsageError("--skill_name", name, "is the name of a set of other text")


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
            reason = "stands for the skill's own set in file names; expected another name"
            raise UsageError(flag, name, reason)
        # Names become file names, and some file systems ignore case.
        if name.casefold() in seen:
            raise UsageError(flag, name, "two calibration sets of one name")
        seen.add(name.casefold())


_CONTROL = ("Cc", "Cs")
"""Unicode's classes of control characters and of bytes that are no text."""

LONGEST_NAME = 255
"""Bytes of a file's name, on all usual file systems."""
_LONGEST_PATH = 4000
"""Bytes of a path, less what is written below it."""


def check_path(flag: str, path: str) -> None:
    """Refuse a path that no file can have, or that tables, logs and messages cannot hold.

    Raises:
        UsageError: control characters, bytes that are no text, or too long a name.
    """
    if any(unicodedata.category(character) in _CONTROL for character in path):
        # In its escaped form, which is safe to print.
        shown = ascii(path)[1:-1]
        raise UsageError(flag, shown, "expected a path in UTF-8 without control characters")
    lengths = [len(os.fsencode(part)) for part in Path(path).parts]
    if max(lengths, default=0) > LONGEST_NAME:
        reason = f"has a name of {max(lengths)} bytes; expected at most {LONGEST_NAME}"
        raise UsageError(flag, _shortened(path), reason)
    if (length := len(os.fsencode(path))) > _LONGEST_PATH:
        reason = f"has {length} bytes; expected at most {_LONGEST_PATH}"
        raise UsageError(flag, _shortened(path), reason)


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


_SHOWN = 60

_ROOM = len("_train_task.json") + TEMPORARY_ADDS
"""What the longest file name adds to a cell's, and a file that is being written to its own."""


def check_file_names(flag: str, given: str, stems: Iterable[str]) -> None:
    """Refuse a name by which a file of a cell would get too long a name.

    Args:
        flag: the flag that gave it.
        given: the name.
        stems: paths of cells without suffix, `/` between folders.

    Raises:
        UsageError: says how much shorter the name has to be.
    """
    longest = max((len(os.fsencode(part)) for stem in stems for part in stem.split("/")), default=0)
    if (excess := longest + _ROOM - LONGEST_NAME) > 0:
        length = len(os.fsencode(given))
        reason = f"has {length} bytes; expected at most {length - excess}, for the names of files"
        raise UsageError(flag, _shortened(given), reason)


def check_model_folder(name: str) -> None:
    """Refuse a local folder without a model, and one whose weights cannot become floats.

    A possible hub id is checked later, when its config is fetched.

    Raises:
        UsageError: no readable config.json or GGUF file, or a checkpoint quantised in a way that
            cannot be undone.
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
    if (settings := quantisation_of(content)) is not None:
        check_quantised(name, settings)


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
    check_path(flag, str(folder))
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return
    except OSError as error:
        raise UsageError(
            flag, folder, f"expected a folder that can be written ({error.strerror})"
        ) from None
