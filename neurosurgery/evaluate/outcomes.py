"""What can become of a generated program, and how an error of the sandbox tells."""

from __future__ import annotations

import builtins
import datetime
import importlib
import re
import sys
from collections.abc import Callable
from decimal import Decimal

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
_NO_DATE = re.compile(r"time data '(.*)' does not match format '(.*)'", re.DOTALL)
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


_TYPES: dict[str, type] = {
    "datetime.date": datetime.date,
    "datetime.datetime": datetime.datetime,
    "datetime.timedelta": datetime.timedelta,
    "decimal.Decimal": Decimal,
    "Decimal": Decimal,
}


def _not_an_attribute(text: str) -> str | None:
    found = _NO_ATTRIBUTE.match(text)
    if found is None:
        return None
    kind, owner, name = found.groups()
    if kind == "module":
        return _not_in_module(owner, name)
    if name in _INTERNALS:
        return FORBIDDEN
    there = hasattr(_TYPES.get(owner, getattr(builtins, owner, None)), name)
    return UNSUPPORTED if there else None


def _not_allowed(text: str) -> str | None:
    return FORBIDDEN if text.endswith("is not supported in this environment") else None


def _not_parsed(text: str) -> str | None:
    return UNSUPPORTED if text.startswith("The monty syntax parser") else None


def _not_a_date(text: str) -> str | None:
    """Monty reads fewer formats of dates than CPython."""
    found = _NO_DATE.match(text)
    if found is None:
        return None
    try:
        datetime.datetime.strptime(found[1], found[2])
    except (ValueError, re.error):
        return None
    return UNSUPPORTED


_LACKING: dict[type[BaseException], Callable[[str], str | None]] = {
    ImportError: _not_imported,
    NameError: _not_named,
    AttributeError: _not_an_attribute,
    NotImplementedError: _not_parsed,
    RuntimeError: _not_allowed,
    ValueError: _not_a_date,
}
"""How an error says that the sandbox lacks what CPython has; None where it does not."""
