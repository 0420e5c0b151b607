"""Run a program that a language model wrote, without trusting it."""

from __future__ import annotations

import atexit
import builtins
import re
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from functools import cache
from typing import NamedTuple

from pydantic_monty import (
    Monty,
    MontyCrashedError,
    MontyError,
    MontyRuntimeError,
    MontySyntaxError,
    OSPolicy,
    ResourceLimits,
)

from neurosurgery.common.errors import RunError, first_line

SECONDS = 2.0
"""Wall-clock time of a program."""

MEMORY = 200 << 20
"""Bytes of a program's objects."""

DEPTH = 1000
"""Calls inside calls, as in CPython."""

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
"""What can become of a program; every program has one of these."""

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
    "__import__ breakpoint compile copyright credits exit globals help input license locals quit "
    "vars".split()
)
_MODULE = re.compile(r"No module named '(\w+)|cannot import name '\w+' from '(\w+)")
_NAME = re.compile(r"name '(\w+)' is not defined")
_ATTRIBUTE = re.compile(
    r"(?P<module>module )?'?(?P<of>\w+)'?(?: object)? has no attribute '(?P<name>\w+)'"
)

_POLICY = OSPolicy(
    # A program gives the same number whenever it runs, and waits for nothing.
    datetime=datetime(2000, 1, 1),
    random_start={"seed": 0},
    sleep="zero",
)


class Run(NamedTuple):
    """What became of a program.

    Attributes:
        outcome: one of `OUTCOMES`.
        value: the number that `solution()` returned; None unless the outcome is `ran`.
        reason: the error's first line; empty if the outcome is `ran`.
    """

    outcome: str
    value: float | None
    reason: str


class Sandbox:
    """An interpreter in another process that runs untrusted programs one after the other.

    The interpreter is Monty (`pydantic-monty`): a small Python written in Rust, without the
    machine's standard library.

    What is covered:
        Files, folders, environment variables, network, processes, signals, threads and standard
        input do not exist in it; asking for them is an error inside the program. There is no way
        to the objects of an interpreter (`__class__`, `__subclasses__`, frames, modules). Time,
        memory and depth of calls are limited; what is printed is thrown away; sleeping takes no
        time; the clock stands still and random numbers are seeded, so that a program gives the
        same number again. Each program starts with nothing of those before it. A worker process
        that dies or hangs is replaced, and costs one program.

    What is not covered:
        The worker is an ordinary process of this user: a fault in Monty itself would not be
        caught by a second wall. Time is wall-clock time, so that a program near the limit may fit
        or not. Short bursts use a whole core. Generator expressions are kept whole in memory,
        unlike in CPython. What the Python of Monty lacks (`unsupported`) is recognised by its error
        messages; a program that catches the error is taken as it then goes on.

    Args:
        seconds: the limit of one program.

    Raises:
        RunError: the worker process cannot be started.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._limits = ResourceLimits(
            max_feed_duration_secs=seconds, max_memory=MEMORY, max_recursion_depth=DEPTH
        )
        self._stack = ExitStack()
        try:
            # Should the interpreter miss its own limit, the process is killed a second later.
            pool = Monty(max_processes=1, request_timeout=seconds + 1, feed_duration_limit_grace=1)
            self._pool = self._stack.enter_context(pool)
        except (MontyError, OSError, RuntimeError) as error:
            raise RunError(
                f"the sandbox for generated programs cannot start ({first_line(error)}); expected "
                "the package pydantic-monty as in requirements.txt"
            ) from error

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the worker process."""
        self._stack.close()

    def run(self, program: str) -> Run:
        """Run a program and call its `solution()` without arguments.

        Args:
            program: the text, which defines a function `solution`.

        Returns:
            The outcome; `value` is `float(solution())`, computed inside of the sandbox.
        """
        call = "float(solution())"
        text = f"{program}\n\n{call}"
        try:
            with self._pool.checkout(limits=self._limits, os_policy=_POLICY) as session:
                found = session.feed_run(text, print_callback=_forget)
        except MontySyntaxError as error:
            return Run(SYNTAX_ERROR, None, first_line(error))
        except MontyRuntimeError as error:
            frames = error.traceback()
            at_call = bool(frames) and frames[-1].line == text.count("\n") + 1
            return Run(_outcome(error.exception(), at_call=at_call), None, first_line(error))
        except MontyCrashedError as error:
            return Run(TIME_LIMIT if error.timed_out else MEMORY_LIMIT, None, first_line(error))
        except MontyError as error:
            return Run(FAILED, None, first_line(error))
        # A program may have put something else in the place of `float`.
        if not isinstance(found, (int, float)) or not _fits(found):
            return Run(NO_ANSWER, None, f"solution() returned no number: {type(found).__name__}")
        return Run(RAN, float(found), "")


@cache
def shared_sandbox() -> Sandbox:
    """The sandbox of this process: started at its first use, stopped when the process ends."""
    sandbox = Sandbox()
    atexit.register(sandbox.close)
    return sandbox


def _forget(_stream: str, _text: str) -> None:
    """What a program prints is thrown away."""


def _fits(value: float) -> bool:
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _outcome(error: BaseException, *, at_call: bool) -> str:
    """Name what stopped a program.

    Args:
        error: the exception.
        at_call: whether it was raised by the line that calls `solution` and reads its value.
    """
    text = str(error)
    if isinstance(error, TimeoutError) and "limit exceeded" in text:
        return TIME_LIMIT
    if isinstance(error, (MemoryError, RecursionError)):
        return MEMORY_LIMIT
    if at_call and isinstance(error, (NameError, TypeError, ValueError, OverflowError)):
        return NO_ANSWER
    if isinstance(error, PermissionError) or "not supported in this environment" in text:
        return FORBIDDEN
    if isinstance(error, NotImplementedError):
        return UNSUPPORTED
    return next(_lacking(text), FAILED)


def _lacking(text: str) -> Iterator[str]:
    """Whether an error says that the sandbox lacks what CPython has, and of what kind that is."""
    if found := _MODULE.search(text):
        yield FORBIDDEN if (found[1] or found[2]) in _REACHING_OUT else UNSUPPORTED
    if found := _NAME.search(text):
        if found[1] in _FORBIDDEN_NAMES:
            yield FORBIDDEN
        elif hasattr(builtins, found[1]):
            yield UNSUPPORTED
    if found := _ATTRIBUTE.search(text):
        if found["module"]:
            yield FORBIDDEN if found["of"] in _REACHING_OUT else UNSUPPORTED
        elif re.fullmatch("__.+__", found["name"]):
            yield FORBIDDEN
        elif hasattr(getattr(builtins, found["of"], None), found["name"]):
            yield UNSUPPORTED
