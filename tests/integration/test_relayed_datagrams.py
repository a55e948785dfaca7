"""Sealed datagrams over a relay's UDP port, between processes of their own: they go on whatever dies, and end when they must."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from examples.deployment import free_port
from tests.integration.relayed_datagrams import ECHO_NAME, PATIENCE, World, world
from tests.integration.watched import metric, wait_until

pytestmark = [pytest.mark.alone, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def office() -> Iterator[World]:
    """One relay, `relay-1`, of several processes."""
    with world() as made:
        made.deployment.relay_port = free_port()
        made.start_relay("relay-1", at(made), "--processes", "3", "--drain-seconds", "6")
        yield made


def at(made: World, host: str = "127.0.0.1") -> str:
    return f"{host}:{made.deployment.relay_port}"


def test_datagrams_of_a_program_go_sealed_over_the_relay_and_those_that_do_not_fit_as_frames(office: World) -> None:
    with office.program() as program:
        office.goes_sealed(program, "relay-1")
        wait_until(lambda: office.bindings("relay-1") == 2, "other addresses are bound", PATIENCE)
        for size in (0, 1, 1200):
            assert program.says(size) == "ok"
        sealed = office.sealed()
        assert program.says(60_000) == "ok"
        assert office.sealed() == sealed
    wait_until(lambda: office.bindings("relay-1") == 0, "the relay still forwards for a program that has ended", PATIENCE)


def test_a_relay_that_is_killed_is_bound_anew_when_it_is_back_and_the_client_goes_on(office: World) -> None:
    with office.program() as program:
        office.goes_sealed(program, "relay-1")
        office.deployment.parts["relay-1"].kill()
        program.says(seconds=0.5)
        office.start_relay("relay-1", at(office))
        office.goes_sealed(program, "relay-1")
        wait_until(lambda: office.bindings("relay-1") == 2, "other addresses are bound", PATIENCE)


def test_a_connector_that_is_killed_is_met_again_when_it_is_back(office: World) -> None:
    with office.program() as program:
        office.goes_sealed(program, "relay-1")
        office.deployment.parts["office-1"].kill()
        program.says(seconds=0.5)
        office.deployment.start_connector("office-1")
        office.goes_sealed(program, "relay-1")
        wait_until(lambda: office.bindings("relay-1") == 2, "the way of before is still there", PATIENCE)


def test_datagrams_go_on_while_the_controller_is_away(office: World) -> None:
    with office.program() as program:
        office.goes_sealed(program, "relay-1")
        office.deployment.parts["controller"].kill()
        office.goes_sealed(program, "relay-1")
        office.deployment.start_controller()
        office.goes_sealed(program, "relay-1")
    for part in ("relay-1", "office-1"):
        port = office.watched[part]
        wait_until(lambda port=port: metric(port, "klinket_ready") == 1, f"{part} is not ready again", PATIENCE)


def test_a_relay_that_hangs_holds_nothing_up_for_longer_than_that(office: World) -> None:
    pid = office.deployment.parts["relay-1"].pid
    with office.program() as program:
        office.goes_sealed(program, "relay-1")
        os.kill(pid, signal.SIGSTOP)
        try:
            assert program.says(seconds=0.5) != "ok"
        finally:
            os.kill(pid, signal.SIGCONT)
        office.goes_sealed(program, "relay-1")


def test_access_that_is_taken_away_ends_datagrams_over_the_relay_at_once_with_a_receipt(office: World) -> None:
    admin = office.deployment.admin
    admin("service", "create", "leaver")
    admin("service", "grant", "leaver", "Echo")
    key = office.deployment.add_key("leaver", "runner")
    with office.program() as bystander, office.program(key=key) as program:
        office.goes_sealed(program, "relay-1")
        before = max((int(cut["id"]) for cut in admin("cut", "list")), default=0)
        admin("service", "ungrant", "leaver", "Echo")

        def receipt() -> dict[str, Any]:
            cuts = [cut["id"] for cut in admin("cut", "list") if int(cut["id"]) > before]
            found = [one for cut in cuts for one in admin("cut", "show", str(cut))["receipts"]]
            return next((one for one in found if one["connector"] == "office-1" and one["state"] == "answered"), {})

        wait_until(lambda: bool(receipt()), "the connector has not answered the cut", 30)
        assert [flow["host"] for flow in receipt()["flows"]] == [ECHO_NAME]
        taken = office.sealed()
        assert program.says(seconds=2) != "ok", "an association lives on"
        assert office.sealed() == taken, "nothing of it is taken any more"
        assert bystander.says() == "ok"
    wait_until(lambda: office.bindings("relay-1") == 0, "the relay still forwards", PATIENCE)


def test_a_revoked_key_ends_the_way_at_the_relay_too(office: World) -> None:
    admin = office.deployment.admin
    key = office.deployment.add_key("ci", "lost")
    with office.program(key=key) as program:
        office.goes_sealed(program, "relay-1")
        admin("service", "key", "revoke", "ci", "lost")
        wait_until(lambda: office.bindings("relay-1") == 0, "the relay still forwards for a revoked key", 30)


def test_a_relay_that_is_stopped_lets_its_datagrams_go_on_and_new_ones_take_another(office: World) -> None:
    second = f"127.0.0.1:{free_port()}"
    with office.program() as program:
        office.goes_sealed(program, "relay-1")
        office.start_relay("relay-2", second)
        first = office.deployment.parts["relay-1"]
        os.kill(first.pid, signal.SIGTERM)
        wait_until(lambda: "stopping" in first.tail(), "the relay does not stop", PATIENCE)
        with office.program() as another:
            office.goes_sealed(another, "relay-2")
            while first.running():
                assert program.says() == "ok"
            assert first.process is not None
            assert first.process.returncode == 0
            office.goes_sealed(program, "relay-2")
            assert another.says() == "ok"
    office.deployment.parts["relay-2"].kill()
    office.start_relay("relay-1", at(office))


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_a_relay_that_is_met_by_ipv6_forwards_datagrams_by_ipv6(office: World) -> None:
    office.deployment.parts["relay-1"].kill()
    try:
        office.start_relay("relay-6", f"[::1]:{free_port()}")
        with office.program() as program:
            office.goes_sealed(program, "relay-6")
            wait_until(lambda: office.bindings("relay-6") == 2, "other addresses are bound", PATIENCE)
            assert program.says(1200) == "ok"
    finally:
        office.deployment.parts["relay-6"].kill()
        office.start_relay("relay-1", at(office))
