"""One whole klinket on loopback for a module of tests, with an echo service behind it."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from examples.deployment import Deployment, Part, clean_environment, free_port

ROOT = Path(__file__).parents[2]
#: The echo service listens here; clients know it only as ECHO_NAME.
ECHO_ADDRESS = "127.77.0.30"
ECHO_NAME = "echo.internal"
#: Seconds within which everything must have recovered by itself after a part was killed.
RECOVERY_SECONDS = 30.0


@dataclass
class Loopback:
    """A deployment with network `office`, connector `office-1`, resource `Echo` and service account `ci`."""

    deployment: Deployment
    echo_port: int
    key: Path
    socks: tuple[str, int]
    http: tuple[str, int]
    client: Part

    def dial(self, host: str = ECHO_NAME, port: int | None = None, timeout: float = 20.0) -> socket.socket:
        """Connect through the client's SOCKS proxy; raises ProxyRefused with the reply code."""
        return dial_socks(self.socks, host, port or self.echo_port, timeout)

    def run(
        self,
        *command: str,
        key: Path | None = None,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        timeout: float = 60.0,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command through `klinket run` to its end. `prefix`: what klinket itself runs below."""
        return subprocess.run(
            [*prefix, *self.deployment.run_command(key or self.key, *command, options=options)],
            capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=timeout,
            env={**clean_environment(), **(environment or {})},
        )  # fmt: skip

    def grant(self, account: str, name: str, address: str, *options: str) -> None:
        """Make a resource in `office` and grant it."""
        self.deployment.admin("resource", "create", "--network", "office", "--address", address, *options, name)
        self.deployment.admin("service", "grant", account, name)

    def wait_until_known(self, host: str, port: int = 1) -> None:
        """Wait until the running client knows of a grant: its answer is then another than `not granted`."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                self.dial(host, port, timeout=0.4).close()
                return
            except ProxyRefused as refused:
                if refused.reply != 2:
                    return
            except OSError:
                return
            time.sleep(0.05)
        raise AssertionError(f"{host} was granted, but the client does not know")

    def echo(self, connection: socket.socket, text: bytes = b"ping") -> None:
        """Send `text` and check that it comes back."""
        connection.sendall(text)
        received = b""
        while len(received) < len(text):
            more = connection.recv(65536)
            if not more:
                raise ConnectionError("the echo ended early")
            received += more
        assert received == text

    def wait_until_reachable(self, seconds: float = RECOVERY_SECONDS) -> float:
        """Open new flows until one echoes; return the seconds it took."""
        begun = time.monotonic()
        while True:
            try:
                with self.dial(timeout=5.0) as connection:
                    self.echo(connection)
                return time.monotonic() - begun
            except OSError:
                if time.monotonic() - begun > seconds:
                    raise
                time.sleep(0.1)


class ProxyRefused(OSError):
    """The SOCKS proxy answered with a reply code other than 0 (RFC 1928 §6)."""

    def __init__(self, reply: int) -> None:
        super().__init__(f"SOCKS reply {reply}")
        self.reply = reply


def dial_socks(proxy: tuple[str, int], host: str, port: int, timeout: float = 20.0) -> socket.socket:
    """Return a connection to host:port through a SOCKS5 proxy."""
    connection = socket.create_connection(proxy, timeout=timeout)
    try:
        name = host.encode()
        connection.sendall(b"\x05\x01\x00" + b"\x05\x01\x00\x03" + bytes([len(name)]) + name + struct.pack(">H", port))
        answer = b""
        while len(answer) < 12:
            more = connection.recv(64)
            if not more:
                raise ConnectionError("the proxy closed the connection")
            answer += more
        if answer[3]:
            raise ProxyRefused(answer[3])
    except BaseException:
        connection.close()
        raise
    return connection


@pytest.fixture(scope="module")
def loopback() -> Iterator[Loopback]:
    """Start everything once per module."""
    directory = Path(tempfile.mkdtemp(prefix="klinket-loopback-"))
    try:
        with Deployment(directory, network="office-net") as deployment:
            yield build(deployment)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def build(deployment: Deployment) -> Loopback:
    """Bring up the deployment and a client with proxies; returns when a flow has echoed."""
    echo_port = free_port(ECHO_ADDRESS)
    deployment.start("echo", [sys.executable, "-m", "bench.load", ECHO_ADDRESS, str(echo_port)], PYTHONPATH=str(ROOT))
    deployment.start_controller()
    deployment.admin("network", "create", "office")
    deployment.add_connector("office", "office-1")
    deployment.admin(
        "resource", "create", "--network", "office", "--address", ECHO_ADDRESS, "--alias", ECHO_NAME,
        "--tcp", f"{echo_port}-{echo_port + 1}", "Echo",
    )  # fmt: skip
    deployment.start_connector("office-1")
    deployment.admin("service", "create", "ci")
    deployment.admin("service", "grant", "ci", "Echo")
    key = deployment.add_key("ci", "runner")
    socks, http = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
    client = start_client(deployment, key, socks, http)
    world = Loopback(deployment, echo_port, key, socks, http, client)
    world.wait_until_reachable()
    return world


def start_client(deployment: Deployment, key: Path, socks: tuple[str, int], http: tuple[str, int], name: str = "client") -> Part:
    """Start `klinket client` with both proxies."""
    listen = ["--socks", f"{socks[0]}:{socks[1]}", "--http-proxy", f"{http[0]}:{http[1]}"]
    return deployment.start(name, [sys.executable, "-m", "klinket", "client", "--key-file", str(key), *listen])


def dial_http(proxy: tuple[str, int], host: str, port: int, timeout: float = 20.0) -> tuple[str, socket.socket]:
    """Ask an HTTP proxy to CONNECT; returns its whole answer up to the first payload byte, and the connection."""
    connection = socket.create_connection(proxy, timeout=timeout)
    try:
        connection.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            more = connection.recv(1)
            if not more:
                raise ConnectionError("the proxy closed the connection")
            answer += more
        return answer.decode(), connection
    except BaseException:
        connection.close()
        raise
