"""Print lines. Everything that this package prints goes through here.

Names, metadata and answers that others wrote can hold control characters, with which a text
rewrites what the terminal has shown, and marks that turn the direction of a line. They are printed
as escapes.
"""

from __future__ import annotations

import re
import sys
from typing import Any, TextIO

from tqdm import tqdm

PROGRAM = "neurosurgery"
"""The command of the installed package."""

_HIDDEN = (
    # Control characters, without tab and line feed.
    r"\x00-\x08\x0b-\x1f\x7f-\x9f"
    # Marks that show nothing or change the direction; not the joiners U+200C and U+200D, which
    # belong to words.
    r"\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f"
    # Halves of a character, which no encoding takes: names of files that are no UTF-8.
    r"\ud800-\udfff"
)
_IN_TEXT = re.compile(f"[{_HIDDEN}]")
_IN_LINE = re.compile(f"[{_HIDDEN}\t\n]")


def _escape(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode("ascii")


def visible_text(text: str) -> str:
    """The text with every control character but tab and line feed as Python's escape of it."""
    return _IN_TEXT.sub(_escape, text)


def visible_line(text: object) -> str:
    """The text as one line: as `visible_text`, with tabs and line feeds as escapes, too."""
    return _IN_LINE.sub(_escape, str(text))


def error_line(text: str) -> str:
    """The text as the one line that an error is: blanks and line ends of any kind are one blank."""
    return visible_line(" ".join(text.split()))


def say_error(text: str) -> None:
    """Print one line on standard error, also where everything else is quiet."""
    _print(error_line(text), sys.stderr)


def be_quiet(quiet: bool) -> None:
    """Whether from now on errors alone are printed, and no progress."""
    _State.quiet = quiet


class _State:
    quiet = False


def has_bars() -> bool:
    """Whether progress is drawn: on a terminal, which no log file is."""
    return not _State.quiet and sys.stderr is not None and sys.stderr.isatty()


def progress(*arguments: Any, **options: Any) -> tqdm:
    """A progress bar, as tqdm takes it; none where everything is quiet, or in a log file."""
    return tqdm(*arguments, **options | {"disable": not has_bars() or options.get("disable")})


def say(text: str, *, file: TextIO | None = None, flush: bool = False) -> None:
    """Print a text, above a progress bar if one runs; control characters as escapes.

    Args:
        text: one line or more.
        file: where to; None for standard output.
        flush: whether it must be seen at once.
    """
    if _State.quiet:
        return
    _print(text, sys.stdout if file is None else file)
    if flush and (stream := file or sys.stdout) is not None:
        stream.flush()


def _print(text: str, stream: TextIO | None) -> None:
    # Python has no stream where the process was started without one.
    if stream is None:
        return
    tqdm.write(visible_text(text), file=stream)
