"""Documents from a text file: the beginnings of its paragraphs, in the layout that they have."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from neurosurgery.common.errors import UsageError

_PARAGRAPH = re.compile(r"(?:[^\n]*\S[^\n]*(?:\n|\Z))+")
"""Lines without a blank one between them, with the indentation of the first."""


def beginnings(text: str, words: int, *, across: bool = False, one_line: bool = False) -> list[str]:
    """The first words of every paragraph that has so many; a blank line ends a paragraph.

    Line breaks, tabs and indentation stay as they are, for a model reads them: code without them
    is another text.

    Args:
        text: the whole text.
        words: how many words (runs of anything but white space) each beginning has.
        across: go on over blank lines until there are so many words; the next one begins at the
            paragraph after that.
        one_line: make every run of white space one blank, for text with lines of fixed width.
    """
    return [
        " ".join(found.split()) if one_line else found
        for found in _beginnings(text.replace("\r\n", "\n"), words, across)
    ]


def _beginnings(text: str, words: int, across: bool) -> Iterator[str]:
    first = re.compile(rf"\s*\S+(?:\s+\S+){{{words - 1}}}")
    taken = 0
    for paragraph in _PARAGRAPH.finditer(text):
        end = len(text) if across else paragraph.end()
        if paragraph.start() >= taken and (found := first.match(text, paragraph.start(), end)):
            taken = found.end()
            yield found.group()


def spread(items: Sequence[str], count: int) -> list[str]:
    """`count` of the items, evenly spaced from the first on."""
    return [items[index * len(items) // count] for index in range(count)]


def read_text(path: Path) -> str:
    """The file's text; a name that ends in .gz is unpacked.

    Raises:
        UsageError: it cannot be read, or is not UTF-8.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        # A byte order mark at the start is no text.
        return content.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError("FILE", path, f"expected a text file ({error})") from None
    except UnicodeDecodeError as error:
        raise UsageError("FILE", path, f"expected UTF-8 text ({error.reason})") from None
