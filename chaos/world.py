"""The klinket that faults strike: real processes, two connectors on cables of their own, clients with proxies."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.load import Dial, dial_through_socks
from chaos import disk
from chaos.clocks import Clocks
from chaos.exchange import HEAD, Wrong, as_program
from chaos.network import HUB, SERVICE_ADDRESS, Network
from chaos.rights import GRANT_SECONDS, Target
from chaos.service import Service
from examples.deployment import Deployment, free_port
from klinket.cli.admin.api import AdminApiClient

CONNECTORS = ("office-1", "office-2")
#: The client that carries the load, and all who have a cable of their own.
CLIENT = "client-ci"
APART = (*CONNECTORS, CLIENT)
SERVICE_NAME, TARGET_NAME = "sums.internal", "ticks.internal"
#: Seconds one try of a probe may take, an admin's request, and a connection of the load.
PROBE_SECONDS, REQUEST_SECONDS, DIAL_SECONDS = 4.0, 5.0, 30.0
#: Numbers of probes' flows: no flow of the load has one of them.
FIRST_PROBE = 1 << 40


@dataclass
class World:
    """`service`: what flows lead to. `ended`: parts that ended though nobody had ended them, with the end of their log.
    `impatient`: `dial` for probes. `ticks`: how the account whose right comes and goes dials the target."""

    deployment: Deployment
    network: Network
    clocks: Clocks
    service: Service
    target: Target
    dial: Dial
    impatient: Dial
    ticks: Dial
    api: AdminApiClient
    down: set[str] = field(default_factory=set)
    ended: list[str] = field(default_factory=list)
    _probes: int = FIRST_PROBE

    def folder(self, part: str) -> Path:
        """Return where a part keeps its state: a small disk of its own."""
        return self.deployment.directory / part

    def pid(self, part: str) -> int | None:
        """Return the process id of a part, the relay's as well, if it runs."""
        if part == "relay":
            with contextlib.suppress(OSError, ValueError):
                found = int((self.deployment.state / "relay" / "relay.pid").read_text())
                if b"relay" in Path(f"/proc/{found}/cmdline").read_bytes():
                    return found
            return None
        one = self.deployment.parts[part]
        return one.pid if one.running() else None

    def family(self, part: str) -> Iterator[int]:
        """Yield a part's process and its workers'; the relay is a part of its own."""
        relay = self.pid("relay")
        waiting = [pid] if (pid := self.pid(part)) else []
        while waiting:
            yield (pid := waiting.pop())
            with contextlib.suppress(OSError):
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                waiting += [child for child in map(int, children) if child != relay]

    def kill(self, part: str) -> None:
        """End a part's first process at once (SIGKILL). The relay's controller, or the next one, starts it again."""
        if (pid := self.pid(part)) is None:
            return
        os.kill(pid, signal.SIGKILL)
        if part != "relay":
            process = self.deployment.parts[part].process
            assert process is not None
            process.wait(10)
            self.down.add(part)

    def start_again(self, part: str) -> None:
        """Start a part; returns at once, it may fail while others are away and is tried again."""
        self.deployment.parts[part].start()
        self.down.discard(part)

    def all_works(self) -> None:
        """Whatever ends from now on, and runs now, has ended by itself."""
        self.down = {name for name in self.down if not self.deployment.parts[name].running()}

    def probe(self) -> bool:
        """Return whether a new flow is opened and carries what it should."""
        self._probes += 1
        try:
            with self.impatient() as flow:
                # Where it gives up, the other end is told so by a reset: a clean end would be a truncated stream.
                flow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                as_program(flow, self._probes, self._probes, 100, 100, True, PROBE_SECONDS)
        except (OSError, Wrong):  # the other end's outcome is judged at the service
            return False
        return True

    def slow_flow(self) -> socket.socket:
        """Return a flow of which much is asked, and nothing read."""
        self._probes += 1
        flow = self.dial()
        flow.sendall(HEAD.pack(self._probes, 0, 0, 16_000_000, False, hashlib.sha256(b"").digest()))
        return flow

    def heal(self) -> None:
        """Start again what has ended, as a supervisor would; what nobody had ended is noted."""
        for name, part in self.deployment.parts.items():
            if not part.running():
                if name not in self.down:
                    self.ended.append(f"{name} ended by itself: {part.tail(3)}")
                self.start_again(name)


def build(directory: Path, service: Service, target: Target, network: Network, clocks: Clocks) -> tuple[World, tuple[str, str]]:
    """Bring everything up; returns when a first flow works, with the ids of the target's resource and the account to cut."""

    def enter(part: str) -> list[str]:
        return [] if part == "admin" else [*network.enter(part), *clocks.enter(part)]

    deployment = Deployment(directory, address=HUB, network="chaos", enter=enter)
    try:
        return _built(deployment, service, target, network, clocks)
    except BaseException:
        deployment.stop()
        raise


def _built(
    deployment: Deployment, service: Service, target: Target, network: Network, clocks: Clocks
) -> tuple[World, tuple[str, str]]:
    for part in ("controller", *CONNECTORS):
        disk.make(deployment.directory / part)
    deployment.start_controller("--grant-seconds", str(GRANT_SECONDS))
    deployment.admin("network", "create", "office")
    for name in CONNECTORS:
        deployment.add_connector("office", name)
    made = {}
    address = ("--network", "office", "--address", SERVICE_ADDRESS)
    for alias, port, title in ((SERVICE_NAME, service.port, "Sums"), (TARGET_NAME, target.port, "Ticks")):
        made[title] = deployment.admin("resource", "create", *address, "--alias", alias, "--tcp", str(port), title)["id"]
    for name in CONNECTORS:
        deployment.start_connector(name)
    dials = {}
    for account, title, alias, port in (("ci", "Sums", SERVICE_NAME, service.port), ("brief", "Ticks", TARGET_NAME, target.port)):
        made[account] = deployment.admin("service", "create", account)["id"]
        deployment.admin("service", "grant", account, title)
        proxy = ("127.0.0.1", free_port())
        key = deployment.add_key(account, "runner")
        words = [sys.executable, "-m", "klinket", "client", "--key-file", str(key), "--socks", f"{proxy[0]}:{proxy[1]}"]
        deployment.start(f"client-{account}", words)
        for name, seconds in ((account, DIAL_SECONDS), (f"impatient {account}", PROBE_SECONDS)):
            dial = dial_through_socks(proxy, alias, port, seconds)
            dials[name] = network.dials(CLIENT, dial) if f"client-{account}" == CLIENT else dial
    api = AdminApiClient(deployment.url, deployment.api_token, str(deployment.authority), timeout=REQUEST_SECONDS)
    world = World(deployment, network, clocks, service, target, dials["ci"], dials["impatient ci"], dials["brief"], api)
    deployment.wait_for("the client", world.probe)
    return world, (made["Ticks"], made["brief"])
