"""What attacks cost those who behave.

Real processes on loopback: a controller with its relay, three connectors (one behind the relay, one with a listener of its
own, one whose key and tokens were stolen), a client with proxies, and an attacker. All the while honest peers connect and
echo, through the relay and past it, log in, and open a page of the console, signed in. Each attack runs at a fixed rate, from
an address of its own unless said otherwise, and in a process of lower priority: what is measured is what it has klinket do,
not what it costs to make. Before each attack the same is measured in quiet; the first row is no attack at all and says how far
two such measurements differ.

Exit status 1: an honest p99 more than doubled (beyond what the first row did by itself), somebody honest did not get through, or
memory grew beyond its bound.
"""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.command import options, say
from bench.data_plane.measure import cpu_seconds, memory_mb
from bench.main_job import percentile
from examples.deployment import Deployment, clean_environment, free_port
from klinket.controller.console.sign_in import password_hash

ROOT = Path(__file__).parents[1]
ATTACKER, HONEST = "127.0.0.66", "127.0.0.1"
PRIVATE = ("127.77.0.31", "127.77.0.32")
#: Megabytes by which the memory of all parts may grow under an attack.
MAX_GROWTH_MB = 128.0
#: Milliseconds below which a p99 is not called doubled: the machine's own noise.
FLOOR_MS = 15.0
#: Seconds until the honest peers have done their first rounds.
READY_SECONDS = 60.0
#: Seconds before and during each attack, at the most.
MAX_SECONDS = 600.0
#: Seconds without honest rounds measured, for an attack to come up, and to settle after one.
SETTLE_SECONDS = 2.0


@dataclass(frozen=True)
class Row:
    """An attack: `rate` in words; `ports`: those it goes to; `given`: what else the attacker is told.

    `hashes_mb`: what the hashes of passwords that are made at a time take.
    """

    name: str
    attack: str
    rate: str
    ports: tuple[str, ...]
    given: dict[str, Any] = field(default_factory=dict)
    source: str = ATTACKER
    hashes_mb: float = 0.0


HASHES_MB = password_hash.MAX_HASHES * password_hash.MEMORY_KIB / 1024
EVERY = ("controller", "relay", "connector", "socks", "http", "metrics")
ROWS = (
    Row("nothing", "", "-", ()),
    Row("slow hellos", "slow", "100 a port, a byte a second", EVERY, {"per_port": 100}),
    Row("silent connections", "silent", "300 a second", EVERY, {"rate": 300}),
    Row("silent connections, honest address", "silent", "300 a second", EVERY, {"rate": 300}, HONEST),
    Row("garbage and oversized input", "garbage", "60 a second", EVERY, {"rate": 60}),
    Row("datagrams of noise", "datagrams", "3000 a second", ("connector",), {"rate": 3000}),
    Row("bad logins", "logins", "40 a second", ("controller",), {"rate": 40}),
    Row("bad logins, honest address", "logins", "40 a second", ("controller",), {"rate": 40}, HONEST),
    Row("bad enrolments and meetings", "enrolments", "40 a second", ("controller",), {"rate": 40}),
    Row("GraphQL without, or with bad tokens", "graphql", "40 a second", ("controller",), {"rate": 40}),
    Row("deep, wide and costly GraphQL", "documents", "20 a second", ("controller",), {"rate": 20}),
    Row("passwords guessed at the console", "guesses", "40 a second", ("controller",), {"rate": 40}, ATTACKER, HASHES_MB),
    Row("passwords guessed, honest address", "guesses", "40 a second", ("controller",), {"rate": 40}, HONEST, HASHES_MB),
    Row("slow and oversized forms", "forms", "100 held, 20 a second", ("controller",), {"rate": 20, "held": 100}),
    Row("bad tickets and hellos at the relay", "tickets", "60 a second", ("relay",), {"rate": 60}),
    Row("a stolen connector attaches", "storm", "20 a second", ("controller",), {"rate": 20}),
    Row("a stolen connector sends messages", "messages", "500 a second", ("controller",), {"rate": 500}),
)


@dataclass
class Measured:
    """Honest rounds by kind (milliseconds), those that failed, and memory and CPU of all parts."""

    times: dict[str, list[float]]
    failed: list[str]
    memory_mb: float
    peak_mb: float
    cpu_seconds: float

    def told(self) -> dict[str, Any]:
        """Return it as the document of --json has it."""
        shares = {
            kind: {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99), "rounds": len(times)}
            for kind, times in self.times.items()
        }
        memory = {"memory_mb": self.memory_mb, "peak_mb": self.peak_mb}
        return {"honest": shares, "failed": self.failed, "cpu_seconds": self.cpu_seconds, **memory}


class Honest:
    """The honest peers' process, and what it has told."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.kinds: list[str] = wanted["kinds"]
        self.rounds: list[tuple[str, float, float, str]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.abuse_honest"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**clean_environment(), "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(wanted) + "\n")
        self.process.stdin.flush()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            kind, began, took, error = json.loads(line)
            self.rounds.append((kind, began, took, error))

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()

    def between(self, began: float, ended: float) -> tuple[dict[str, list[float]], list[str]]:
        """Return the times of rounds that began then, by kind, and why others failed.

        A kind of which no round has ended has had one, and failed: it has hung all the while.
        """
        times: dict[str, list[float]] = {kind: [] for kind in self.kinds}
        failed = []
        for kind, at, took, error in list(self.rounds):
            if began <= at < ended:
                times[kind].append(took)
                if error:
                    failed.append(f"{kind}: {error}")
        for kind in (kind for kind, found in times.items() if not found):
            times[kind].append((ended - began) * 1000)
            failed.append(f"{kind}: no round ended")
        return times, failed


@dataclass
class World:
    """What runs."""

    deployment: Deployment
    ports: dict[str, int]
    given: dict[str, Any]
    honest: list[Honest]

    def pids(self) -> list[int]:
        """Return the processes of klinket's own parts."""
        roles = ("controller", "connector", "client")
        return [part.pid for name, part in self.deployment.parts.items() if name.split("-")[0] in roles]

    def measure(self, seconds: float) -> Measured:
        """Look on for so long."""
        pids = self.pids()
        before = cpu_seconds(pids)
        began = time.monotonic()
        peak = memory = memory_mb(pids)
        while time.monotonic() < began + seconds:
            time.sleep(1.0)
            memory = memory_mb(pids)
            peak = max(peak, memory)
        times: dict[str, list[float]] = {}
        failed = []
        for one in self.honest:
            found, errors = one.between(began, time.monotonic() - 1.0)
            times |= found
            failed += errors
        return Measured(times, failed, memory, peak, cpu_seconds(pids) - before)

    def attack(self, row: Row, seconds: float) -> tuple[Measured, dict[str, Any]]:
        """Attack, and look on meanwhile."""
        if not row.attack:
            return self.measure(seconds), {}
        told = {"ports": {name: self.ports[name] for name in row.ports}, "source": row.source}
        attacker = subprocess.Popen(
            [sys.executable, "-m", "bench.abuse_attacks", row.attack],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**clean_environment(), "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        try:
            assert attacker.stdin is not None
            attacker.stdin.write(json.dumps(told | self.given | row.given | {"seconds": seconds + 2 * SETTLE_SECONDS}) + "\n")
            attacker.stdin.flush()
            time.sleep(SETTLE_SECONDS)
            measured = self.measure(seconds)
            said, errors = attacker.communicate(timeout=60)
        finally:
            attacker.kill()
            attacker.wait()
        if attacker.returncode:
            raise SystemExit(f"the attacker failed at {row.name!r}:\n{errors[-2000:]}")
        return measured, json.loads(said)


def prepare(deployment: Deployment) -> World:
    """Bring everything up."""
    admin = deployment.admin
    metrics = free_port()
    deployment.start_controller("--metrics", f"127.0.0.1:{metrics}")
    targets = []
    for name, address in zip(("relayed", "direct"), PRIVATE, strict=True):
        port = free_port(address)
        deployment.start(f"echo-{name}", [sys.executable, "-m", "bench.load", address, str(port)], PYTHONPATH=str(ROOT))
        targets.append((address, port))
        admin("network", "create", name)
        deployment.add_connector(name, f"connector-{name}")
        admin("resource", "create", "--network", name, "--address", address, name)
    admin("network", "create", "stolen")
    deployment.add_connector("stolen", "connector-stolen")
    listen = free_port()
    deployment.start_connector("connector-relayed")
    deployment.start_connector("connector-direct", KLINKET_LISTEN=f"127.0.0.1:{listen}")
    deployment.start_connector("connector-stolen")
    for account in ("honest", "logins", "thief"):
        admin("service", "create", account)
        for resource in ("relayed", "direct"):
            admin("service", "grant", account, resource)
    admin("service", "limits", "logins", "--logins-per-second", "100", "--login-burst", "1000", "--max-sessions", "10000")
    keys = {account: str(deployment.add_key(account, "key")) for account in ("honest", "logins", "thief")}
    socks, proxy = free_port(), free_port()
    listening = ["--socks", f"127.0.0.1:{socks}", "--http-proxy", f"127.0.0.1:{proxy}"]
    deployment.start("client", [sys.executable, "-m", "klinket", "client", "--key-file", keys["honest"], *listening])
    ports = {
        "controller": deployment.port, "relay": deployment.relay_port, "connector": listen,
        "socks": socks, "http": proxy, "metrics": metrics,
    }  # fmt: skip
    given = {
        "url": deployment.url, "key": keys["thief"], "api_token": deployment.api_token,
        "tokens": str(deployment.directory / "connector-stolen.json"), "state": str(deployment.directory / "connector-stolen"),
    }  # fmt: skip
    time.sleep(3.0)
    link = re.search(r"https://\S+/console/sign-in/link\S+", deployment.parts["controller"].log.read_text())
    if link is None:
        raise SystemExit("the controller printed no one-time link")
    told = {
        "socks": socks, "relayed": targets[0], "direct": targets[1], "key": keys["logins"],
        "url": deployment.url, "authority": str(deployment.authority), "link": link[0],
    }  # fmt: skip
    # Logins and pages in processes of their own: what they cost their own side is not to show in the flows.
    honest = [Honest(told | {"kinds": kinds}) for kinds in (["relayed", "direct"], ["login"], ["console"])]
    until = time.monotonic() + READY_SECONDS
    while not all(one.rounds for one in honest):
        if time.monotonic() > until or any(one.process.poll() is not None for one in honest):
            raise SystemExit("the honest peers have not come up")
        time.sleep(0.1)
    return World(deployment, ports, given, honest)


def ratio(kind: str, before: Measured, during: Measured) -> float:
    """Return by how much the p99 of a kind of honest rounds has grown."""
    return percentile(during.times[kind], 0.99) / max(0.001, percentile(before.times[kind], 0.99))


def judged(row: Row, noise: dict[str, float], before: Measured, during: Measured, after_mb: float) -> list[str]:
    """Return what is wrong. `noise`: the ratios without an attack, where they are above 1."""
    wrong = []
    for kind, times in before.times.items():
        was, is_ = percentile(times, 0.99), percentile(during.times[kind], 0.99)
        if ratio(kind, before, during) > 2 * noise.get(kind, 1.0) and is_ > FLOOR_MS:
            wrong.append(f"{kind} p99 {was:.1f} -> {is_:.1f} ms")
    if during.failed:
        wrong.append(f"{len(during.failed)} honest rounds failed ({during.failed[0]})")
    if max(after_mb, during.peak_mb) - before.memory_mb > MAX_GROWTH_MB + row.hashes_mb:
        wrong.append(f"memory {before.memory_mb:.0f} -> {during.peak_mb:.0f} -> {after_mb:.0f} MB")
    return wrong


def outcome(said: dict[str, Any]) -> str:
    """Return what the attacker got, in one line."""
    parts = [f"{port} closed after {low:g}-{high:g} s" for port, (low, high, _) in said.get("closed_after", {}).items()]
    parts += [f"{port} holds {most} at the most" for port, most in said.get("most_held", {}).items()]
    parts += [f"{text} x{times}" for text, times in sorted(said.get("outcomes", {}).items(), key=lambda one: -one[1])[:12]]
    return ", ".join(parts) or "-"


def line(row: Row, before: Measured, during: Measured, after_mb: float, said: dict[str, Any]) -> str:
    """Return the row of the table, in Markdown."""
    p99 = [
        f"{percentile(before.times[kind], 0.99):.1f} / {percentile(during.times[kind], 0.99):.1f}"
        for kind in ("relayed", "direct", "login", "console")
    ]
    memory = f"{before.memory_mb:.0f} / {during.peak_mb:.0f} / {after_mb:.0f}"
    seconds = f"{before.cpu_seconds:.1f} / {during.cpu_seconds:.1f}"
    return "| " + " | ".join((row.name, row.rate, *p99, seconds, memory, outcome(said))) + " |"


HEAD = (
    "| attack | rate | relayed p99 ms | direct p99 ms | login p99 ms | console p99 ms "
    "| CPU s of all parts | MB before / peak / after | what the attacker got |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Run all attacks, print the table."""
    parser = options("abuse", __doc__ or "", "--seconds 3 --only 'bad logins'")
    parser.add_argument("--quick", action="store_true", help="6 s, where --seconds says nothing else")
    parser.add_argument("--seconds", type=float, metavar="N", help="before and during each attack (15)")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="one of the attacks; may be repeated")
    given = parser.parse_args()
    seconds = (6.0 if given.quick else 15.0) if given.seconds is None else given.seconds
    names = dict.fromkeys(one for row in ROWS for one in (row.name, row.attack) if one)
    if unknown := [one for one in given.only if one not in names]:
        parser.error(f"no such attack: {', '.join(unknown)}; there are: {'; '.join(names)}")
    if not 0 < seconds <= MAX_SECONDS:
        parser.error(f"--seconds is more than 0, and {MAX_SECONDS:g} at the most")
    rows = [row for row in ROWS if not given.only or not {row.name, row.attack}.isdisjoint(given.only)]
    told: list[dict[str, Any]] = []
    found: list[str] = []
    noise: dict[str, float] = {}
    if not given.json:
        print(f"klinket abuse, Python {platform.python_version()}, {seconds:.0f} s before and during each attack\n")
        print(HEAD, flush=True)
    with tempfile.TemporaryDirectory() as folder, Deployment(Path(folder)) as deployment:
        say("bringing everything up")
        world = prepare(deployment)
        try:
            world.measure(3.0)
            for row in rows:
                say(f"{row.name}: {seconds:g} s before it, {seconds:g} s during it")
                before = world.measure(seconds)
                during, said = world.attack(row, seconds)
                time.sleep(SETTLE_SECONDS)
                after_mb = memory_mb(world.pids())
                if not row.attack:
                    noise = {kind: max(1.0, ratio(kind, before, during)) for kind in before.times}
                wrong = judged(row, noise, before, during, after_mb)
                if during.failed:
                    print(deployment.parts["client"].tail(12), file=sys.stderr)
                found += [f"{row.name}: {one}" for one in wrong]
                told.append(
                    {"attack": row.name, "rate": row.rate, "before": before.told(), "during": during.told(), "after_mb": after_mb}
                    | {"attacker": said, "wrong": wrong}
                )
                if not given.json:
                    print(line(row, before, during, after_mb, said), flush=True)
        finally:
            for one in world.honest:
                one.end()
    if given.json:
        print(json.dumps(told, indent=1))
    else:
        print("\n" + "\n".join(f"WRONG: {one}" for one in found))
    if found:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
