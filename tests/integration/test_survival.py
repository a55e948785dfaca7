"""Parts die at any moment (kill -9); the others recover by themselves and lose nothing that was acknowledged."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from examples.deployment import Deployment, DeploymentError
from tests.integration.conftest import Loopback
from tests.integration.watched import WatchedService, how_it_ends, wait_until

pytestmark = [pytest.mark.alone, pytest.mark.timeout(180)]

WATCHED_NAME = "watched.internal"


@pytest.fixture(scope="module")
def watched(loopback: Loopback) -> Iterator[WatchedService]:
    """A service whose ends of flows the tests see."""
    with WatchedService("127.77.0.41") as service:
        loopback.grant("ci", "Watched", service.address, "--alias", WATCHED_NAME)
        loopback.wait_until_known(WATCHED_NAME, service.port)
        yield service


def relay_pid(deployment: Deployment) -> int:
    """Return the pid of the relay beside the controller, which may be a child of an earlier controller."""
    return int((deployment.state / "relay" / "relay.pid").read_text())


def kill_controller(world: Loopback) -> None:
    """End the controller only: the relay is a process of its own and goes on."""
    controller = world.deployment.parts["controller"]
    relay = relay_pid(world.deployment)
    os.kill(controller.pid, signal.SIGKILL)
    assert controller.process is not None
    controller.process.wait(10)
    os.kill(relay, 0)


def start_controller(world: Loopback) -> None:
    world.deployment.start_controller()
    world.deployment.wait_for("office-1", lambda: world.deployment.connector_state("office-1") == "ALIVE")


def kill_relay(world: Loopback) -> None:
    os.kill(relay_pid(world.deployment), signal.SIGKILL)


class Traffic:
    """Programs and admins at work: new flows all the time, one that lives on, and changes of the inventory."""

    def __init__(self, world: Loopback) -> None:
        self._world = world
        self._over = threading.Event()
        self.echoes = 0
        self.acknowledged: list[str] = []
        self._number = 0
        self._threads = [threading.Thread(target=self._repeat, args=(act,)) for act in (self._flow, self._flow, self._write)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        wait_until(lambda: self.echoes > 5 and len(self.acknowledged) > 1, "no traffic before anything was killed", 30)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def goes_on(self) -> None:
        """Wait until flows work and changes are taken after this moment."""
        echoes, written = self.echoes, len(self.acknowledged)
        wait_until(lambda: self.echoes > echoes + 5 and len(self.acknowledged) > written, "the traffic does not come back", 60)

    def _repeat(self, act: Callable[[], None]) -> None:
        while not self._over.is_set():
            try:
                act()
            except (OSError, DeploymentError):
                self._over.wait(0.05)  # refused, reset or no controller: programs try again

    def _flow(self) -> None:
        with self._world.dial(timeout=5.0) as connection:
            for _ in range(3):
                self._world.echo(connection, os.urandom(4096))
        self.echoes += 1

    def _write(self) -> None:
        self._number += 1
        name = f"written-{time.monotonic_ns()}"
        self._world.deployment.admin("service", "create", name)
        self.acknowledged.append(name)


KILLS: dict[str, tuple[Callable[[Loopback], None], Callable[[Loopback], None]]] = {
    "controller": (kill_controller, start_controller),
    "relay": (kill_relay, lambda _: None),  # the controller starts it again
    "connector": (lambda w: w.deployment.parts["office-1"].kill(), lambda w: w.deployment.parts["office-1"].start()),
    "client": (lambda w: w.client.kill(), lambda w: w.client.start()),
}


@pytest.mark.parametrize("part", KILLS)
def test_each_part_may_die_during_traffic_and_nothing_acknowledged_is_lost(loopback: Loopback, part: str) -> None:
    kill, start_again = KILLS[part]
    with Traffic(loopback) as traffic:
        kill(loopback)
        start_again(loopback)
        traffic.goes_on()
    names = {row["name"] for row in loopback.deployment.admin("service", "list")}
    assert set(traffic.acknowledged) <= names
    with closing(sqlite3.connect(loopback.deployment.state / "klinket.db", timeout=10)) as database:
        assert database.execute("pragma integrity_check").fetchall() == [("ok",)]


def test_a_live_flow_survives_the_controllers_death_and_its_restart(loopback: Loopback) -> None:
    with loopback.dial() as flow:
        loopback.echo(flow)
        kill_controller(loopback)
        loopback.echo(flow, b"while the controller is away")
        with loopback.dial() as another:
            loopback.echo(another, b"a new flow on the grant that is still valid")
        start_controller(loopback)
        loopback.echo(flow, b"after the restart")
    loopback.wait_until_reachable()


@pytest.mark.parametrize("part", ["relay", "connector", "client"])
def test_both_ends_of_a_live_flow_are_reset_when_a_part_between_them_dies(
    loopback: Loopback, watched: WatchedService, part: str
) -> None:
    kill, start_again = KILLS[part]
    tag = f"{part:<8}"[:8].encode()
    with loopback.dial(WATCHED_NAME, watched.port) as flow:
        loopback.echo(flow, tag)
        kill(loopback)
        if part != "client":  # its kernel ends the program's connection as it likes
            assert how_it_ends(flow).how == "reset"
        # Never a clean end: the last bytes may be missing. A connector's own kernel says FIN or RST when it is killed.
        ending = watched.wait_for_ending(tag)
        if part != "connector":
            assert ending.how == "reset"
    start_again(loopback)
    loopback.wait_until_reachable()


def events_by_flow(deployment: Deployment, port: int) -> dict[str, list[str]]:
    """Return the kinds of events stored for each flow to a port, in their order."""
    with closing(sqlite3.connect(deployment.state / "klinket.db", timeout=10)) as database:
        rows = database.execute("select flow, kind, event from flow_events order by id").fetchall()
    found: dict[str, list[str]] = {}
    for flow, kind, event in rows:
        if json.loads(event)["connection"]["resource_port"] == port:
            found.setdefault(flow, []).append(kind)
    return found


def new_flows(world: Loopback, service: WatchedService, count: int) -> None:
    for _ in range(count):
        with world.dial(WATCHED_NAME, service.port) as flow:
            world.echo(flow)


@pytest.mark.parametrize("connector_dies_too", [False, True], ids=["controller", "controller and connector"])
def test_flow_events_of_the_time_without_a_controller_arrive_once_each(
    loopback: Loopback, watched: WatchedService, connector_dies_too: bool
) -> None:
    deployment = loopback.deployment
    with WatchedService(watched.address) as service:  # on a port of its own: only these flows count

        def stored() -> list[list[str]]:
            return list(events_by_flow(deployment, service.port).values())

        new_flows(loopback, service, 2)
        wait_until(lambda: stored() == [["established", "closed"]] * 2, f"events before the outage: {stored()}")
        kill_controller(loopback)
        new_flows(loopback, service, 5)
        assert len(stored()) == 2, "nobody could store them yet"
        if connector_dies_too:
            spool = deployment.directory / "office-1"
            wait_until(lambda: on_disk(spool, service.port) == 5, f"{on_disk(spool, service.port)} of 5 flows are on disk")
            deployment.parts["office-1"].kill()
            deployment.parts["office-1"].start()
        start_controller(loopback)
        wait_until(lambda: len(stored()) == 7 and len(stored()[-1]) == 2, f"events are missing: {stored()}", 30)
        assert stored() == [["established", "closed"]] * 7
    loopback.wait_until_reachable()


def on_disk(folder: Path, port: int) -> int:
    """Return how many flows to a port have ended according to the connector's files."""
    batches = [json.loads(path.read_bytes()) for path in folder.rglob("[0-9]*.json")]
    return sum(event["event"] == "closed" and event["port"] == port for batch in batches for event in batch)
