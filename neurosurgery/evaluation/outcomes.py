"""What can become of a generated program, and how an error of the sandbox tells."""

from __future__ import annotations

import builtins
import datetime
import importlib
import io
import operator
import re
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from decimal import Decimal
from typing import Any

RAN = "ran"
SYNTAX_ERROR = "syntax_error"
TIME_LIMIT = "time_limit"
MEMORY_LIMIT = "memory_limit"
FORBIDDEN = "forbidden"
NO_ANSWER = "no_answer"
UNSUPPORTED = "unsupported"
FAILED = "failed"

OUTCOMES = (
    RAN,
    SYNTAX_ERROR,
    TIME_LIMIT,
    MEMORY_LIMIT,
    FORBIDDEN,
    NO_ANSWER,
    UNSUPPORTED,
    FAILED,
)
"""Every program has one of these."""

_REACHING_OUT = frozenset(
    "asyncio atexit builtins code codecs codeop concurrent ctypes dbm fcntl fileinput ftplib gc "
    "glob http imaplib importlib inspect io logging marshal mmap multiprocessing nntplib os "
    "pathlib pdb pickle pip pkgutil platform poplib posix pty pwd pydantic_monty requests resource "
    "runpy select selectors shelve shutil signal site smtplib socket socketserver sqlite3 ssl "
    "subprocess sys sysconfig syslog tempfile telnetlib termios threading trace traceback tty "
    "urllib webbrowser winreg wsgiref xmlrpc zipfile zipimport _thread".split()
)
"""Modules that reach out of a program: files, network, processes, the interpreter itself."""

_FORBIDDEN_NAMES = frozenset(
    "__import__ __builtins__ __loader__ __spec__ breakpoint compile copyright credits exit globals "
    "help input license locals quit vars".split()
)

_INTERNALS = frozenset(
    "__base__ __bases__ __builtins__ __class__ __closure__ __code__ __defaults__ __delattr__ "
    "__dict__ __func__ __getattribute__ __globals__ __init_subclass__ __loader__ __module__ "
    "__mro__ __reduce__ __reduce_ex__ __self__ __setattr__ __spec__ __subclasses__ "
    "__subclasshook__ __weakref__ __wrapped__ cr_frame f_back f_globals f_locals gi_frame "
    "tb_frame".split()
)
"""Attributes that lead from an object to the interpreter."""

_LIBRARIES = frozenset("matplotlib numpy pandas scipy sklearn sympy torch".split())
"""Libraries that programs for word problems import."""

_HARMLESS = frozenset(
    "calendar cmath collections copy dataclasses datetime decimal enum fractions functools heapq "
    "itertools json math numbers operator random re statistics string textwrap time typing".split()
)
"""Modules that this process can look into, to see whether CPython has what Monty lacks."""

_NO_MODULE = re.compile(r"No module named '(\w+)")
_NO_NAME_IN_MODULE = re.compile(r"cannot import name '(\w+)' from '([\w.]+)'")
_NO_NAME = re.compile(r"name '(\w+)' is not defined")
_NO_ATTRIBUTE = re.compile(
    r"(?:(module|type object) )?'([\w.]+)'(?: object)? has no attribute '(\w+)'"
)
_NO_DICT = "no __dict__ for setting new attributes"
_NO_OPERATOR = re.compile(
    # `+=` is asked like `+`, which changes no sample.
    r"unsupported operand type\(s\) for (?P<operator>[^\s=]+)=?(?: or pow\(\))?: "
    r"'(?P<a>[\w.]+)' and '(?P<b>[\w.]+)'"
)
_NO_ORDER = re.compile(
    r"'(?P<operator>\S+)' not supported between instances of '(?P<a>[\w.]+)' and '(?P<b>[\w.]+)'"
)
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
    "&": operator.and_,
    "|": operator.or_,
    "^": operator.xor,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_READERS: dict[re.Pattern[str], Callable[..., Any]] = {
    re.compile(r"time data '(.*)' does not match format '(.*)'", re.DOTALL): (
        datetime.datetime.strptime
    ),
    re.compile(r"invalid literal for int\(\) with base 10: '(.*)'", re.DOTALL): int,
    re.compile(r"could not convert string to float: '(.*)'", re.DOTALL): float,
}
_NOT_DONE = re.compile(
    r"^The monty syntax parser|does not yet support|not yet supported|are not supported"
    r"|^cannot create 'object' instances|^cannot convert '(list|tuple|range|set)' object to bytes"
    r"|^'typing\.\w+' object is not|^(frozen)?set\.\w+\(\) takes exactly one argument"
    r"|^re\.Match\.\w+\(\) takes no keyword|^JSON\w+\.__init__\(\) got an unexpected keyword"
    r"|^pow\(\) 2nd argument cannot be negative"
)
"""Messages of the sandbox where CPython has none."""
_TIME = re.compile(r"feed time limit exceeded")


def outcome_of(error: BaseException, *, at_call: bool) -> str:
    """Name what stopped a program.

    Args:
        error: the exception.
        at_call: whether it was raised by the line that calls `solution` and reads its value, and
            not further inside.
    """
    text = str(error)
    if isinstance(error, TimeoutError) and _TIME.match(text):
        return TIME_LIMIT
    if isinstance(error, (MemoryError, RecursionError)):
        return MEMORY_LIMIT
    if at_call and isinstance(error, (NameError, TypeError, ValueError, OverflowError)):
        return NO_ANSWER
    if isinstance(error, PermissionError):
        return FORBIDDEN
    for kind, lacking in _LACKING.items():
        if isinstance(error, kind) and (found := lacking(text)) is not None:
            return found
    return FAILED


def _not_imported(text: str) -> str | None:
    if found := _NO_MODULE.match(text):
        name = found[1]
        if name in _REACHING_OUT:
            return FORBIDDEN
        return UNSUPPORTED if name in _LIBRARIES | sys.stdlib_module_names else None
    if found := _NO_NAME_IN_MODULE.match(text):
        return _not_in_module(found[2], found[1])
    return None


def _not_in_module(module: str, name: str) -> str | None:
    """Whether CPython's module has it; none but harmless ones are loaded to look."""
    if module.partition(".")[0] in _REACHING_OUT:
        return FORBIDDEN
    if module not in _HARMLESS:
        return None
    return UNSUPPORTED if hasattr(importlib.import_module(module), name) else None


def _not_named(text: str) -> str | None:
    found = _NO_NAME.match(text)
    if found is None:
        return None
    if found[1] in _FORBIDDEN_NAMES:
        return FORBIDDEN
    return UNSUPPORTED if hasattr(builtins, found[1]) else None


_SAMPLES: dict[str, Any] = {
    "NoneType": None,
    "_io.TextIOWrapper": io.TextIOWrapper(io.BytesIO()),
    "builtin_function_or_method": len,
    "collections.Counter": Counter("a"),
    "collections.defaultdict": defaultdict(int),
    "collections.deque": deque("a"),
    "datetime.date": datetime.date(2000, 1, 1),
    "datetime.datetime": datetime.datetime(2000, 1, 1),
    "datetime.time": datetime.time(1),
    "datetime.timedelta": datetime.timedelta(1),
    "decimal.Decimal": Decimal(1),
    "function": lambda: None,
    "re.Match": re.match("a", "a"),
    "re.Pattern": re.compile("a"),
} | {
    kind.__name__: kind()
    for kind in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)
}
"""A value of each type, by the name that the sandbox's messages have for it."""


def _not_an_attribute(text: str) -> str | None:
    found = _NO_ATTRIBUTE.match(text)
    if found is None:
        return None
    kind, owner, name = found.groups()
    if kind == "module":
        return _not_in_module(owner, name)
    if name in _INTERNALS:
        return FORBIDDEN
    kind = type(_SAMPLES[owner]) if owner in _SAMPLES else getattr(builtins, owner, None)
    can_be_set = owner == "function" and _NO_DICT in text
    return UNSUPPORTED if hasattr(kind, name) or can_be_set else None


def _not_allowed(text: str) -> str | None:
    if text.startswith("Internal error in monty"):
        return UNSUPPORTED
    return FORBIDDEN if text.endswith("is not supported in this environment") else None


def _not_done(text: str) -> str | None:
    return UNSUPPORTED if _NOT_DONE.search(text) else None


def _not_computed(text: str) -> str | None:
    """Operators that CPython has for two types."""
    if _NOT_DONE.search(text):
        return UNSUPPORTED
    found = _NO_OPERATOR.match(text) or _NO_ORDER.match(text)
    if found is None or not {found["a"], found["b"]} <= _SAMPLES.keys():
        return None
    compute = _OPERATORS.get(found["operator"])
    if compute is None:
        return None
    try:
        compute(_SAMPLES[found["a"]], _SAMPLES[found["b"]])
    except TypeError:
        return None
    except ArithmeticError:
        pass
    return UNSUPPORTED


def _not_read(text: str) -> str | None:
    """Dates and numbers that CPython reads."""
    for pattern, read in _READERS.items():
        if found := pattern.match(text):
            try:
                read(*found.groups())
            except (ValueError, re.error):
                return None
            return UNSUPPORTED
    return _not_done(text)


_LACKING: dict[type[BaseException], Callable[[str], str | None]] = {
    ImportError: _not_imported,
    NameError: _not_named,
    AttributeError: _not_an_attribute,
    NotImplementedError: _not_done,
    RuntimeError: _not_allowed,
    TypeError: _not_computed,
    ValueError: _not_read,
}
"""How an error says that the sandbox lacks what CPython has; None where it does not."""
