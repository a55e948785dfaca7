"""What a shell's job control and klinket see of a command that stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from klinket.client import terminal

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="waits for stops by pid")


def test_a_stop_that_was_told_is_no_new_one_and_the_next_is() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            assert not terminal.has_stopped_anew(child.pid)
            os.kill(child.pid, signal.SIGSTOP)
            deadline = time.monotonic() + 10
            while not terminal.has_stopped_anew(child.pid) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert terminal.has_stopped_anew(child.pid)
            assert os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOHANG) is not None  # as watch_stops() takes it
            assert not terminal.has_stopped_anew(child.pid)
            os.kill(child.pid, signal.SIGCONT)
            os.kill(child.pid, signal.SIGSTOP)
            while not terminal.has_stopped_anew(child.pid) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert terminal.has_stopped_anew(child.pid)
        finally:
            child.kill()


def test_a_child_that_is_gone_has_not_stopped() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    assert not terminal.has_stopped_anew(child.pid)
