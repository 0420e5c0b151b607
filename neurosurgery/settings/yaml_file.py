"""Settings in a YAML file: read for `--config`, written as run.yaml into every results folder.

A file holds settings by name (the published names do, too), or by script and name, as run.yaml does
where several scripts share a folder. Its values go through the script's own parser, so that a file
is checked as flags are.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from neurosurgery.common.errors import UsageError, first_line
from neurosurgery.settings.declare import Setting

FLAG = "--config"
FILE = "run.yaml"
_HEADER = "# python SCRIPT --config THIS_FILE --save_path ANOTHER_FOLDER repeats the run.\n"


_SCRIPT = ".py"
"""How the name of a script ends, under which a file may hold its settings."""


class _Loader(yaml.BaseLoader):
    """PyYAML's loader of text alone: `010` is no octal number, `1:30` no number of minutes.

    It makes no objects. Of two equal keys it would take the last; they are refused.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a dictionary of a node.

        Raises:
            ValueError: a key stands twice.
        """
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, name in enumerate(names):
            if name in names[:place]:
                raise ValueError(f"{name} stands there twice")
        return super().construct_mapping(node, deep)


def words_of(path: Path, script: str, declared: Sequence[Setting]) -> list[str]:
    """The settings of a file as words of a command line.

    Raises:
        UsageError: no such file, no YAML, a setting that is unknown, stands twice, or may only be
            given as a flag, or a value of the wrong kind.
    """
    known = {name: one for one in declared for name in (one.name, one.published) if name}
    found: dict[str, tuple[str, Any]] = {}
    for key, value in _section(path, script).items():
        one = known.get(str(key).replace("-", "_"))
        if one is None:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(FLAG, path, f"{script} has no setting {key}{hint}")
        if not one.travels:
            raise UsageError(FLAG, path, f"{key} is taken from the command line alone: {one.flag}")
        if one.name in found:
            raise UsageError(FLAG, path, f"{key} and {found[one.name][0]} are one setting")
        found[one.name] = str(key).replace("-", "_"), value
    return [
        word
        for name, (key, value) in found.items()
        for word in _words(path, key, known[name], value)
    ]


def _section(path: Path, script: str) -> Mapping[Any, Any]:
    """The part of a file that is about a script."""
    try:
        content = _Loader(path.read_text(encoding="utf-8")).get_single_data()
    except OSError as error:
        reason = f"expected a YAML file of settings, found: {error.strerror}"
        raise UsageError(FLAG, path, reason) from None
    except (UnicodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        reason = "expected a YAML file of settings"
        raise UsageError(FLAG, path, f"{reason} ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise UsageError(FLAG, path, "expected a YAML file of settings, NAME: VALUE")
    sections = {key: part for key, part in content.items() if str(key).endswith(_SCRIPT)}
    if not sections:
        return content
    if script not in sections:
        raise UsageError(FLAG, path, f"has no settings of {script}, only of {', '.join(sections)}")
    if not isinstance(sections[script], dict):
        raise UsageError(FLAG, path, f"{script}: expected settings, NAME: VALUE")
    return sections[script]


def _words(path: Path, key: str, one: Setting, value: Any) -> Iterator[str]:
    """One setting as words."""
    expected = "one value or more" if one.many else "one value"
    values = value if isinstance(value, list) else [value]
    if isinstance(value, dict) or any(isinstance(each, (list, dict)) for each in values):
        raise UsageError(FLAG, path, f"{key} holds settings or lists; expected {expected}")
    if isinstance(value, list) and not (one.many and value):
        raise UsageError(FLAG, path, f"{key} is a list of {len(value)}; expected {expected}")
    if not all(each.strip() for each in values):
        raise UsageError(FLAG, path, f"{key} is empty; expected a value, or no line of it")
    flag = f"--{key}"
    if one.kind is bool:
        if value not in ("true", "false"):
            raise UsageError(FLAG, path, f"{key} is {value}; expected true or false")
        yield flag if value == "true" else f"--no_{key}"
    elif one.many:
        yield flag
        yield from values
    else:
        yield f"{flag}={value}"


def run_yaml(by_script: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of a folder's run.yaml."""
    content = {script: dict(values) for script, values in by_script.items()}
    return _HEADER + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)


def is_ours(path: Path) -> bool:
    """Whether a file is a run.yaml that a script wrote; one of the user's is left alone."""
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline() == _HEADER
    except (OSError, UnicodeError):
        return False
