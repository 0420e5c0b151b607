"""Read JSON that others may have written or damaged: whatever is wrong is a ValueError."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DEEPEST = 100
"""Levels of nesting that are read; deeper ones end Python's own functions in a RecursionError."""


_LINES = (".jsonl", ".ndjson", ".json")
"""Suffixes of files with a JSON object on every line."""


def is_of_lines(path: Path) -> bool:
    """Whether a file has a JSON object on every line, by its suffix."""
    return path.suffix.lower() in _LINES


class NoJson(ValueError):
    """A text that is no JSON at all."""


def parse_json(text: str | bytes) -> Any:
    """Parse JSON, in UTF-8 if it is bytes. NaN and infinities are read, for our results have them.

    Raises:
        NoJson: the text is none.
        ValueError: no UTF-8, a name that stands twice in an object, or more than `DEEPEST`
            levels.
    """
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        content = json.loads(text, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise ValueError(f"no UTF-8 text: byte {error.start} cannot be decoded") from None
    except json.JSONDecodeError as error:
        raise NoJson(f"no JSON: {error}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    # A text with few brackets needs no walk through what it holds.
    if text.count("[") + text.count("{") > DEEPEST and _is_deep(content):
        raise ValueError(_TOO_DEEP)
    return content


_TOO_DEEP = f"nested more than {DEEPEST} levels deep"


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the name {twice!r} stands twice in an object")
    return content


def _is_deep(content: Any) -> bool:
    level = [content]
    for _ in range(DEEPEST):
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds no JSON (`parse_json`).
    """
    return parse_json(path.read_bytes())


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds no JSON (`parse_json`), or something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 (the file is wrong, not the caller)
    return content


def sealed(content: Mapping[str, Any]) -> str:
    """The text of an object of ours, with a hash of what it holds."""
    return json.dumps({**content, _SEAL: _hash(content)}, indent=1) + "\n"


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what `sealed` gave, without the hash.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds no JSON object, or not what was written.
    """
    content = read_object(path)
    if content.pop(_SEAL, None) != _hash(content):
        raise ValueError("its content is not what was written")
    return content


_SEAL = "sha256"


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
