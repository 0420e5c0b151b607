"""Run a program that a language model wrote, without trusting it."""

from __future__ import annotations

import atexit
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
from neurosurgery.evaluate.outcomes import (
    FAILED,
    MEMORY_LIMIT,
    NO_ANSWER,
    RAN,
    SYNTAX_ERROR,
    TIME_LIMIT,
    outcome_of,
)

SECONDS = 2.0
"""Wall-clock time of a program."""

MEMORY = 200 << 20
"""Bytes of a program's objects."""

DEPTH = 1000
"""Calls inside calls, as in CPython."""

_PRELUDE = """
from decimal import Decimal as _Decimal
_monty_round = round

def round(number, ndigits=None):
    if not isinstance(number, float) or not isinstance(ndigits, int) or number - number != 0:
        return _monty_round(number, ndigits)
    if ndigits >= 0:
        return float(f"{number:.{min(ndigits, 400)}f}")
    if abs(number) < 1e15 and ndigits > -16:
        return float(_Decimal(number).quantize(_Decimal((0, (1,), -ndigits))))
    return _monty_round(number, ndigits)
"""
"""What every program starts with. Monty rounds a multiple of the number, so that round(2.675, 2) is
2.68; CPython rounds the number itself, to 2.67, and so does this."""

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
        or not; one operation on huge numbers can outlast it by a second, and outlive this process
        if that is killed. The worker writes a line to the error stream where memory runs out.
        Monty is not CPython: generator expressions are kept whole in memory, so that a long one is
        a `memory_limit`; what it lacks (`unsupported`) is recognised by its error messages, not in
        every case, and a program that catches the error is taken as it then goes on. `round` is
        made to round as CPython does; of the other arithmetic, formats and `math`, no difference
        was found (`tests/evaluate/test_sandbox_arithmetic.py`).

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
        text = f"{program}\n\nfloat(solution())"
        try:
            with self._pool.checkout(limits=self._limits, os_policy=_POLICY) as session:
                session.feed_run(_PRELUDE)
                found = session.feed_run(text, print_callback=_forget)
        except MontySyntaxError as error:
            return Run(SYNTAX_ERROR, None, first_line(error))
        except MontyRuntimeError as error:
            lines = [frame.line for frame in error.traceback()]
            at_call = lines == [text.count("\n") + 1]
            return Run(outcome_of(error.exception(), at_call=at_call), None, first_line(error))
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
