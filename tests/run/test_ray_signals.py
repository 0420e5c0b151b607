"""Signals are noted, asked for, and given back."""

from __future__ import annotations

import os
import signal

import pytest

from neurosurgery.common.errors import Stopped
from neurosurgery.run.ray_signals import SIGNALS, StopSignals


@pytest.fixture
def signals():
    # The tests themselves may have been started by nohup.
    of_tests = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    found = StopSignals()
    found.install()
    yield found
    found.restore()
    assert {number: signal.getsignal(number) for number in SIGNALS} == before
    signal.signal(signal.SIGHUP, of_tests)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_until_it_is_asked_for_and_the_second_does_not(signals, number):
    signals.check()
    os.kill(os.getpid(), number)
    with pytest.raises(Stopped, match=signal.Signals(number).name):
        signals.check()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)


def test_a_signal_is_taken_back_from_ray(signals):
    def of_ray(number: int, _frame: object) -> None:
        raise AssertionError(number)

    signal.signal(signal.SIGTERM, of_ray)
    signals.install()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Stopped):
        signals.check()


def test_what_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals = StopSignals()
    try:
        signals.install()
        os.kill(os.getpid(), signal.SIGHUP)
        signals.check()
        signals.restore()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
