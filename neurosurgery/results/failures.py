"""Notes on cells that were given up, in `SAVE_PATH/failed`."""

from __future__ import annotations

import json
from pathlib import Path

from neurosurgery.common.files import write_atomically
from neurosurgery.results.keys import CellKey

FOLDER = "failed"


def failure_file(root: Path, model: str, key: CellKey) -> Path:
    """The path of a cell's note."""
    return root / FOLDER / model / f"{key.stem}.json"


def write_failure(root: Path, model: str, key: CellKey, reason: str, attempts: int) -> None:
    """Write why a cell was given up, and after how many attempts."""
    content = {"key": key.record(), "reason": reason, "attempts": attempts}
    write_atomically(failure_file(root, model, key), json.dumps(content, indent=1) + "\n")


def given_up(root: Path, model: str) -> list[str]:
    """The names of the cells that have a note, sorted."""
    folder = root / FOLDER / model
    return sorted(
        path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.json")
    )


def clear_failure(root: Path, model: str, key: CellKey) -> None:
    """Delete the note of a cell that is finished now."""
    failure_file(root, model, key).unlink(missing_ok=True)
