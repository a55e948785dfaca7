"""Two connectors and two relays: each may die, hang or be drained under new connections, and clients go on by the other."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from examples.deployment import KLINKET, Deployment, clean_environment, free_port
from tests.integration.conftest import Loopback, build
from tests.integration.steady_programs import RATE, Steady, connections_to, dial, echo, share, waits

pytestmark = [pytest.mark.alone, pytest.mark.timeout(400)]

#: Resources of the network: flows spread over connectors by resource.
HOSTS = [f"echo-{number}.internal" for number in range(8)]
#: Connections that live on while parts die.
LONG_LIVED = 24
#: Seconds before a part dies, and after it, in which programs are looked at.
BEFORE_SECONDS, AFTER_SECONDS = 2.0, 4.0
#: Where connects take longer than this while nothing is harmed (median, seconds) the rate is halved, down to the second number.
CALM_SECONDS, LEAST_RATE = 0.1, 25.0
#: Seconds until the first good connection, of 99 in 100 programs.
FAILOVER_SECONDS = 2.0


@dataclass
class World:
    """`office-1` and `office-2`; the relay beside the controller, and `relay-2`."""

    loopback: Loopback
    relay_2_port: int
    notes: list[str] = field(default_factory=list)

    @property
    def deployment(self) -> Deployment:
        return self.loopback.deployment

    def relay_pid(self, name: str) -> int:
        if name == "relay-2":
            return self.deployment.parts["relay-2"].pid
        return int((self.deployment.state / "relay" / "relay.pid").read_text())

    def relay_port(self, name: str) -> int:
        return self.relay_2_port if name == "relay-2" else self.deployment.relay_port

    def lost_by(self, since: int) -> list[str]:
        """Return the connectors of the flows that the client says ended early, after so many bytes of its log."""
        text = self.loopback.client.log.read_bytes()[since:].decode(errors="replace")
        return re.findall(r"a flow to .* by connector (\S+) ended early", text)

    def flows_at(self, connector: str) -> int:
        """Return how many flows a connector carries to the echo services."""
        return connections_to(self.deployment.parts[connector].pid, self.loopback.echo_port)

    async def until_all_serve(self) -> None:
        """Wait until both connectors are alive, as the controller knows, and the client uses both."""
        for name in ("office-1", "office-2"):
            await asyncio.to_thread(
                self.deployment.wait_for, name, lambda name=name: self.deployment.connector_state(name) == "ALIVE"
            )
        async with asyncio.timeout(150):
            while True:
                flows = await LongLived(self).open(len(HOSTS))
                spread = [self.flows_at(name) for name in ("office-1", "office-2")]
                await flows.lost()
                if all(spread):
                    break
                await asyncio.sleep(1)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    directory = Path(tempfile.mkdtemp(prefix="klinket-failover-"))
    try:
        with Deployment(directory, network="office-net") as deployment:
            loopback = build(deployment)
            deployment.add_connector("office", "office-2")
            for host in HOSTS:
                address = f"127.77.1.{HOSTS.index(host) + 1}"
                loopback.grant("ci", host, address, "--alias", host)
                command = [sys.executable, "-m", "bench.load", address, str(loopback.echo_port)]
                deployment.start(host, command, PYTHONPATH=str(Path(__file__).parents[2]))
            deployment.start_connector("office-2")
            made = World(loopback, start_relay(deployment))
            for host in HOSTS:
                loopback.wait_until_known(host, loopback.echo_port)
            yield made
            print(*made.notes, sep="\n")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def start_relay(deployment: Deployment) -> int:
    port = free_port()
    deployment.start_relay("relay-2", f"127.0.0.1:{port}")
    return port


class LongLived:
    """Connections that are opened before a part dies; those that still echo after it have survived."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._open: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def open(self, count: int = LONG_LIVED) -> LongLived:
        for number in range(count):
            ends = await dial(self._world.loopback.socks, HOSTS[number % len(HOSTS)], self._world.loopback.echo_port)
            await echo(*ends)
            self._open.append(ends)
        return self

    async def lost(self) -> int:
        count = 0
        for ends in self._open:
            try:
                async with asyncio.timeout(5):
                    await echo(*ends)
            except (OSError, asyncio.IncompleteReadError):
                count += 1
            ends[1].close()
        return count


Restore = Callable[[], None]


def kill_connector(world: World, name: str) -> Restore:
    part = world.deployment.parts[name]
    part.kill()
    return part.start


def stop_connector(world: World, name: str) -> Restore:
    """It hangs: nothing is reset, nobody answers."""
    pid = world.deployment.parts[name].pid
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


def kill_relay(world: World, name: str) -> Restore:
    os.kill(world.relay_pid(name), signal.SIGKILL)
    if name != "relay-2":
        return lambda: None  # the controller starts it again
    part = world.deployment.parts[name]
    assert part.process is not None
    part.process.wait(10)
    return part.start


def stop_relay(world: World, name: str) -> Restore:
    pid = world.relay_pid(name)
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


async def measure(world: World, harm: Callable[[], Restore], what: str) -> tuple[int, list[str]]:
    """Harm a part under new connections; returns how many long-lived ones were lost, and the connectors the client names."""
    await world.until_all_serve()
    long_lived = await LongLived(world).open()
    logged = world.loopback.client.log.stat().st_size
    rate = RATE
    while True:
        async with Steady(world.loopback.socks, HOSTS, world.loopback.echo_port, rate) as steady:
            await asyncio.sleep(BEFORE_SECONDS)
            if share(waits([one for one in steady.programs if one.good is not None]), 50) > CALM_SECONDS and rate > LEAST_RATE:
                rate /= 2  # the machine has other work: a queue would be measured, and no failover
                continue
            restore = await asyncio.to_thread(harm)
            harmed = time.monotonic()  # what was open before is the dead part's to lose
            await asyncio.sleep(AFTER_SECONDS)
            lost = await long_lived.lost()
            break
    named = world.lost_by(logged)
    restore()
    calm, after = waits(steady.since(0, harmed)), waits(steady.since(harmed, AFTER_SECONDS))
    world.notes.append(
        f"{what}: {len(after) / AFTER_SECONDS:.0f} connects/s; p50 {share(calm, 50) * 1000:.0f} ms before, then "
        f"p50 {share(after, 50) * 1000:.0f}, p99 {share(after, 99) * 1000:.0f}, most {after[-1] * 1000:.0f} ms; "
        f"{lost} of {LONG_LIVED} long-lived lost"
    )
    print(world.notes[-1])
    assert len(after) > 2 * LEAST_RATE, "too few connections to say anything"
    assert share(after, 99) < FAILOVER_SECONDS, world.notes[-1]
    return lost, named


@pytest.mark.parametrize("how", [kill_connector, stop_connector])
@pytest.mark.parametrize("name", ["office-1", "office-2"])
async def test_new_flows_go_to_the_other_connector(world: World, name: str, how: Callable[[World, str], Restore]) -> None:
    there: list[int] = []

    def harm() -> Restore:
        there.append(world.flows_at(name))
        return how(world, name)

    lost, named = await measure(world, harm, f"{how.__name__} {name}")
    assert lost <= there[0]
    assert 0 < lost < LONG_LIVED, "those of the other connector live on"
    assert set(named) <= {name}, "only flows of the part that died are lost"


@pytest.mark.parametrize("how", [kill_relay, stop_relay])
@pytest.mark.parametrize("name", ["beside", "relay-2"])
async def test_new_flows_go_through_the_other_relay(world: World, name: str, how: Callable[[World, str], Restore]) -> None:
    there: list[int] = []

    def harm() -> Restore:
        there.append(connections_to(world.loopback.client.pid, world.relay_port(name)))
        return how(world, name)

    lost, _ = await measure(world, harm, f"{how.__name__} {name}")
    assert lost <= there[0], "more were lost than went through it"


@pytest.mark.parametrize("name", ["office-1", "office-2"])
async def test_an_upgrade_by_drain_fails_no_connect(world: World, name: str) -> None:
    await world.until_all_serve()
    part = world.deployment.parts[name]
    drain = [*KLINKET, "connector", "drain", "--state", str(world.deployment.directory / name)]
    async with Steady(world.loopback.socks, HOSTS, world.loopback.echo_port) as steady:
        await asyncio.sleep(BEFORE_SECONDS)
        done = await asyncio.to_thread(subprocess.run, drain, env=clean_environment(), capture_output=True, text=True, timeout=60)
        assert part.process is not None
        part.process.wait(10)
        await asyncio.to_thread(world.deployment.start_connector, name)
        await asyncio.sleep(AFTER_SECONDS)
    failures = [text for one in steady.programs for text in one.failures]
    world.notes.append(f"drain {name}: {len(steady.programs)} connects, {len(failures)} failures")
    assert failures == []
    assert all(one.good is not None for one in steady.programs)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no flow was lost" in done.stdout
