"""The terminal of a command that klinket runs: who gets its signals, and what a shell must see of the command's stops and end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable

#: Signals that a terminal sends to all processes of the job in its foreground.
SENT_BY_IT = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGWINCH) if sys.platform != "win32" else ()


def in_foreground() -> bool:
    """Return whether this process is of the job that its terminal's keys are for."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def has_one() -> bool:
    """Return whether there is a terminal to take signals from."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def watch_stops(pid: int, stopped: Callable[[], None]) -> None:
    """Call `stopped` on the running event loop whenever the child is stopped by a signal, where there is a terminal.

    Without one nobody could make it go on, and whoever stops a process by its number means this one only.
    """
    if sys.platform != "linux" or not has_one():
        return
    import asyncio

    loop = asyncio.get_running_loop()

    def is_stopped() -> bool:
        try:
            return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG) is not None
        except ChildProcessError:
            return False

    def tell() -> None:
        if is_stopped():  # not any more where a SIGCONT was faster
            stopped()

    def watch() -> None:
        while True:
            try:
                found = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            except OSError:
                return
            if found is None or found.si_code not in (os.CLD_STOPPED, os.CLD_TRAPPED):
                return
            told = threading.Event()

            def tell_and_go_on(told: threading.Event = told) -> None:
                tell()
                told.set()

            try:
                loop.call_soon_threadsafe(tell_and_go_on)
            except RuntimeError:
                return  # the loop is closed
            told.wait()

    threading.Thread(target=watch, daemon=True).start()


def has_stopped_anew(pid: int) -> bool:
    """Return whether the child has stopped since the last stop that watch_stops() told of.

    A shell makes a whole job go on: a command that stopped again at once must not be woken by a SIGCONT that was passed on late.
    """
    if sys.platform != "linux":
        return False
    try:
        return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


def die_of(number: int) -> None:
    """End this process by a signal, as the command was ended: shells look at how, not only at the number."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
