"""Signals that end a run while its workers are at work: Ctrl-C, `kill`, a closed terminal."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from neurosurgery.common.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """Notes a signal until the run asks for it.

    An exception in the middle of Ray's own code is sometimes lost there, and leaves processes
    behind where it comes while Ray starts.
    """

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._noted: int | None = None

    def install(self) -> None:
        """Note signals from now on; called again, take them back from Ray, which sets its own."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            before = self._before.setdefault(number, signal.getsignal(number))
            # Who ignores this one (nohup) wants the run to go on.
            ignored = number == signal.SIGHUP and before is signal.SIG_IGN
            signal.signal(number, signal.SIG_IGN if ignored else self._note)

    def restore(self) -> None:
        """Let the signals do what they did before."""
        for number, before in self._before.items():
            signal.signal(number, before)

    def check(self) -> None:
        """End the run if a signal has come.

        Raises:
            Stopped: it has.
        """
        if self._noted is not None:
            raise Stopped(self._noted)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self._noted is not None:
            # The second one does not wait.
            raise Stopped(number)
        self._noted = number
