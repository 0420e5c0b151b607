"""A setting is declared once; everything that knows of it reads its declaration.

1. A `Setting` says name, type, default, range and help of one setting. `add_to` makes its flag;
   what nobody gives is None.
2. `resolve` takes what was given, checks the ranges, and fills in defaults: `Settings`.
3. From `Settings` follow the run's identity (`facts`), what its run.yaml holds (`travelling`),
   and the configuration of every room (`cli/parse.py`).

The reference page (`reference.py`) and the report's table of settings come from the same
declarations. Imports no torch.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar, cast

from neurosurgery.common.errors import UsageError
from neurosurgery.settings.identity import CELLS, Fact, Identity

T = TypeVar("T")

MOST = 2**31 - 1
"""Larger counts are typing errors, which would run for ever or end deep in a library."""


@dataclass(frozen=True)
class Range:
    """Which numbers a setting takes.

    Attributes:
        text: what is expected, for the reference page.
        refuse: says what was expected of a value that is not taken; None of one that is.
    """

    text: str
    refuse: Callable[[Any], str | None]


def number(text: str, holds: Callable[[float], bool]) -> Range:
    """Numbers for which `holds` is true; of NaN every comparison is false."""
    return Range(text, lambda value: None if holds(value) else f"expected {text}")


def whole(least: int, most: int | None = MOST) -> Range:
    """Whole numbers from `least` to `most`, both included."""

    def refuse(value: int) -> str | None:
        if value < least:
            return f"expected a whole number of at least {least}"
        if most is not None and value > most:
            return f"expected a whole number of at most {most:,}"
        return None

    at_most = "" if most in (None, MOST) else f" and at most {most:,}"
    return Range(f"a whole number of at least {least}{at_most}", refuse)


def all_of(text: str, *parts: Range) -> Range:
    """Numbers that every part takes; the first part that does not says what was expected."""

    def refuse(value: Any) -> str | None:
        reasons = (part.refuse(value) for part in parts)
        return next((reason for reason in reasons if reason is not None), None)

    return Range(text, refuse)


FRACTION = number("a fraction in (0, 1]", lambda value: 0 < value <= 1)
FINITE = number("a finite number", math.isfinite)


@dataclass(frozen=True)
class Setting:
    """One setting of a script.

    Attributes:
        name: its flag is `--NAME`, its key in a YAML file NAME.
        kind: str, int, float, bool or Path.
        help: what it is, without its default.
        default: its value where nobody gives one; None for no value.
        demo: the same where no `--model` is given; None for `default`.
        whole_demo: the demo's value holds only if none of these is given.
        otherwise: what no value means, in words.
        published: its name in the published scripts, where it differs; both are flags.
        many: takes one value or more.
        once: repeated values count once; else they stay, to be refused or used.
        choices: the values that it takes.
        range: the numbers that it takes.
        metavar: what stands for its value in the help.
        is_file: its value is a path; of the demo's it is not written down.
        identity: the part of a results folder (`settings.identity`) in which no two runs may differ
            in this setting; empty where they may.
        capped_by: a setting that its value may not exceed.
        ordered: whether the order of its values counts.
        travels: a YAML file may hold it; no file may delete, run foreign code, say where to, or
            choose what it holds itself.
    """

    name: str
    kind: type
    help: str
    default: Any = None
    demo: Any = None
    whole_demo: tuple[str, ...] = ()
    otherwise: str = ""
    published: str = ""
    many: bool = False
    once: bool = False
    choices: Collection[str] | None = None
    range: Range | None = None
    metavar: str = ""
    is_file: bool = False
    identity: str = ""
    capped_by: str = ""
    ordered: bool = True
    travels: bool = True

    @property
    def flag(self) -> str:
        """The flag in messages: the published name where there is one."""
        return f"--{self.published or self.name}"

    @property
    def flags(self) -> tuple[str, ...]:
        """The clear name and the published one."""
        return tuple(f"--{name}" for name in (self.name, self.published) if name)

    @property
    def default_text(self) -> str:
        """What holds where nobody gives a value, in words; empty for a switch."""
        if self.kind is bool:
            return ""
        parts = [self.otherwise or ("" if self.default is None else shown(self.default))]
        if self.demo is not None and not self.is_file:
            parts.append(f"demo: {shown(self.demo)}")
        return "; ".join(part for part in parts if part)

    def add_to(self, group: argparse._ArgumentGroup) -> None:
        """Make the flag."""
        text = self.help + (f" (default: {self.default_text})" if self.default_text else "")
        text = text.replace("%", "%%")
        if self.kind is bool:
            group.add_argument(
                *self.flags, dest=self.name, action="store_const", const=True, help=text
            )
            if self.travels:
                # So that a flag can win over a file.
                group.add_argument(
                    *(f"--no_{flag.removeprefix('--')}" for flag in self.flags),
                    dest=self.name,
                    action="store_const",
                    const=False,
                    help=argparse.SUPPRESS,
                )
            return
        group.add_argument(
            *self.flags,
            dest=self.name,
            nargs="+" if self.many else None,
            type=(lambda text: text) if self.kind is str else self.kind,
            choices=self.choices and list(self.choices),
            metavar=self.metavar or None,
            help=text,
        )

    def check(self, value: Any) -> None:
        """Refuse numbers out of range.

        Raises:
            UsageError: names flag and value.
        """
        for one in value if self.many else (value,):
            if self.range is not None and (reason := self.range.refuse(one)) is not None:
                raise UsageError(self.flag, shown_number(one), reason)

    def value(self, given: Any, others: Mapping[str, Any]) -> Any:
        """The value that holds.

        Args:
            given: by a flag or a file; None for neither.
            others: what was given of all settings.
        """
        value = given
        if value is None:
            value = self.demo if self._takes_demo(others) else self.default
            value = False if value is None and self.kind is bool else value
        if value is None or not self.many:
            return value
        # Without -0.0, which names other files than 0.0.
        values = [one + 0.0 if isinstance(one, float) else one for one in value]
        return tuple(dict.fromkeys(values) if self.once else values)

    def is_of_demo(self, others: Mapping[str, Any]) -> bool:
        """Whether the value is the demo's."""
        return others[self.name] is None and self._takes_demo(others)

    def _takes_demo(self, others: Mapping[str, Any]) -> bool:
        left_out = all(others.get(name) is None for name in ("model", *self.whole_demo))
        return self.demo is not None and left_out


def is_given(value: Any) -> bool:
    """Whether a value says anything: 0 does, a switch that is off does not."""
    return value is not None and value is not False


Groups = Mapping[str, Sequence[Setting]]
"""Settings by the title that they stand under in the help."""


@dataclass(frozen=True)
class Settings:
    """The settings of one run; a value is an attribute by the setting's name.

    Attributes:
        script: the script's name.
        command: the command line as it was typed.
        declared: every setting of the script.
        given: what flags and file gave, None for the rest.
        values: the values that hold.
        unused: settings that say nothing beside the others, and are not written down.
    """

    script: str
    command: tuple[str, ...]
    declared: tuple[Setting, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    unused: Collection[str] = ()

    def __getattr__(self, name: str) -> Any:
        # A copy is asked for names before it has values.
        if name.startswith("__") or name not in self.values:
            raise AttributeError(name)
        return self.values[name]

    @property
    def of_demo(self) -> bool:
        """Whether the embedded demo runs."""
        return self.given.get("model") is None

    def facts(self, part: str) -> Identity:
        """What a part of a results folder depends on, as far as settings alone tell."""
        return Identity(
            Fact(one.name, self._identifying(one), "" if part == CELLS else part)
            for one in self.declared
            if one.identity == part and one.name not in self.unused
        )

    def _identifying(self, one: Setting) -> Any:
        value = plain(self.capped(one.name))
        return value if one.ordered or value is None else sorted(value)

    def capped(self, name: str) -> Any:
        """The value of a setting, at most that of the setting which caps it."""
        cap_name = next(one.capped_by for one in self.declared if one.name == name)
        value, cap = self.values[name], self.values.get(cap_name)
        return value if cap is None else cap if value is None else min(value, cap)

    @property
    def travelling(self) -> dict[str, Any]:
        """What repeats the run elsewhere, as plain data; what the demo brings is left out."""
        found = {}
        for one in self.declared:
            value = self.values[one.name]
            of_demo = one.is_file and one.is_of_demo(self.given)
            # A switch that was turned off may be on by default.
            says = is_given(value) or self.given[one.name] is False
            if one.travels and says and value != () and not (of_demo or one.name in self.unused):
                found[one.name] = plain(value)
        return found

    @property
    def flags_alone(self) -> list[str]:
        """What a repetition needs besides, and no file may hold, as words of a command."""
        words = []
        for name in ("trust_remote_code", "include_path"):
            if is_given(value := self.given.get(name)):
                words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        return words

    def part(self, room: Callable[..., T], **more: Any) -> T:
        """The settings of one room: a dataclass, whose fields have the names of settings.

        Args:
            room: the dataclass.
            more: fields of another name, or another value.
        """
        names = {one.name for one in fields(cast(Any, room))} & self.values.keys()
        return room(**{name: self.values[name] for name in names} | more)

    def with_values(self, unused: Collection[str] = (), /, **values: Any) -> Settings:
        """The same with values that only several settings together tell."""
        return replace(self, values={**self.values, **values}, unused=unused)

    def check_given_with_model(self, names: Iterable[str]) -> None:
        """Refuse `--model` without these: the demo's data say nothing about another model.

        Raises:
            UsageError: lists the flags that are missing.
        """
        flags = {one.name: one.flag for one in self.declared}
        missing = [flags[name] for name in names if self.given[name] is None]
        if not self.of_demo and missing:
            reason = f"expected with it {', '.join(missing)}; only the demo brings its own"
            raise UsageError("--model", self.given["model"], reason)


def resolve(
    script: str, command: Sequence[str], groups: Groups, given: Mapping[str, Any]
) -> Settings:
    """Check what was given, and fill in the rest.

    Args:
        script: the script's name.
        command: the command line.
        groups: the script's settings.
        given: a value of every setting; None where nobody gave one.

    Raises:
        UsageError: a number is out of range.
    """
    declared = tuple(one for group in groups.values() for one in group)
    values = {one.name: one.value(given[one.name], given) for one in declared}
    for one in declared:
        if values[one.name] is not None:
            one.check(values[one.name])
    return Settings(script, tuple(command), declared, dict(given), values)


def shown_number(value: Any) -> Any:
    """A number as the user may have typed it."""
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return value


def shown(value: Any) -> str:
    """A default in the help: lists with blanks, numbers without a leading zero."""
    if isinstance(value, (list, tuple)):
        return " ".join(map(shown, value))
    if isinstance(value, float):
        return f"{value:g}".replace("0.", ".", 1) if 0 < abs(value) < 1 else f"{value:g}"
    return str(value)


def plain(value: Any) -> Any:
    """A value in the types of JSON and YAML."""
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
