"""Write calibration files from data sets of the hub, when a run needs them."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

from neurosurgery.common.errors import UsageError, first_line
from neurosurgery.common.files import write_atomically
from neurosurgery.common.hub import HubPlace, load_split
from neurosurgery.common.terminal import progress
from neurosurgery.data.hub_samples import SOURCES, Row, Source

FOLDER = "data"
"""Only in a folder of this name are missing files made: elsewhere a name may mean another file."""


def can_be_prepared(path: Path) -> bool:
    """Whether a file is one of those that `write_samples` makes, and is not there."""
    known = path.suffix == ".csv" and path.stem in SOURCES
    return known and path.absolute().parent.name == FOLDER and not path.exists()


def write_samples(path: Path) -> str:
    """Write one CSV file, a row per sample, from the hub or the local cache.

    Args:
        path: the name without suffix is a key of `SOURCES`.

    Returns:
        A line that says what is in it: rows, size, SHA-256.

    Raises:
        UsageError: the data set is in neither.
    """
    source = SOURCES[path.stem]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(source.columns)
    count = 0
    for config in source.configs:
        rows = _load_rows(path.stem, source, config)
        shown = progress(rows, desc=f"{path.stem} {config or ''}", unit="row", leave=False)
        for row in source.rows(shown):
            writer.writerow(row)
            count += 1
    content = text.getvalue().encode()
    write_atomically(path, content)
    size = f"{len(content) / 1e6:,.1f} MB"
    return f"{path}: {count:,} rows, {size}, sha256 {hashlib.sha256(content).hexdigest()}"


def _load_rows(name: str, source: Source, config: str | None) -> Iterable[Row]:
    """Load one configuration.

    Raises:
        UsageError: neither the hub nor the local cache has it.
    """
    try:
        return load_split(HubPlace(source.path, config, source.split, None))
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(
            source.path,
            config or "",
            f"neither the hub nor the local cache has it ({first_line(error)}); with network, "
            f"python data/prepare.py {name} writes data/{name}.csv",
        ) from None
