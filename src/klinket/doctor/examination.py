"""Which checks a role gets, in which order."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from klinket.doctor import certificates, clock, controller_probe, disk, ports, versions
from klinket.doctor.finding import Finding, fail
from klinket.net.sockets import HostPort

_AGAIN = "with klinket issue or --certificate: the how-to of the part says how"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is known of a part. `url`, `context`: of the controller, and whom to believe to be it; `seconds`: for each step.

    `found`: what was found while this was put together, for example a key file that cannot be read.
    """

    role: str
    seconds: float
    url: str | None = None
    context: ssl.SSLContext | None = None
    state: Path | None = None
    listen: HostPort | None = None
    metrics: HostPort | None = None
    certificates: tuple[Path, ...] = ()
    found: tuple[Finding, ...] = field(default=())


#: Name of a group of checks, for who waits, and the checks.
Step = tuple[str, Callable[[], Iterable[Finding]]]


def steps(asked: Asked) -> Iterator[Step]:
    """Yield the checks; none is made before it is called."""
    yield "versions", partial(versions.versions, asked.role)
    yield "clock", clock.kept
    yield "settings", lambda: asked.found
    if asked.state is not None:
        yield "disk", partial(disk.folder, asked.state)
    for path in asked.certificates:
        yield "certificate", partial(_certificate, path)
    yield "files", partial(ports.open_files, asked.role)
    if asked.listen is not None:
        yield "listen", partial(_listening, asked.listen)
    if asked.url is not None and asked.context is not None:
        yield "controller", partial(controller_probe.probe, asked.url, asked.context, asked.seconds)
    elif asked.role != "controller" and not asked.found:
        yield "controller", _no_url
    if asked.metrics is not None:
        yield "ready", partial(_own_ready, asked.metrics, asked.seconds)


def _certificate(path: Path) -> Iterator[Finding]:
    yield certificates.file(path, datetime.datetime.now(datetime.UTC), _AGAIN)


def _listening(address: HostPort) -> Iterator[Finding]:
    yield ports.listening(address)


def _own_ready(address: HostPort, seconds: float) -> Iterator[Finding]:
    yield controller_probe.own_ready(address, seconds)


def _no_url() -> Iterator[Finding]:
    yield fail("controller", "it is not known where the controller is", "--url https://HOST:PORT, or KLINKET_URL")
