"""A captured machine: what was granted goes through klinket, by address, name and range; all else goes as before."""

from __future__ import annotations

import ipaddress
import os
import shutil
import sys
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
from tests.integration.watched import wait_until

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
    ("host", "failure", "outcome"),
    [
        ("10.8.7.7", "refused", "ECONNREFUSED"),
        ("10.8.7.7", "not-granted", "ECONNREFUSED"),  # whatever ICMP says over IPv4, connect() says EHOSTUNREACH of it
        ("10.8.7.7", "no-connector", "EHOSTUNREACH"),
        ("10.8.7.7", "timed-out", "ETIMEDOUT"),
        (f"{RESOURCE6[:-1]}7", "refused", "ECONNREFUSED"),
        (f"{RESOURCE6[:-1]}7", "not-granted", "EACCES"),
        (f"{RESOURCE6[:-1]}7", "no-connector", "EHOSTUNREACH"),
        (f"{RESOURCE6[:-1]}7", "timed-out", "ETIMEDOUT"),
    ],
)
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


def fails(machine: Machine) -> bool:
    return any("SERVFAIL" in line for line in dig(machine, "+timeout=9", "public.example"))


def until_as_before(machine: Machine) -> None:
    def is_captured() -> bool:
        return any(line[0].isdigit() for line in dig(machine, "+short", NAME))  # what is not captured knows no such name

    wait_until(is_captured, "the former resolver is not followed", 60)
    wait_until(lambda: dig(machine, "+short", "public.example") == ["192.0.2.80"], "the former resolver does not answer", 60)


def test_a_resolver_that_does_not_answer_fails_and_does_not_hang(machine: Machine, capture: Capture) -> None:
    before = machine.resolv_conf.read_text()
    machine.resolv_conf.write_text("nameserver 192.0.2.99\n")
    try:
        wait_until(lambda: fails(machine), "the new resolver is not followed", 60)
        [address] = dig(machine, "+short", NAME)
        assert ipaddress.ip_address(address) in synthetic.RANGE, "the new resolver is captured as well"
    finally:
        machine.resolv_conf.write_text(before)
        until_as_before(machine)


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
        # Until it is captured it is asked itself, and knows no such name.
        wait_until(lambda: any(line[0].isdigit() for line in dig(machine, "+short", NAME)), "it is not followed", 60)
        before_that = len((tmp_path / "local.log").read_text().splitlines())
        for transport in ((), ("+tcp",)):
            [address] = dig(machine, *transport, "+short", NAME)
            assert ipaddress.ip_address(address) in synthetic.RANGE
            assert dig(machine, *transport, "+short", "public.example") == ["192.0.2.80"]
        assert set((tmp_path / "local.log").read_text().splitlines()[before_that:]) == {"dns public.example"}
    finally:
        machine.resolv_conf.write_text(before)
        local.kill()
        local.communicate()
        until_as_before(machine)


def ping(machine: Machine, host: str, *options: str) -> str:
    return machine.inside.run("ping", "-c2", "-i0.2", "-W2", *options, host, check=False)


@pytest.mark.parametrize("host", [RESOURCE, IN_RANGE, RESOURCE6, NAME])
def test_a_ping_goes_to_what_was_granted(machine: Machine, capture: Capture, host: str) -> None:
    machine.seen_outside()
    assert "2 received, 0% packet loss" in ping(machine, host)
    assert [line for line in machine.seen_outside() if not line.startswith("dns")] == []


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_a_ping_of_a_name_goes_over_both_families(machine: Machine, capture: Capture, family: str) -> None:
    for size in ("0", "1400", "60000"):
        assert "2 received, 0% packet loss" in ping(machine, NAME, family, "-s", size)


def test_a_ping_of_a_program_without_privileges_is_captured_as_well(machine: Machine, capture: Capture, tmp_path: Path) -> None:
    """With a group range, ping uses the kernel's ping sockets instead of raw ones."""
    machine.inside.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 100")
    program = shutil.which("ping")
    assert program is not None
    copied = shutil.copyfile(program, tmp_path / "ping")  # without the file's own capabilities
    copied.chmod(0o755)
    try:
        plain = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
        for host in (RESOURCE, RESOURCE6):
            told = machine.inside.run(*plain, str(copied), "-c2", "-i0.2", "-W2", host, check=False)
            assert "2 received, 0% packet loss" in told
        for host in ("10.8.7.9", f"{RESOURCE6[:-1]}9"):
            capture.tell(grant=[host])
            capture.tell(refuse=[host, "unreachable"])
            told = machine.inside.run(*plain, str(copied), "-n", "-c1", "-W2", host, check=False)
            assert " unreachable" in told.lower(), told
    finally:
        machine.inside.run("sysctl", "-qw", "net.ipv4.ping_group_range=1 0")


@pytest.mark.parametrize(
    ("failure", "words", "words6"),
    [
        ("not-granted", "Packet filtered", "Administratively prohibited"),
        ("unreachable", "Destination Host Unreachable", "Address unreachable"),
        ("no-connector", "Destination Host Unreachable", "Address unreachable"),
        ("icmp-unavailable", "Destination Protocol Unreachable", "Address unreachable"),
        ("timed-out", "100% packet loss", "100% packet loss"),
    ],
)
def test_a_ping_ends_as_the_resource_says(machine: Machine, capture: Capture, failure: str, words: str, words6: str) -> None:
    for host, wanted in (("10.8.7.8", words), (f"{RESOURCE6[:-1]}8", words6)):
        capture.tell(grant=[host])
        capture.tell(refuse=[host, failure])
        told = ping(machine, host)
        assert wanted in told, told
        assert " 0 received" in told


def test_a_ping_of_what_was_not_granted_goes_as_before(machine: Machine, capture: Capture) -> None:
    assert "2 received" in ping(machine, "192.0.2.80")
    assert "2 received" in ping(machine, "127.0.0.1")
