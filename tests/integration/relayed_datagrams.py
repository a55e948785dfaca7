"""UDP between processes that meet at a relay only: a program below `klinket run`, relays that are watched, and a box between."""

from __future__ import annotations

import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from chaos.threads import Threads
from examples.deployment import Deployment, clean_environment, free_port
from tests.integration.watched import metric, wait_until

ECHO_ADDRESS, ECHO_NAME = "127.77.0.60", "udp.internal"
#: Seconds within which datagrams must go again by themselves after something died: far more than it takes.
PATIENCE = 90.0
#: Sends back what it gets, by UDP at ADDRESS PORT (argv).
ECHO = """import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.bind((sys.argv[1], int(sys.argv[2])))
    while True:
        data, source = sock.recvfrom(65_535)
        sock.sendto(data, source)
"""
#: For each line "SIZE SECONDS" on stdin sends a datagram of that size to HOST PORT (argv), again every 0.2 s until it comes
#: back, from one socket as long as it lives; prints "ok", "lost", or the name of what the system said last.
PROGRAM = """import errno, os, socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect((socket.gethostbyname(sys.argv[1]), int(sys.argv[2])))
for line in sys.stdin:
    size, seconds = line.split()
    text, said, deadline = os.urandom(int(size)), "lost", time.monotonic() + float(seconds)
    while said != "ok" and time.monotonic() < deadline:
        again = time.monotonic() + 0.2
        try:
            sock.send(text)
            while said != "ok" and (left := again - time.monotonic()) > 0:
                sock.settimeout(left)
                if sock.recv(65_535) == text:
                    said = "ok"
        except TimeoutError:
            pass
        except OSError as error:
            said = errno.errorcode.get(error.errno, "OSError")
            time.sleep(0.2)
    print(said, flush=True)
"""


class Program:
    """A program below `klinket run` that has one UDP socket and sends when it is told to."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment()
        )

    @property
    def pid(self) -> int:
        """Return the process id of `klinket run`."""
        return self._process.pid

    def says(self, size: int = 100, seconds: float = PATIENCE) -> str:
        """Return what became of a datagram that was sent until it came back, or for so long."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{size} {seconds}\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline().strip()
        assert said, (self._process.wait(30), self._process.stderr.read() if self._process.stderr else "")
        return said

    def close(self) -> None:
        """End it."""
        with suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=30)
        self._process.kill()
        self._process.communicate()


@dataclass
class World:
    """Connector `office-1`, resource `Echo`, account `ci`. `watched`: ports of metrics, by part."""

    deployment: Deployment
    echo_port: int
    key: Path
    watched: dict[str, int] = field(default_factory=dict)

    def start_relay(self, name: str, listen: str, *options: str) -> None:
        """Start a relay, or start it again, and wait until it is attached."""
        port = self.watched.setdefault(name, free_port())
        self.deployment.start_relay(name, listen, *options, KLINKET_METRICS=f"127.0.0.1:{port}")

    @contextmanager
    def program(self, name: str = ECHO_NAME, key: Path | None = None) -> Iterator[Program]:
        """Run a program whose datagrams have come back."""
        options = ["--capture", "namespace"]
        command = [sys.executable, "-c", PROGRAM, name, str(self.echo_port)]
        program = Program(self.deployment.run_command(key or self.key, *command, options=options))
        try:
            assert program.says() == "ok"
            yield program
        finally:
            program.close()

    def forwarded(self, relay: str) -> tuple[float, float]:
        """Return how many datagrams of clients and of connectors a relay has forwarded."""
        ends = ("clients", "connectors")
        one, other = (metric(self.watched[relay], f'klinket_relay_datagrams_total{{from="{end}"') for end in ends)
        return one, other

    def dropped(self, relay: str, reason: str) -> float:
        """Return how many datagrams and binds a relay has dropped for a reason."""
        return metric(self.watched[relay], f'klinket_relay_datagrams_dropped_total{{reason="{reason}"')

    def bindings(self, relay: str) -> float:
        """Return how many addresses are bound at a relay."""
        return metric(self.watched[relay], "klinket_relay_datagram_bindings")

    def sealed(self) -> tuple[float, float]:
        """Return how many sealed datagrams of flows the connector has taken and sent."""
        name = "klinket_connector_sealed_datagrams_total"
        port = self.watched["office-1"]
        return metric(port, f'{name}{{direction="from_clients"'), metric(port, f'{name}{{direction="to_clients"')

    def refused(self, reason: str) -> float:
        """Return how many datagrams the connector has not carried on for a reason."""
        return metric(self.watched["office-1"], f'klinket_connector_datagrams_dropped_total{{reason="{reason}"')

    def goes_sealed(self, program: Program, relay: str, seconds: float = PATIENCE) -> float:
        """Send until datagrams of the program's flow go sealed over this relay, both ways; returns the seconds it took."""
        begun = time.monotonic()

        def sealed_over_it() -> bool:
            sealed, forwarded = self.sealed(), self.forwarded(relay)
            if program.says() != "ok":
                return False
            moved = [*map(float.__gt__, self.sealed(), sealed), *map(float.__gt__, self.forwarded(relay), forwarded)]
            return all(moved)

        wait_until(sealed_over_it, f"no sealed datagrams over {relay}: {self.deployment.parts[relay].tail()}", seconds)
        return time.monotonic() - begun


@contextmanager
def world() -> Iterator[World]:
    """Start everything but relays; the connector has no listener, and no holes are punched: relays are the only way."""
    directory = Path(tempfile.mkdtemp(prefix="klinket-relayed-"))
    try:
        with Deployment(directory, network="office-net", with_relay=False) as deployment:
            echo_port, metrics = free_port(ECHO_ADDRESS), free_port()
            deployment.start("echo", [sys.executable, "-c", ECHO, ECHO_ADDRESS, str(echo_port)])
            deployment.start_controller("--no-hole-punching")
            deployment.admin("network", "create", "office")
            deployment.add_connector("office", "office-1")
            resource = ["--network", "office", "--address", ECHO_ADDRESS, "--alias", ECHO_NAME]
            deployment.admin("resource", "create", *resource, "Echo")
            deployment.start_connector("office-1", TWINGATE_METRICS_PORT=str(metrics))
            deployment.admin("service", "create", "ci")
            deployment.admin("service", "grant", "ci", "Echo")
            yield World(deployment, echo_port, deployment.add_key("ci", "runner"), {"office-1": metrics})
    finally:
        shutil.rmtree(directory, ignore_errors=True)


class Box(Threads):
    """Whoever is on the way to a relay: passes TCP and UDP of `front` on to `relay`, and keeps what it has seen of UDP.

    `blocked`: whether UDP is dropped. `stolen`: takes what an end sends instead of the relay, if it returns True.
    """

    def __init__(self, front: tuple[str, int], relay: tuple[str, int]) -> None:
        super().__init__([self._pass_on, self._accept])
        self._relay = relay
        self._listener = socket.create_server(front)
        self._listener.settimeout(0.2)
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._front.bind(front)
        #: Towards the relay, by the end whose datagrams go there.
        self._backs: dict[Any, socket.socket] = {}
        self.blocked = False
        self.stolen: Callable[[bytes], bool] = lambda data: False
        self.to_relay: deque[bytes] = deque(maxlen=20_000)
        self.to_ends: deque[bytes] = deque(maxlen=20_000)

    def _pass_on(self) -> None:
        while not self._over.is_set():
            ends = {back: end for end, back in self._backs.items()}
            for sock in select.select([self._front, *ends], [], [], 0.05)[0]:
                try:
                    data, source = sock.recvfrom(65_535)
                except OSError:
                    continue  # the relay is away
                if self.blocked:
                    continue
                if sock is not self._front:
                    self.to_ends.append(data)
                    self._front.sendto(data, ends[sock])
                    continue
                self.to_relay.append(data)
                back = self._backs.get(source)
                if back is None:
                    back = self._backs[source] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                    back.connect(self._relay)
                if not self.stolen(data):
                    with suppress(OSError):
                        back.send(data)

    def forge(self, data: bytes) -> None:
        """Send it to the relay from the address of each end."""
        for back in list(self._backs.values()):
            with suppress(OSError):
                back.send(data)

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                one = self._listener.accept()[0]
            except TimeoutError:
                continue
            try:
                other = socket.create_connection(self._relay, 10)
            except OSError:
                one.close()
                continue
            carried = _Carried(one, other)
            carried.__enter__()

    def __exit__(self, *_: object) -> None:
        super().__exit__(*_)
        for sock in (self._listener, self._front, *self._backs.values()):
            sock.close()


class _Carried(Threads):
    """A TCP connection through the box."""

    def __init__(self, one: socket.socket, other: socket.socket) -> None:
        super().__init__([lambda: self._carry(one, other), lambda: self._carry(other, one)])

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        source.settimeout(None)
        try:
            while data := source.recv(65_536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            for sock in (source, target):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)


class Stranger:
    """A socket at another address than any end's: `sent` and `got` in bytes."""

    def __init__(self, relay: tuple[str, int]) -> None:
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind(("127.66.6.6", 0))
        self._sock.connect(relay)
        self._sock.settimeout(0.05)
        self.sent = 0
        self.answers: list[bytes] = []

    @property
    def got(self) -> int:
        return sum(map(len, self.answers))

    def send(self, data: bytes) -> None:
        with suppress(OSError):
            self._sock.send(data)
            self.sent += len(data)

    def read(self) -> None:
        """Take what has come."""
        with suppress(OSError):
            while True:
                self.answers.append(self._sock.recv(65_535))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()
