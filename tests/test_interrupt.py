"""Ending on request: the first signal asks, the second insists."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from craft.interrupt import Interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_noted_and_raises_nothing(number):
    before = signal.getsignal(number)
    with Interrupt() as interrupt:
        assert interrupt.signal == 0
        os.kill(os.getpid(), number)
        assert interrupt.signal == number
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGHUP)
            assert interrupt.signal == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_former_handlers_come_back_after_an_error():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    inside = []

    def fail():
        with Interrupt():
            inside.append(signal.getsignal(signal.SIGINT))
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert inside[0] != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_another_thread_than_the_first_installs_nothing():
    seen = []

    def work():
        with Interrupt() as interrupt:
            seen.append((interrupt.signal, signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(0, before)]


_TWICE = """
import os, signal, sys
from craft.interrupt import Interrupt
with Interrupt() as interrupt:
    try:
        for name in sys.argv[1:]:
            os.kill(os.getpid(), getattr(signal, name))
            print(interrupt.signal, flush=True)
    except BaseException:
        print("caught", flush=True)
print("past the end", flush=True)
"""


@pytest.mark.parametrize(
    ("names", "code", "shown"),
    [
        (("SIGINT", "SIGTERM"), 143, "2\n"),
        (("SIGTERM", "SIGINT"), 130, "15\n"),
        (("SIGTERM",), 0, "15\npast the end\n"),
    ],
)
def test_the_second_signal_ends_the_process_at_once(root, names, code, shown):
    ended = subprocess.run([sys.executable, "-c", _TWICE, *names], cwd=root, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (code, shown)
