"""`klinket run`: forks the command's process early, and imports what a session needs while that one sets itself up.

Nothing here may import asyncio or cryptography: half of what `klinket run` costs a short command is importing.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from klinket.client import terminal
from klinket.client.capture import descriptors
from klinket.client.key_source import KeySource

if TYPE_CHECKING:
    from klinket.client.capture.namespace.forked import Forked


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What `klinket run` was asked for.

    `capture`: "namespace", "proxy", or "auto" for the first that is possible; `timeout`: seconds until ready; `only`: what of the
    granted resources the command may use, () for all; `env_proxy`: proxy variables besides a namespace; `host_loopback`: this
    machine's loopback is reached from inside. `pass_descriptors`: open files above 2 that the command gets; it gets no others.
    """

    arguments: Sequence[str]
    wait: Sequence[str]
    timeout: float
    capture: str
    pass_descriptors: Sequence[int] = ()
    only: Sequence[str] = ()
    env_proxy: bool = False
    host_loopback: bool = False


def tell(line: str) -> None:
    """Say something beside the command's own output."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def run(source: KeySource, settings: RunSettings, run_async: Callable[..., int]) -> int:
    """Return the command's exit code; raises KlinketError when it was not started. Call it before there are threads."""
    descriptors.check(settings.pass_descriptors, source)
    if source.other_names:
        names = "one more name" if source.other_names == 1 else f"{source.other_names} more names"
        tell(f"klinket: the key file has {names} (hard links): only {source.files[0]} can be hidden from the command")
    forked = _fork(source, settings)
    if sys.platform == "linux":
        from klinket.net.undumpable import be_undumpable

        be_undumpable()
    from klinket.client.job import Job

    job = Job(source, settings, forked)
    code = run_async(job.main())
    if job.interrupted and code == 128 + signal.SIGINT:
        terminal.die_of(signal.SIGINT)  # a script that runs this job is to end as well, as it would without klinket
    return code


def _fork(source: KeySource, settings: RunSettings) -> Forked | None:
    if settings.capture == "proxy" or sys.platform != "linux":
        return None
    from klinket.client.capture.namespace import forked, inside

    powers = inside.powers_of(settings.arguments[0], os.environ.get("PATH", ""))
    if powers:
        tell(
            f"klinket: {settings.arguments[0]} is {powers}, which has no effect inside: a command gets no more rights than it has"
        )
        tell(f"  run klinket itself with them instead: {settings.arguments[0]} klinket run ...")
    emptied = descriptors.with_the_key(source)
    return forked.fork(settings.arguments, source.files, settings.pass_descriptors, emptied, env_proxy=settings.env_proxy)
