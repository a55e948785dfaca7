"""Parts die at any moment (kill -9); the others recover by themselves and lose nothing that was acknowledged."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from examples.deployment import Deployment
from tests.integration.conftest import Loopback

pytestmark = [pytest.mark.alone, pytest.mark.timeout(180)]


def relay_pid(deployment: Deployment) -> int:
    """Return the pid of the relay beside the controller, which may be a child of an earlier controller."""
    return int((deployment.state / "relay" / "relay.pid").read_text())


def test_a_live_flow_survives_the_controllers_death_and_its_restart(loopback: Loopback) -> None:
    controller = loopback.deployment.parts["controller"]
    with loopback.dial() as flow:
        loopback.echo(flow)
        relay = relay_pid(loopback.deployment)
        os.kill(controller.pid, signal.SIGKILL)
        assert controller.process is not None
        controller.process.wait()
        loopback.echo(flow, b"while the controller is away")
        # The relay is a child of its own: traffic goes on while only the controller is down.
        os.kill(relay, 0)
        with loopback.dial() as another:
            loopback.echo(another, b"a new flow on the grant that is still valid")
        loopback.deployment.start_controller()
        loopback.deployment.wait_for("office-1", lambda: loopback.deployment.connector_state("office-1") == "ALIVE")
        loopback.echo(flow, b"after the restart")
    loopback.wait_until_reachable()


def test_no_acknowledged_write_is_missing_after_kill_9_of_the_controller(loopback: Loopback) -> None:
    deployment = loopback.deployment
    acknowledged: list[str] = []
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            name = f"written-{number}"
            try:
                deployment.admin("service", "create", name)
            except Exception:
                return
            acknowledged.append(name)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    while len(acknowledged) < 5:
        time.sleep(0.02)
    deployment.parts["controller"].kill()
    stop.set()
    writer.join()
    deployment.start_controller()
    names = {row["name"] for row in deployment.admin("service", "list")}
    assert set(acknowledged) <= names
    loopback.wait_until_reachable()


def test_new_flows_work_again_after_the_relay_was_killed(loopback: Loopback) -> None:
    flow = loopback.dial()
    loopback.echo(flow)
    os.kill(relay_pid(loopback.deployment), signal.SIGKILL)
    with pytest.raises(OSError), flow:
        for _ in range(100):
            loopback.echo(flow)
            time.sleep(0.05)
    loopback.wait_until_reachable()


def test_new_flows_work_again_after_the_connector_was_killed_and_started(loopback: Loopback) -> None:
    flow = loopback.dial()
    loopback.echo(flow)
    loopback.deployment.parts["office-1"].kill()
    with pytest.raises(OSError), flow:
        for _ in range(100):
            loopback.echo(flow)
            time.sleep(0.05)
    loopback.deployment.start_connector("office-1")
    loopback.wait_until_reachable()


def test_the_connectors_side_of_a_flow_ends_when_the_client_is_killed(loopback: Loopback) -> None:
    flow = loopback.dial()
    loopback.echo(flow)
    loopback.client.kill()
    with pytest.raises(OSError):
        loopback.echo(flow)
    loopback.client.start()
    loopback.wait_until_reachable()


def test_the_connector_keeps_flow_events_while_the_controller_is_away(loopback: Loopback) -> None:
    deployment = loopback.deployment
    deployment.parts["controller"].stop()
    deployment.start_controller()
    loopback.wait_until_reachable()
    assert deployment.connector_state("office-1") == "ALIVE"
