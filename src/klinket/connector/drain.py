"""`klinket connector drain`: asks the running connector of a state folder to end, and waits until it has."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from klinket.connector import run_file
from klinket.domain.errors import KlinketError

#: Seconds between looks at how it goes.
LOOK_SECONDS = 0.1


class ConnectorNotRunning(KlinketError):
    """No connector runs with this state folder."""

    code = "not-running"


class DrainIncomplete(KlinketError):
    """The connector has ended, or goes on, and not all flows had ended by themselves."""

    code = "drain-incomplete"


def drain(folder: Path, tell: Callable[[int], None], timeout: float | None = None) -> None:
    """Return when the connector has ended, and all its flows before it. `tell`: hears how many are live whenever that changes.

    `timeout`: seconds; None: as long as it runs. Raises ConnectorNotRunning, and DrainIncomplete when flows were
    reset, or the time is over (the connector goes on ending).
    """
    state, runs = run_file.read(folder)
    if state is None or not runs:
        raise ConnectorNotRunning(f"no connector runs with the state folder {folder}", hint="is --state that of the connector?")
    pid = state.pid
    if not state.draining:  # a second signal would end it at once
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
        except PermissionError as error:
            raise ConnectorNotRunning(f"the connector (process {pid}) is another user's", hint="run this as that user") from error
    begun = time.monotonic()
    told = -1
    while runs and state is not None and state.pid == pid:
        if state.draining and state.flows != told:
            told = state.flows
            tell(told)
        if timeout is not None and time.monotonic() - begun > timeout:
            raise DrainIncomplete(f"after {timeout:.0f} s the connector still runs, with {state.flows} live flows")
        time.sleep(LOOK_SECONDS)
        state, runs = run_file.read(folder)
    if state is not None and state.pid == pid and state.flows:
        raise DrainIncomplete(
            f"the connector has ended, and {state.flows} flows were reset: its time was over",
            hint="give it more with --drain-seconds, and the programs time to end",
        )
