"""A whole klinket as real processes: used by the demo, the integration tests and the benchmarks.

Everything is done through public commands: `klinket controller`, `klinket connector`, `klinket admin`, `klinket run`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from socket import socket
from typing import Any

KLINKET = [sys.executable, "-m", "klinket"]
#: Ports that parts listen on: below those of outgoing connections (net.ipv4.ip_local_port_range begins at 32768).
_LISTENING_PORTS = (12_000, 32_000)
#: Seconds a part may take until it is ready.
READY_SECONDS = 30.0
#: Seconds a part may take to end after SIGTERM before it is killed.
STOP_SECONDS = 5.0


class DeploymentError(Exception):
    """A part did not come up or a command failed; the text holds the end of its log."""


def free_port(address: str = "127.0.0.1") -> int:
    """Return a TCP port that was free on `address` a moment ago.

    It lies below the ports the kernel gives to outgoing connections, so none of those takes it before a part listens on it.
    """
    while True:
        port = SystemRandom().randrange(*_LISTENING_PORTS)
        with socket() as probe, suppress(OSError):
            probe.bind((address, port))
            return port


def clean_environment() -> dict[str, str]:
    """Return this process's environment without any setting of klinket's or a proxy's."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("KLINKET_", "TWINGATE_")) and not name.lower().endswith("_proxy")
    }


class Part:
    """One running process of the deployment, with its log file."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self.environment = dict(environment)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; its standard output and error go to the log file."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} was not started"
        return self.process.pid

    def running(self) -> bool:
        """Return whether the process was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """End the process and its children at once (SIGKILL)."""
        if self.process is not None:
            self._signal(signal.SIGKILL)
            self.process.wait()

    def stop(self) -> None:
        """End the process with SIGTERM; after STOP_SECONDS with SIGKILL."""
        if self.process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        self._signal(signal.SIGKILL)  # also children that outlived it
        self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def tail(self, lines: int = 20) -> str:
        """Return the last lines of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Deployment:
    """Controller with relay, connectors and admin commands below one directory.

    `address`: where controller and relay listen and are reached. `enter`: gives the command prefix that runs a part
    elsewhere, for example in a network namespace; its argument is the part's name. `with_relay`: one runs beside the controller.
    """

    def __init__(
        self,
        directory: Path,
        *,
        address: str = "127.0.0.1",
        network: str = "demo",
        enter: Callable[[str], Sequence[str]] = lambda _: (),
        with_relay: bool = True,
    ) -> None:
        self.directory = directory
        self.address = address
        self.network = network
        self.enter = enter
        self.port = free_port()
        self.relay_port = free_port()
        self.with_relay = with_relay
        self.url = f"https://{address}:{self.port}"
        self.state = directory / "controller"
        self.authority = self.state / "controller-ca.pem"
        self.api_token = ""
        self.parts: dict[str, Part] = {}

    # ---- parts

    def start_controller(self, *options: str) -> Part:
        """Start controller and relay and wait until both are ready; keeps the API token the first start prints."""
        part = self.parts.get("controller")
        if part is None:
            command = [
                *self.enter("controller"), *KLINKET, "controller",
                "--network", self.network,
                "--state", str(self.state),
                "--listen", f"{self.address}:{self.port}",
                "--public-url", self.url,
                *(["--with-relay", f"{self.address}:{self.relay_port}"] if self.with_relay else []),
                "--api-reads-per-minute", "0", "--api-writes-per-minute", "0",
                *options,
            ]  # fmt: skip
            part = self.parts["controller"] = self._part("controller", command)
        part.start()
        self.wait_for("the controller", lambda: self.authority.exists() and self._answers("/readyz"), part)
        if not self.api_token:
            found = re.search(r"kl_api_\w+", part.log.read_text())
            if found is None:
                raise DeploymentError(f"the controller printed no API token:\n{part.tail()}")
            self.api_token = found.group()
        return part

    def start_relay(self, name: str, listen: str, *options: str, **environment: str) -> Part:
        """Start a relay of its own at HOST:PORT, and wait until it is attached."""
        part = self.parts.get(name)
        if part is None:
            token = self.directory / f"{name}-token"
            token.write_text(self.issue("relay-token", name).strip())
            command = [
                *self.enter(name), *KLINKET, "relay",
                "--controller", self.url, "--ca", str(self.authority),
                "--listen", listen,
                "--state", str(self.directory / name),
                "--token-file", str(token),
                *options,
            ]  # fmt: skip
            part = self.parts[name] = self._part(name, command, **environment)
        begun = part.log.stat().st_size if part.log.exists() else 0
        part.start()
        self.wait_for(f"relay {name}", lambda: b"is attached" in part.log.read_bytes()[begun:], part)
        return part

    def start_connector(self, name: str, **environment: str) -> Part:
        """Start the connector with tokens in `NAME.json` (see `admin connector tokens`) and wait until it is alive."""
        part = self.parts.get(name)
        if part is None:
            command = [
                *self.enter(name), *KLINKET, "connector",
                "--tokens-file", str(self.directory / f"{name}.json"),
                "--state", str(self.directory / name),
            ]  # fmt: skip
            part = self.parts[name] = self._part(name, command, **environment)
        part.start()
        self.wait_for(f"connector {name}", lambda: self.connector_state(name) == "ALIVE", part)
        return part

    def connector_state(self, name: str) -> str:
        """Return the state the Admin API gives for the connector."""
        rows = self.admin("connector", "list")
        return next((row["state"] for row in rows if row["name"] == name), "unknown")

    def start(self, name: str, command: Sequence[str], **environment: str) -> Part:
        """Start any other process of the deployment, for example a private service."""
        part = self.parts[name] = self._part(name, [*self.enter(name), *command], **environment)
        part.start()
        return part

    def stop(self) -> None:
        """End every process, the youngest first."""
        for part in reversed(list(self.parts.values())):
            part.stop()

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- commands

    def admin(self, *arguments: str, where: str = "admin") -> Any:
        """Run `klinket admin ARGUMENTS --json` and return what it printed, parsed; raises DeploymentError."""
        done = self.admin_process(*arguments, "--json", where=where)
        if done.returncode:
            raise DeploymentError(f"klinket admin {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def admin_process(self, *arguments: str, where: str = "admin") -> subprocess.CompletedProcess[str]:
        """Run `klinket admin ARGUMENTS` to its end, as an admin at a shell."""
        return subprocess.run(
            [*self.enter(where), *KLINKET, "admin", *arguments],
            env={
                **clean_environment(),
                "KLINKET_URL": self.url,
                "KLINKET_API_TOKEN": self.api_token,
                "KLINKET_CA": str(self.authority),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def issue(self, *arguments: str) -> str:
        """Run `klinket issue ARGUMENTS` at the controller's state and return what it printed; raises DeploymentError."""
        done = subprocess.run(
            [*self.enter("controller"), *KLINKET, "issue", *arguments, "--state", str(self.state)],
            env=clean_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        if done.returncode:
            raise DeploymentError(f"klinket issue {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")
        return done.stdout

    def add_connector(self, network: str, name: str) -> None:
        """Create a connector in the remote network and keep its tokens in `NAME.json`."""
        self.admin("connector", "create", "--network", network, name)
        self.admin("connector", "tokens", name, "--out", str(self.directory / f"{name}.json"))

    def add_key(self, account: str, name: str) -> Path:
        """Generate a service key and return the path of its key file."""
        path = self.directory / f"{account}-{name}.json"
        self.admin("service", "key", "generate", account, "--name", name, "--out", str(path))
        return path

    def run_command(self, key_file: Path, *command: str, options: Sequence[str] = ()) -> list[str]:
        """Return the full `klinket run` command line for a job."""
        return [*self.enter("client"), *KLINKET, "run", "--key-file", str(key_file), *options, "--", *command]

    # ---- waiting

    def wait_for(self, what: str, ready: Callable[[], bool], part: Part | None = None) -> None:
        """Poll until `ready`; raises DeploymentError after READY_SECONDS or when `part` has ended."""
        deadline = time.monotonic() + READY_SECONDS
        while not ready():
            if part is not None and not part.running():
                raise DeploymentError(f"{what} ended at its start:\n{part.tail()}")
            if time.monotonic() > deadline:
                log = f":\n{part.tail()}" if part is not None else ""
                raise DeploymentError(f"{what} was not ready within {READY_SECONDS:.0f} s{log}")
            time.sleep(0.05)

    def _answers(self, path: str) -> bool:
        if self.enter("controller"):
            probe = [
                *self.enter("controller"), sys.executable, "-c",
                "import ssl,sys,urllib.request as u;"
                "u.urlopen(sys.argv[1],context=ssl.create_default_context(cafile=sys.argv[2]),timeout=2)",
                self.url + path, str(self.authority),
            ]  # fmt: skip
            return subprocess.run(probe, capture_output=True, env=clean_environment()).returncode == 0
        try:
            context = ssl.create_default_context(cafile=str(self.authority))
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
            with opener.open(self.url + path, timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError, ssl.SSLError):
            return False

    def _part(self, name: str, command: Sequence[str], **environment: str) -> Part:
        self.directory.mkdir(parents=True, exist_ok=True)
        return Part(name, command, self.directory / f"{name}.log", {**clean_environment(), **environment})
