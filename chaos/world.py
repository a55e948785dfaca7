"""The klinket that faults strike: real processes on loopback, two connectors, a client with a proxy."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

from bench.load import Dial, dial_through_socks
from chaos.service import Service
from examples.deployment import Deployment, free_port

SERVICE_ADDRESS = "127.77.0.60"
SERVICE_NAME = "sums.internal"
CONNECTORS = ("office-1", "office-2")


@dataclass
class World:
    """`service`: what flows lead to. A part whose name is in `down` is to be started again by its fault."""

    deployment: Deployment
    service: Service
    dial: Dial
    down: set[str] = field(default_factory=set)
    #: Connections that were made and ended without a byte, on purpose.
    probes: int = 0

    def kill(self, part: str) -> None:
        """End a part at once (SIGKILL); the relay beside a controller is a process of its own and goes on."""
        found = self.deployment.parts[part]
        assert found.process is not None
        if found.running():
            os.kill(found.pid, signal.SIGKILL)
            found.process.wait(10)
        self.down.add(part)

    def start_again(self, part: str) -> None:
        """Start a part that was killed; returns at once, it may fail while others are away and is tried again."""
        self.deployment.parts[part].start()
        self.down.discard(part)

    def kill_relay(self) -> None:
        """End the relay; the controller starts it again, or the next one does."""
        try:
            os.kill(int((self.deployment.state / "relay" / "relay.pid").read_text()), signal.SIGKILL)
        except (OSError, ValueError):
            pass

    def works(self) -> bool:
        """Return whether a new connection is made."""
        try:
            self.dial().close()
        except OSError:
            return False
        self.probes += 1
        return True

    def heal(self) -> None:
        """Start again what is down, or has ended because others were."""
        for name, part in self.deployment.parts.items():
            if not part.running():
                self.start_again(name)


def build(deployment: Deployment, service: Service) -> World:
    """Bring everything up; returns when a first connection works."""
    deployment.start_controller()
    deployment.admin("network", "create", "office")
    for name in CONNECTORS:
        deployment.add_connector("office", name)
    deployment.admin(
        "resource", "create", "--network", "office", "--address", SERVICE_ADDRESS, "--alias", SERVICE_NAME,
        "--tcp", str(service.port), "Sums",
    )  # fmt: skip
    for name in CONNECTORS:
        deployment.start_connector(name)
    deployment.admin("service", "create", "ci")
    deployment.admin("service", "grant", "ci", "Sums")
    proxy = ("127.0.0.1", free_port())
    key: Path = deployment.add_key("ci", "runner")
    command = [sys.executable, "-m", "klinket", "client", "--key-file", str(key), "--socks", f"{proxy[0]}:{proxy[1]}"]
    deployment.start("client", command)
    world = World(deployment, service, dial_through_socks(proxy, SERVICE_NAME, service.port))
    deployment.wait_for("the client", world.works)
    return world
