"""Data sets of the Hugging Face hub, by name. Imports `datasets` only where one is loaded."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from neurosurgery.common.errors import UsageError, first_line

PREFIX = "hub:"
FORM = "hub:OWNER/NAME[@CONFIG]:SPLIT[:COLUMN]"

_PLACE = re.compile(
    r"hub:(?P<name>[\w.-]+(/[\w.-]+)?)(@(?P<config>[^:@]+))?"
    # A split may be cut: train[:100].
    r":(?P<split>[^:\[]+(\[[^\]]*\])?)(:(?P<column>[^:]+))?"
)


class HubPlace(NamedTuple):
    """A split of a data set of the hub, and one column of it or all (None)."""

    name: str
    config: str | None
    split: str
    column: str | None


def is_of_hub(source: Path | str) -> bool:
    """Whether a source of samples is a data set of the hub."""
    return str(source).startswith(PREFIX)


def hub_place(flag: str, source: str) -> HubPlace:
    """Take a source of the form `FORM` apart.

    Raises:
        UsageError: it has another form.
    """
    found = _PLACE.fullmatch(source)
    if found is None:
        raise UsageError(
            flag, source, f"expected {FORM}, like hub:openai/gsm8k@main:train:question"
        )
    return HubPlace(**{name: found[name] for name in HubPlace._fields})


def load_rows(flag: str, source: str) -> list[Mapping[str, Any]]:
    """The rows of a source of the form `FORM`, from the hub or the local cache.

    Of one with a column they hold this column alone, called `text`.

    Raises:
        UsageError: it has another form or lacks the column, or neither has it.
    """
    place = hub_place(flag, source)
    try:
        rows: list[Mapping[str, Any]] = list(load_split(place))
    except (OSError, ValueError, RuntimeError) as error:
        reason = f"neither the hub nor the local cache has it ({first_line(error)})"
        raise UsageError(flag, source, reason) from None
    if place.column is None:
        return rows
    if rows and place.column not in rows[0]:
        found = ", ".join(rows[0])
        raise UsageError(flag, source, f"has the columns {found}; expected {place.column}")
    return [{"text": row[place.column]} for row in rows]


def load_split(place: HubPlace) -> Iterable[Mapping[str, Any]]:
    """Load one split; what `datasets` raises is left to the caller."""
    # Seconds to import, and rarely needed.
    from datasets import load_dataset, logging

    told = logging.get_verbosity()
    # Offline it would say three lines for each of 41 subjects.
    logging.set_verbosity_error()
    try:
        return load_dataset(place.name, place.config, split=place.split)
    finally:
        logging.set_verbosity(told)


_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE")
"""Variables of the environment that the Hugging Face libraries read when they are imported."""

_READ_INTO = (
    ("huggingface_hub.constants", "HF_HUB_OFFLINE"),
    ("datasets.config", "HF_HUB_OFFLINE"),
    ("datasets.config", "HF_DATASETS_OFFLINE"),
    ("evaluate.config", "HF_EVALUATE_OFFLINE"),
)
"""Where they keep what they have read, and look when something is asked for."""


@contextmanager
def offline() -> Iterator[None]:
    """Inside the block nothing is downloaded: what is not on this machine is not there."""
    before = {name: os.environ.get(name) for name in _OFFLINE}
    known = {
        (name, attribute): getattr(sys.modules[name], attribute)
        for name, attribute in _READ_INTO
        if hasattr(sys.modules.get(name), attribute)
    }
    os.environ.update(dict.fromkeys(_OFFLINE, "1"))
    for name, attribute in known:
        setattr(sys.modules[name], attribute, True)
    try:
        yield
    finally:
        for variable, value in before.items():
            if value is None:
                del os.environ[variable]
            else:
                os.environ[variable] = value
        usual = before["HF_HUB_OFFLINE"] in ("1", "ON", "YES", "TRUE", "true")
        for name, attribute in _READ_INTO:
            if hasattr(module := sys.modules.get(name), attribute):
                # A library that the block has imported has read the block's variables.
                setattr(module, attribute, known.get((name, attribute), usual))
