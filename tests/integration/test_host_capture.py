"""A captured machine: what was granted goes through klinket, by address, name and range; all else goes as before."""

from __future__ import annotations

import ipaddress
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from klinket.client.capture import synthetic
from tests.integration.captured_machine import (
    IN_RANGE,
    NAME,
    RESOLVER,
    RESOURCE,
    RESOURCE6,
    Capture,
    Machine,
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.alone,
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root for namespaces"),
]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("machine")) as made:
        yield made


@pytest.fixture(scope="module")
def capture(machine: Machine) -> Iterator[Capture]:
    made = machine.start_capture()
    yield made
    made.close()


@pytest.mark.parametrize("host", [RESOURCE, IN_RANGE, RESOURCE6, NAME])
def test_what_was_granted_is_reached_by_address_range_and_name(machine: Machine, capture: Capture, host: str) -> None:
    assert machine.connect(host) == "hello"
    assert machine.datagram(host) == "echo hello"
    assert [line for line in machine.seen_outside() if not line.startswith("dns")] == []


def test_what_was_not_granted_is_reached_as_before(machine: Machine, capture: Capture) -> None:
    assert machine.connect("192.0.2.80") == "look-alike"
    assert machine.connect("public.example") == "look-alike"
    assert machine.connect("public") == "look-alike", "search domains are those of the machine"
    assert machine.datagram("192.0.2.80") == "look-alike"
    assert machine.connect("192.0.2.1", 1) == "ECONNREFUSED"


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [("refused", "ECONNREFUSED"), ("not-granted", "ECONNREFUSED"), ("no-connector", "EHOSTUNREACH"), ("timed-out", "ETIMEDOUT")],
)
@pytest.mark.parametrize("host", ["10.8.7.7", f"{RESOURCE6[:-1]}7"])
def test_a_connect_ends_as_the_resource_says(machine: Machine, capture: Capture, host: str, failure: str, outcome: str) -> None:
    capture.tell(grant=[host])
    capture.tell(refuse=[host, failure])
    assert machine.connect(host, seconds=1.5) == outcome


def dig(machine: Machine, *arguments: str) -> list[str]:
    return machine.inside.run("dig", "+tries=1", "+timeout=2", *arguments, check=False).splitlines()


def test_names_of_resources_are_answered_here_and_asked_of_nobody(machine: Machine, capture: Capture) -> None:
    machine.seen_outside()
    for server in ((), ("@100.95.0.251",), ("@100.95.0.254",), (f"@{RESOLVER}",)):
        for transport in ((), ("+tcp",)):
            [address] = dig(machine, *server, *transport, "+short", NAME, "A")
            assert ipaddress.ip_address(address) in synthetic.RANGE
            [address6] = dig(machine, *server, *transport, "+short", NAME, "AAAA")
            assert address6.startswith("fd6b:")
            assert any("NOERROR" in line for line in dig(machine, *server, *transport, NAME, "MX"))
            assert dig(machine, *server, *transport, "+short", NAME, "MX") == []
    assert dig(machine, "+short", "-x", address) == [f"{NAME}."]
    assert dig(machine, "+short", "-x", address6) == [f"{NAME}."]
    assert machine.seen_outside() == []


def test_other_names_are_asked_of_the_machines_resolver(machine: Machine, capture: Capture) -> None:
    for server in ((), ("@100.95.0.252",)):
        for transport in ((), ("+tcp",)):
            assert dig(machine, *server, *transport, "+short", "public.example") == ["192.0.2.80"]
        assert any("NXDOMAIN" in line for line in dig(machine, *server, "other.example"))
        # Cut short over UDP, the program asks again over TCP by itself.
        assert sum("xxx" in line for line in dig(machine, *server, "+short", "long.example", "TXT")) == 8
    assert "dns public.example" in machine.seen_outside()


def test_a_resolver_that_does_not_answer_fails_and_does_not_hang(machine: Machine, capture: Capture) -> None:
    before = machine.resolv_conf.read_text()
    machine.resolv_conf.write_text("nameserver 192.0.2.99\n")
    try:
        time.sleep(1.5)  # it is followed
        assert any("SERVFAIL" in line for line in dig(machine, "+timeout=9", "public.example"))
        [address] = dig(machine, "+short", NAME)
        assert ipaddress.ip_address(address) in synthetic.RANGE, "the new resolver is captured as well"
    finally:
        machine.resolv_conf.write_text(before)
        time.sleep(1.5)


@pytest.mark.parametrize("resolver", ["127.0.0.53", "::1"])
def test_a_resolver_on_the_machine_itself_is_captured_in_front(
    machine: Machine, capture: Capture, resolver: str, tmp_path: Path
) -> None:
    before = machine.resolv_conf.read_text()
    serve = ["-m", "tests.integration.outside", str(tmp_path / "local.log"), resolver]
    local = machine.inside.start(sys.executable, *serve, log=tmp_path / "local.err")
    assert local.stdout is not None
    assert local.stdout.readline() == "ready\n"
    machine.resolv_conf.write_text(f"nameserver {resolver}\n")
    try:
        time.sleep(1.5)
        for transport in ((), ("+tcp",)):
            [address] = dig(machine, *transport, "+short", NAME)
            assert ipaddress.ip_address(address) in synthetic.RANGE
            assert dig(machine, *transport, "+short", "public.example") == ["192.0.2.80"]
        assert set((tmp_path / "local.log").read_text().splitlines()) == {"dns public.example"}
    finally:
        machine.resolv_conf.write_text(before)
        local.kill()
        local.communicate()
        time.sleep(1.5)


def test_a_ping_to_a_resource_is_refused_and_never_leaves(machine: Machine, capture: Capture) -> None:
    done = machine.inside.run("ping", "-c1", "-W1", RESOURCE, check=False)
    assert "filtered" in done
    assert "1 received" not in done
