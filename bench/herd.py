"""A controller is killed and started again, and all its clients come back.

A real controller with its relay, a connector, and one client with a live flow through them; beside these many clients out of a
few processes (bench/herd_clients.py), each with a session, key and channel of its own, from 8,000 addresses. Their sessions are
written into the database before the start: logins are not what is measured. Times count from the kill, so the controller's own
start is part of them. "asked" is when a client made the try that succeeded: from there to its configuration is what it waited for
the controller. Figures are for a machine that clients and controller share.
"""

from __future__ import annotations

import asyncio
import json
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from itertools import pairwise
from pathlib import Path

from bench.command import options
from bench.data_plane.measure import cpu_seconds
from bench.load import dial_through_socks
from examples.deployment import Deployment, Part, clean_environment, free_port
from klinket.controller import sealing, trust
from klinket.controller.app import access, service_accounts, service_keys
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.store.engine import open_store
from klinket.controller.trust import KeyPurpose, Trust
from klinket.domain.audit import SYSTEM
from klinket.domain.grant import Principal
from klinket.domain.identifiers import Kid, ServiceAccountUuid, SessionId
from klinket.net import clock
from klinket.wire import access_token, signing
from klinket.wire.identity import ClientIdentity

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.9"
PROCESSES = 2
SESSIONS_EACH = 100
RESOURCES = 10
#: Seconds of quiet before the kill: what attaching has left behind is over then.
SETTLE_SECONDS = 5.0
#: Seconds between echoes on the live flow.
ECHO_SECONDS = 0.1
TOKEN_SECONDS = 3600.0


def make_sessions(state: Path, network: str, count: int, folder: Path) -> list[Path]:
    """Write accounts, keys and sessions into a controller's database; returns files of what their clients hold."""

    async def make() -> list[Path]:
        store = open_store(state / "klinket.db", clock.wall)
        try:
            master = sealing.load_or_make(state / "keys" / "master.key")
            trusted = await trust.load_or_make(store, master, network, clock.wall, clock.entropy)
            lines = await store.write(lambda tx: _sessions(tx, trusted, count))
        finally:
            store.close()
        files = [folder / f"sessions-{number}" for number in range(PROCESSES)]
        for number, file in enumerate(files):
            file.touch(0o600)
            file.write_text("\n".join(lines[number::PROCESSES]))
        return files

    return asyncio.run(make())


def _sessions(tx: Transaction, trusted: Trust, count: int) -> list[str]:
    actor = Actor(SYSTEM.type, name="bench")
    resources = tx.resources.find()
    public = signing.public_key_to_pem(signing.generate_private_key().public_key())
    lines: list[str] = []
    for number in range(-(-count // SESSIONS_EACH)):
        account = service_accounts.create(tx, actor, name=f"herd-{number}", uuid=str(uuid.uuid4()))
        key = service_keys.create(tx, actor, account, days=0, name="runner", kid=Kid(f"herd-{number}"), public_key=public)
        for resource in resources:
            access.grant(tx, actor, resource, account)
        for _ in range(min(SESSIONS_EACH, count - len(lines))):
            mine = signing.generate_private_key()
            jkt = signing.thumbprint(mine.public_key())
            session = SessionId(signing.base64url(clock.entropy(16)))
            tx.sessions.add(
                id=session, service_account_id=account.id, service_key_id=key.id, jkt=jkt,
                hostname="herd", client_version="0.1.0", address="127.0.0.1",
            )  # fmt: skip
            identity = ClientIdentity(trusted.network, Principal(ServiceAccountUuid(account.uuid), Kid(key.kid), session))
            signer = trusted.signers[KeyPurpose.ACCESS]
            token = access_token.issue(signer, identity, jkt, now=clock.wall(), lifetime=TOKEN_SECONDS)
            lines.append(json.dumps([token, signing.private_key_to_pem(mine)]))
    return lines


class LiveFlow:
    """A flow through the connector that echoes all the time."""

    def __init__(self, proxy: int, port: int) -> None:
        self.connection: socket.socket = dial_through_socks(("127.0.0.1", proxy), HOST, port)()
        self.connection.settimeout(10)
        self.echoed: list[float] = []
        self.lost = ""
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            while not self.over.is_set():
                self.connection.sendall(b"x")
                if self.connection.recv(1) != b"x":
                    raise ConnectionError("it has ended")
                self.echoed.append(time.monotonic())
                time.sleep(ECHO_SECONDS)
        except OSError as error:
            self.lost = str(error)

    def close(self) -> dict[str, object]:
        """End it; returns whether it lived until now, and the longest time between echoes."""
        self.over.set()
        self.thread.join()
        self.connection.close()
        gaps = [later - earlier for earlier, later in pairwise(self.echoed)]
        return {"lost": self.lost or "no", "echoes": len(self.echoed), "longest gap, ms": round(1000 * max(gaps, default=0.0))}


class ClientProcess:
    """One process of clients."""

    def __init__(self, deployment: Deployment, sessions: Path, first: int) -> None:
        arguments = [str(deployment.port), str(deployment.authority), str(sessions), str(first)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.herd_clients", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**clean_environment(), "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def say(self, word: str) -> None:
        """Give an order."""
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def answer(self) -> object:
        """Wait for the answer."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline() or "null")

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def distribution(seconds: list[float]) -> dict[str, float]:
    """Return p50, p99 and last, in seconds."""
    ordered = sorted(seconds)
    return {
        "p50": round(ordered[len(ordered) // 2], 2),
        "p99": round(ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], 2),
        "last": round(ordered[-1], 2),
    }


def say(what: str) -> None:
    """Tell how far the measurement is."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


def rss_mb(pid: int) -> float:
    """Return the resident memory of one process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1000, 1)


def start(deployment: Deployment, clients: int, grant_seconds: int) -> tuple[Part, int, list[Path]]:
    """Bring up all but the herd; returns the controller, the proxy of the client with the flow, and the herd's sessions."""
    options = ("--grant-seconds", str(grant_seconds))
    say("a controller with its relay, a connector and a client with a flow come up")
    controller = deployment.start_controller(*options)
    deployment.admin("network", "create", "office")
    deployment.add_connector("office", "office-1")
    for number in range(RESOURCES - 1):
        deployment.admin("resource", "create", "--network", "office", "--address", f"host-{number}.internal", f"Host {number}")
    deployment.admin("resource", "create", "--network", "office", "--address", HOST, "Target")
    deployment.admin("service", "create", "flow")
    deployment.admin("service", "grant", "flow", "Target")
    key = deployment.add_key("flow", "runner")
    controller.stop()
    say(f"{clients} sessions are written into its database")
    files = make_sessions(deployment.state, deployment.network, clients, deployment.directory)
    controller = deployment.start_controller()
    deployment.start_connector("office-1", KLINKET_LISTEN=f"127.0.0.1:{free_port()}")  # the relay dies with its controller
    proxy = free_port()
    command = [sys.executable, "-m", "klinket", "client", "--key-file", str(key), "--socks", f"127.0.0.1:{proxy}"]
    client = deployment.start("client", command)
    deployment.wait_for("the client", lambda: "online" in client.log.read_text(), client)
    return controller, proxy, files


def measure(clients: int, grant_seconds: int) -> dict[str, object]:
    """Kill, start again, and wait until everybody is back."""
    with tempfile.TemporaryDirectory(prefix="klinket-bench-") as folder, Deployment(Path(folder)) as deployment:
        controller, proxy, files = start(deployment, clients, grant_seconds)
        port = free_port(HOST)
        deployment.start("target", [sys.executable, "-m", "bench.idle", "serve", str(port)])
        time.sleep(1.0)
        herd = [ClientProcess(deployment, file, number * clients) for number, file in enumerate(files)]
        try:
            say(f"{clients} clients attach")
            begun = time.monotonic()
            for process in herd:
                process.say("attach")
            attached = sum(int(str(process.answer())) for process in herd)
            first = time.monotonic() - begun
            say(f"{attached} are attached; a look at them idle")
            time.sleep(SETTLE_SECONDS)
            idle = cpu_seconds([controller.pid])
            time.sleep(SETTLE_SECONDS)
            idle = (cpu_seconds([controller.pid]) - idle) / SETTLE_SECONDS
            flow = LiveFlow(proxy, port)
            time.sleep(1.0)
            for process in herd:
                process.say("back")
            killed = time.monotonic()
            controller.kill()
            deployment.start_controller()
            ready = time.monotonic()
            say("the controller was killed and is ready again")
            used = cpu_seconds([controller.pid])
            told = [one for process in herd for one in process.answer()]  # type: ignore[attr-defined]
            over = time.monotonic()
            used = cpu_seconds([controller.pid]) - used
            memory = rss_mb(controller.pid)
            deployment.wait_for("the connector", lambda: deployment.connector_state("office-1") == "ALIVE")
            connector_back = time.monotonic()
            time.sleep(SETTLE_SECONDS)
            flowed = flow.close()
        finally:
            for process in herd:
                process.end()
        log = controller.log.read_text(errors="replace")
    return {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "clients": clients,
        "attached before": attached,
        "first attachment, clients a second": round(attached / first),
        "controller ready after the kill, s": round(ready - killed, 2),
        "back after the kill, s": distribution([one["back"] - killed for one in told]),
        "from the last asking to the configuration, s": distribution([one["back"] - one["asked"] for one in told]),
        "tries": sum(one["tries"] for one in told),
        "refused": Counter(code for one in told for code in one["refused"]),
        "controller CPU ms a resume": round(1000 * (used - idle * (over - ready)) / clients, 2),
        "controller CPU ms a resume, heartbeats included": round(1000 * used / clients, 2),
        "controller CPU while they are attached, % of a core": round(100 * idle, 1),
        "controller RSS, MB": memory,
        "live flow": flowed,
        "connector seen back, s": round(connector_back - killed, 2),
        "errors in the controller's log": sum(line.count("Traceback") for line in log.splitlines()),
    }


def main() -> None:
    """Print one JSON object, with `--json` or without."""
    parser = options("herd", __doc__ or "", "--clients 200")
    parser.add_argument("--clients", type=int, default=10_000, metavar="N", help="how many (%(default)s)")
    parser.add_argument("--grant-seconds", type=int, default=300, metavar="SECONDS", help="how long a grant lasts (%(default)s)")
    given = parser.parse_args()
    print(json.dumps(measure(given.clients, given.grant_seconds), indent=2))
