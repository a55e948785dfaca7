"""Both ends of one connection, as sockets of the test's own: the program's on a captured machine, the target's far away.

A socket stays in the network namespace it was made in, whichever thread uses it: so one test drives both ends, step by step.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.deployment import Deployment, clean_environment
from klinket.client.capture.syscalls import CLONE_NEWNET
from tests.integration.daemon_commands import DaemonCommands
from tests.integration.daemon_world import CAPABILITIES
from tests.integration.topology import PRIVATE, PUBLIC, Topology, sh
from tests.integration.watched import wait_until

#: How a program meets the target: from the connector's own network, without klinket; on a machine that the daemon captures; as
#: the command of `klinket run`.
WAYS = ("plain", "daemon", "run")
CONNECTOR_NAME = "corp-1"
#: Seconds one step may take: far more than any machine needs.
STEP_SECONDS = 40.0
_WHERE = {"controller": "middle", "admin": "middle"}
#: Bytes that a kernel's receive buffer may grow to, as `net.ipv4.tcp_rmem` has it: some machines have much larger ones.
_RECEIVE_BUFFERS = "4096 131072 4194304"
_LINGER_ZERO = struct.pack("ii", 1, 0)


def socket_in(namespace: Path) -> socket.socket:
    """Return a TCP socket of a network namespace (a file of /run/netns or /proc)."""
    made: list[socket.socket] = []
    failures: list[OSError] = []

    def make() -> None:  # in a thread of its own, which ends in that namespace
        libc = ctypes.CDLL(None, use_errno=True)
        with namespace.open("rb") as there:
            if libc.setns(there.fileno(), CLONE_NEWNET):
                failures.append(OSError(ctypes.get_errno(), f"setns {namespace}"))
                return
        made.append(socket.socket())

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    made[0].settimeout(STEP_SECONDS)
    return made[0]


@dataclass
class Ends:
    """The program's and the target's end of one connection."""

    program: socket.socket
    target: socket.socket

    def of(self, side: str) -> socket.socket:
        return self.program if side == "program" else self.target

    def close(self) -> None:
        self.program.close()
        self.target.close()


@dataclass
class EndsWorld:
    topology: Topology
    deployment: Deployment
    daemon: DaemonCommands
    job: subprocess.Popen[bytes]
    job_pid: int

    def namespace(self, way: str) -> Path:
        """Return the network namespace that a program of this way is in."""
        if way == "run":
            return Path(f"/proc/{self.job_pid}/ns/net")
        return Path("/run/netns", self.topology.names["client" if way == "daemon" else "private"])

    def connect(self, way: str) -> Ends:
        """Return both ends of a new connection."""
        with socket_in(Path("/run/netns", self.topology.names["services"])) as listener:
            listener.bind((PRIVATE, 0))
            listener.listen()
            program = socket_in(self.namespace(way))
            program.connect(listener.getsockname())
            target, _ = listener.accept()
        target.settimeout(STEP_SECONDS)
        return Ends(program, target)

    def restart_connector(self) -> None:
        """Start the connector after it was killed; returns when both ways lead to it again."""
        self.deployment.start_connector(CONNECTOR_NAME)
        for way in ("daemon", "run"):
            wait_until(lambda way=way: self.reaches(way), f"{way}: no way to the new connector", 60)  # type: ignore[misc]

    def daemon_status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.daemon.ok("status", "--json"))
        return found

    def daemon_side(self, *command: str) -> str:
        """Return what a command prints on the machine that the daemon captures."""
        where = self.topology.prefix("client")
        return subprocess.run([*where, *command], capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    def reaches(self, way: str) -> bool:
        """Return whether a connection can be made, and carries a byte."""
        try:
            ends = self.connect(way)
            ends.program.sendall(b"?")
            found = ends.target.recv(1) == b"?"
            ends.close()
        except OSError:
            return False
        return found


@contextmanager
def ends_world() -> Iterator[EndsWorld]:
    """Start everything: a daemon that captures the client's machine, and a command of `klinket run`, in the middle."""
    directory = Path(tempfile.mkdtemp(prefix="klinket-ends-"))
    directory.chmod(0o755)
    try:
        with Topology(directory) as topology:
            enter = lambda part: list(topology.prefix(_WHERE.get(part, "private")))  # noqa: E731
            with Deployment(directory, address=PUBLIC, network="acme", enter=enter) as deployment:
                deployment.start_controller()
                deployment.admin("network", "create", "corp")
                deployment.add_connector("corp", CONNECTOR_NAME)
                deployment.admin("resource", "create", "--network", "corp", "--address", PRIVATE, "Target")
                deployment.start_connector(CONNECTOR_NAME)
                deployment.admin("service", "create", "machines")
                deployment.admin("service", "grant", "machines", "Target")
                with _captured(topology, deployment, directory) as made:
                    yield made
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _captured(topology: Topology, deployment: Deployment, directory: Path) -> Iterator[EndsWorld]:
    (directory / "daemon").mkdir()
    limited = ["setpriv", f"--bounding-set={CAPABILITIES}", "--inh-caps=-all", "--no-new-privs"]
    daemon = DaemonCommands(directory / "daemon", [*topology.prefix("client"), *limited])
    daemon.ok("setup", "--headless", str(deployment.add_key("machines", "server")))
    assert daemon.ok("start", "--wait", "30") == "online\n", (daemon.ok("status", "-v"), daemon.tail())
    told = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
    words = [sys.executable, "-m", "klinket", "run", "--key-file", str(deployment.add_key("machines", "job")), "--"]
    job = subprocess.Popen(
        [*topology.prefix("middle"), *words, sys.executable, "-c", told],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**clean_environment(), "HOME": "/nonexistent"}, cwd="/",
    )  # fmt: skip
    try:
        assert job.stdout is not None
        line = job.stdout.readline().strip()
        assert line, "klinket run has ended"
        places = [["ip", "netns", "exec", name] for name in topology.names.values()]
        for where in [*places, ["nsenter", "-n", "-t", line.decode()]]:
            sh(*where, "sysctl", "-qw", f"net.ipv4.tcp_rmem={_RECEIVE_BUFFERS}")
        yield EndsWorld(topology, deployment, daemon, job, int(line))
    finally:
        job.communicate(timeout=30)
        daemon.run("stop")


def pattern(size: int, start: int = 0) -> bytes:
    """Return bytes of a stream that tell where in it they stand."""
    first, last = start // 4, (start + size) // 4 + 1
    return struct.pack(f">{last - first}I", *range(first, last))[start % 4 : start % 4 + size]


def read_to_end(sock: socket.socket) -> tuple[bytes, str]:
    """Return what comes until the stream ends, and how it does: "end" or "reset"."""
    data = bytearray()
    try:
        while more := sock.recv(1 << 16):
            data += more
    except ConnectionResetError:
        return bytes(data), "reset"
    return bytes(data), "end"


def read_exactly(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count and (more := sock.recv(min(1 << 16, count - len(data)))):
        data += more
    return bytes(data)


def reset(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    sock.close()


def wait_until_taken(sock: socket.socket) -> None:
    """Return when the peer's kernel has taken everything that was sent."""

    def is_taken() -> bool:
        return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0] == 0

    wait_until(is_taken, "the peer does not take what was sent", STEP_SECONDS)


def hangs_up(sock: socket.socket, seconds: float = STEP_SECONDS) -> bool:
    """Return whether the connection is over for whoever neither reads nor writes: what poll() tells without being asked."""
    waiting = select.poll()
    waiting.register(sock, 0)
    return any(events & (select.POLLHUP | select.POLLERR) for _, events in waiting.poll(seconds * 1000))


class Flood:
    """Sends a pattern from a thread until told to stop, or an error: `sent` bytes until now, `error` afterwards.

    It is to be stopped before its socket is closed: while a thread waits at a socket, the kernel keeps it open.
    """

    def __init__(self, sock: socket.socket, most: int = 1 << 62) -> None:
        self.sent = 0
        self.error: OSError | None = None
        self._sock = sock
        self._most = most
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        room = select.poll()
        room.register(self._sock, select.POLLOUT)
        try:
            while self.sent < self._most and not self._over.is_set():
                if room.poll(50):
                    self.sent += self._sock.send(pattern(min(1 << 16, self._most - self.sent), self.sent))
        except OSError as error:
            self.error = error

    def stop(self) -> None:
        """Send no more; returns when nobody waits at the socket."""
        self._over.set()
        self.wait()

    def wait(self) -> None:
        """Return when it has ended."""
        self._thread.join(STEP_SECONDS)
        assert not self._thread.is_alive(), "the sender is neither done nor told of an error"

    def wait_until_blocked(self) -> int:
        """Return how many bytes were sent when no more was taken for a while."""
        quiet, last = 0, -1

        def is_blocked() -> bool:
            nonlocal quiet, last
            quiet = quiet + 1 if self.sent == last else 0
            last = self.sent
            return quiet > 150 or self.error is not None  # of 10 ms

        wait_until(is_blocked, "the sender never blocks", STEP_SECONDS)
        return self.sent


__all__ = ["CONNECTOR_NAME", "STEP_SECONDS", "WAYS", "Ends", "EndsWorld", "Flood", "ends_world"]
