"""Run a program that a language model wrote, without trusting it."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
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
from neurosurgery.evaluation.outcomes import (
    FAILED,
    FORBIDDEN,
    MEMORY_LIMIT,
    NO_ANSWER,
    RAN,
    SYNTAX_ERROR,
    TIME_LIMIT,
    UNSUPPORTED,
    outcome_of,
)
from neurosurgery.evaluation.program_text import Differences, TooDeepError, is_refused, python_tree

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
    ndigits = int(ndigits)
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


class _Attempt(NamedTuple):
    """A run in the sandbox, with the lines of the program that an error went through."""

    run: Run
    lines: Sequence[int] = ()
    error: type[BaseException] | None = None


def _as_by_cpython(program: str, found: _Attempt) -> Run:
    """Mend an outcome with what CPython makes of the text (`program_text`).

    A text that the sandbox cannot parse is a `syntax_error` only if CPython refuses it, too. What
    CPython would compute otherwise is `unsupported`.
    """
    run = found.run
    try:
        tree = python_tree(program)
        if tree is None:
            # Newer Pythons, and the sandbox, take more texts than this one.
            return run
        if is_refused(program, tree):
            return Run(SYNTAX_ERROR, None, run.reason or "CPython refuses the text")
    except TooDeepError:
        return Run(UNSUPPORTED, None, run.reason) if run.outcome == SYNTAX_ERROR else run
    there = Differences(tree)
    over_limit = run.outcome in (TIME_LIMIT, MEMORY_LIMIT)
    of_types = found.error is not None and issubclass(found.error, (TypeError, AttributeError))
    unlike = (
        run.outcome == SYNTAX_ERROR
        or there.reason
        or (there.operators and of_types)
        or there.is_eager(found.lines)
        or (there.eager and over_limit)
    )
    return Run(UNSUPPORTED, None, run.reason or there.reason) if unlike else run


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
        Monty is not CPython: lazy iterators are kept whole in memory, so that a long one is a
        `memory_limit`. Where it lacks something, or does it otherwise, the program is
        `unsupported`: that is recognised by error messages (`outcomes`) and by the program's text
        (`program_text`), and every difference that was found is tested
        (`tests/evaluation/test_sandbox_differences.py`). A program that catches such an error is
        taken as it then goes on. `round` is made to round as CPython does; of the other
        arithmetic, formats and `math`, no difference was found but in `cbrt`'s last digit.

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
        found = self._attempt(program)
        return found.run if found.run.outcome == FORBIDDEN else _as_by_cpython(program, found)

    def _attempt(self, program: str) -> _Attempt:
        text = f"{program}\n\nfloat(solution())"
        try:
            with self._pool.checkout(limits=self._limits, os_policy=_POLICY) as session:
                session.feed_run(_PRELUDE)
                found = session.feed_run(text, print_callback=_forget)
        except MontySyntaxError as error:
            return _Attempt(Run(SYNTAX_ERROR, None, first_line(error)))
        except MontyRuntimeError as error:
            frames = error.traceback()
            # The prelude's lines are not the program's.
            lines = [frame.line for frame in frames if frame.filename == frames[0].filename]
            raised = error.exception()
            at_call = lines == [text.count("\n") + 1] and len(frames) == 1
            outcome = outcome_of(raised, at_call=at_call)
            return _Attempt(Run(outcome, None, first_line(error)), lines, type(raised))
        except MontyCrashedError as error:
            outcome = TIME_LIMIT if error.timed_out else MEMORY_LIMIT
            return _Attempt(Run(outcome, None, first_line(error)))
        except MontyError as error:
            return _Attempt(Run(FAILED, None, first_line(error)))
        # A program may have put something else in the place of `float`.
        if not isinstance(found, (int, float)) or not _fits(found):
            reason = f"solution() returned no number: {type(found).__name__}"
            return _Attempt(Run(NO_ANSWER, None, reason))
        return _Attempt(Run(RAN, float(found), ""))


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
