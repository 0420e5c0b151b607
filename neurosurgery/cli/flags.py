"""The parser of a script, made from its declared settings. Imports no torch."""

from __future__ import annotations

import argparse
import difflib
import importlib.metadata
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from neurosurgery.cli.scripts import groups_of
from neurosurgery.common.errors import UsageError
from neurosurgery.common.terminal import error_line, say
from neurosurgery.settings.declare import Groups, Setting, Settings, resolve
from neurosurgery.settings.parts import CALIBRATION, EVALUATION, TASKS

_VERSIONS = ("torch", "transformers", "lm_eval")


class OneLineParser(argparse.ArgumentParser):
    """A parser that reports a bad flag in one line, and refuses empty values of any flag.

    `--eval-datasets` is read as `--eval_datasets`, and an unknown flag gets the nearest one.
    """

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; what is unknown gets a suggestion."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._near(unknown)}")
        return found

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, with `-` in the name of a flag as `_`."""
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args([self._plain(word) for word in words], namespace)

    def _plain(self, word: str) -> str:
        name, equals, value = word.partition("=")
        plain = name[:2] + name[2:].replace("-", "_")
        known = self._option_string_actions
        return plain + equals + value if name not in known and plain in known else word

    def _near(self, unknown: Sequence[str]) -> str:
        flags = [word.partition("=")[0].replace("-", "_") for word in unknown if word[:2] == "--"]
        known = {name[2:]: name for name in self._names()}
        near = [
            found for f in flags[:1] for found in difflib.get_close_matches(f[2:], known, 1, 0.75)
        ]
        return f" (did you mean {known[near[0]]}?)" if near else ""

    def _names(self) -> Iterator[str]:
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    yield from parser._names()
            elif action.help is not argparse.SUPPRESS:
                yield from (name for name in action.option_strings if name.startswith("--"))

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        # An unset shell variable must not stand for a default, or for the working directory. A
        # flag with `type=str` checks its text itself; a command's own parser knows its flags.
        checks_itself = action.type is str or isinstance(action, argparse._SubParsersAction)
        if not (arg_string.strip() or checks_itself):
            name = action.option_strings[0] if action.option_strings else str(action.metavar)
            raise UsageError(name, "", f"expected a value, found {arg_string!r}")
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError:
            if (kind := _KINDS.get(action.type)) is None:
                raise
            raise UsageError(_flag(action), arg_string, f"expected {kind}") from None

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices and action.option_strings:
            raise UsageError(_flag(action), value, f"expected {', '.join(action.choices)}")
        super()._check_value(action, value)

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"{error_line(f'{self.prog}: error: {message}')}\n")


_KINDS: dict[Any, str] = {int: "a whole number", float: "a number"}


def _flag(action: argparse.Action) -> str:
    """What messages call a flag: the published name, which stands behind the clear one."""
    return action.option_strings[-1]


class _Help(argparse.RawDescriptionHelpFormatter):
    """Both names of a flag before one metavar."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"


class VersionAction(argparse.Action):
    """Print the versions that numbers depend on."""

    def __call__(self, parser: argparse.ArgumentParser, *_arguments: object) -> None:
        """Print them, and stop."""
        say(version_text())
        parser.exit(0)


def version_text() -> str:
    """The suite's version, those of the libraries, and the device that runs by default."""
    import torch

    from neurosurgery import __version__

    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else "cpu"
    versions = [f"{name} {importlib.metadata.version(name)}" for name in _VERSIONS]
    return "\n".join([f"neurosurgery {__version__}", *versions, f"device {device}"])


def script_parser(description: str, groups: Groups, program: str | None) -> OneLineParser:
    """The parser of a script; the description keeps its lines."""
    parser = OneLineParser(
        program, description=description, formatter_class=_Help, allow_abbrev=False
    )
    parser.add_argument(
        "--version", action=VersionAction, nargs=0, help="print versions and device, and stop"
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="YAML",
        help="settings from a file, as a run leaves them in run.yaml; flags win over it",
    )
    add_settings(parser, groups)
    return parser


def add_settings(parser: argparse.ArgumentParser, groups: Groups) -> None:
    """Add the flags of settings, group by group."""
    for title, group in groups.items():
        under = parser.add_argument_group(title)
        for setting in group:
            setting.add_to(under)


def as_typed(line: str, words: Sequence[str]) -> str:
    """A message with the clear name of a flag where the command line, or a file, uses it."""
    typed = {word.partition("=")[0].replace("-", "_") for word in words}
    for setting in (*CALIBRATION, *TASKS, *EVALUATION):
        clear, *published = setting.flags
        for flag in published:
            by_file = "__config" in typed and flag.replace("-", "_") not in typed
            if clear.replace("-", "_") in typed or by_file:
                line = re.sub(rf"{flag}(?![a-z_])", clear, line)
    return line


def _check_place(config: Path, setting: Setting, value: Any) -> None:
    """Refuse a path that a file gives from its own folder: from flags and files it is from here.

    Raises:
        UsageError: the path leads nowhere from here, and somewhere from the file's folder.
    """
    if not (setting.is_file or setting.kind is Path):
        return
    for path in map(Path, value if setting.many else (value,)):
        there = config.parent / path
        if not path.exists() and there.exists():
            reason = f"is not here, but beside the file; write {there}, or run it in that folder"
            raise UsageError(f"--{setting.name}", path, reason)


def read_settings(
    script: str, description: str, argv: Sequence[str] | None, call: Sequence[str] = ()
) -> Settings:
    """Read a script's command line, and the file that `--config` names.

    Args:
        script: the script.
        description: the text above its settings.
        argv: the command line; None for the process's.
        call: the words before it, as a folder keeps them; by default the script.

    Raises:
        UsageError: a value or a file that cannot be used.
        SystemExit: status 2 for a malformed flag, 0 for `--help` and `--version`.
    """
    groups = groups_of(script)
    parser = script_parser(description, groups, " ".join(call) if argv is not None else None)
    given = vars(parser.parse_args(argv))
    file: Path | None = given.pop("config")
    if file is not None:
        from neurosurgery.settings.yaml_file import words_of

        declared = [setting for group in groups.values() for setting in group]
        words = words_of(file, script, declared)
        try:
            of_file = vars(parser.parse_args(words))
            for setting in declared:
                if of_file[setting.name] is not None:
                    setting.check(of_file[setting.name])
                    _check_place(file, setting, of_file[setting.name])
        except UsageError as error:
            raise UsageError("--config", file, str(error)) from None
        given = {name: of_file[name] if one is None else one for name, one in given.items()}
    command = sys.argv if argv is None else [*(call or (script,)), *argv]
    return resolve(script, command, groups, given)
