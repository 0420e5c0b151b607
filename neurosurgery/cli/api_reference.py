"""The reference page of the Python names, docs/API.md, from their docstrings.

`python -m neurosurgery.cli.api_reference > docs/API.md` writes it. The names are those of
`neurosurgery/__init__.pyi`, in its order.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import neurosurgery
from neurosurgery.common.terminal import say

_HEAD = """\
# Python

Made from the docstrings by `python -m neurosurgery.cli.api_reference`; a test holds that it is
current. `import neurosurgery as ns` gives all of these names. [From Python](PYTHON.md) shows them
at work.
"""
_SECTION = re.compile(r"(Args|Returns|Yields|Raises|Attributes|Source|Examples?):(.*)")
_ITEM = re.compile(r" {4}([\w*]+(?:, [\w*]+)*): (.*)")


def reference_text() -> str:
    """The page in Markdown."""
    things = [(name, getattr(neurosurgery, name)) for name in neurosurgery.__all__]
    things = [(name, thing) for name, thing in things if callable(thing)]
    things.sort(key=lambda each: _folder(each[1]))
    lines = [_HEAD]
    for folder, group in groupby(things, key=lambda each: _folder(each[1])):
        lines.append(f"## {folder}\n")
        for name, thing in group:
            lines += [f"### {name}\n", f"```text\n{_signature(name, thing)}\n```\n"]
            lines += [*_markdown(inspect.getdoc(thing) or ""), ""]
            for method, function in _methods(thing):
                lines += [f"**`{name}.{method}{_short(function)}`** ", ""]
                lines += [*_markdown(inspect.getdoc(function) or ""), ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def _folder(thing: Any) -> str:
    return thing.__module__.split(".")[1]


def _short(function: Any) -> str:
    plain = isinstance(function, property)
    if plain or (inspect.isclass(function) and issubclass(function, Exception)):
        return ""
    return _plain(str(inspect.signature(function)))


def _plain(signature: str) -> str:
    """Annotations without quotes and modules."""
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Za-z_])", "", signature).replace("'", "")


def _signature(name: str, thing: Any) -> str:
    """The call, an argument per line where it is long."""
    text = f"{name}{_short(thing)}"
    if len(text) <= 90:
        return text
    parts = [str(each) for each in inspect.signature(thing).parameters.values()]
    result = text.rpartition(")")[2]
    return "\n".join([f"{name}(", *(f"    {_plain(part)}," for part in parts), f"){result}"])


def _methods(thing: Any) -> Iterator[tuple[str, Any]]:
    """What a class defines itself, without what Python calls."""
    if not inspect.isclass(thing):
        return
    for name, value in vars(thing).items():
        function = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        if not name.startswith("_") and (
            inspect.isfunction(function) or isinstance(value, property)
        ):
            yield name, function


def _markdown(text: str) -> Iterator[str]:
    """A docstring's sections as bold words, its arguments as a list, its examples as code."""
    fenced = False
    for line in text.splitlines():
        is_code = line.lstrip().startswith((">>>", "...")) or (fenced and line.strip() != "")
        if is_code != fenced:
            yield "```" if fenced else "\n```python"
            fenced = is_code
        if fenced:
            yield line.strip() if line.lstrip().startswith((">>>", "...")) else line.lstrip()
        elif section := _SECTION.fullmatch(line):
            yield from ("", f"**{section[1]}**{section[2]}", "")
        elif item := _ITEM.fullmatch(line):
            yield f"- `{item[1]}`: {item[2]}"
        elif line.startswith(" " * 8):
            yield f"  {line.strip()}"
        else:
            yield line.strip()
    if fenced:
        yield "```"


if __name__ == "__main__":
    say(reference_text().removesuffix("\n"))
