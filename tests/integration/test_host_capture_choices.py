"""A captured machine with settings of its own, with changes under way, with company; and as a gateway."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from klinket.client.capture import synthetic
from tests.integration.captured_machine import (
    CONNECT,
    DATAGRAM,
    IN_RANGE,
    NAME,
    RESOLVER,
    RESOURCE,
    RESOURCE6,
    Machine,
    Namespaces,
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


def dig(machine: Machine, *arguments: str) -> list[str]:
    return machine.inside.run("dig", "+tries=1", "+timeout=2", *arguments, check=False).splitlines()


def test_a_name_of_klinkets_own_is_never_captured(machine: Machine) -> None:
    again = machine.start_capture(granted=["*.example"], own_hosts=["public.example"])
    assert machine.connect("public.example") == "look-alike"
    [address] = dig(machine, "+short", "controller.example")
    assert ipaddress.ip_address(address) in synthetic.RANGE
    again.close()


def test_a_connection_that_began_before_a_grant_goes_on(machine: Machine, tmp_path: Path) -> None:
    capture = machine.start_capture(granted=[])
    script = (
        "import socket,sys\ns=socket.create_connection((sys.argv[1],81),5)\n"
        "for line in sys.stdin:\n s.sendall(line.encode())\n print(s.recv(100).decode().strip(),flush=True)"
    )
    program = machine.inside.start(sys.executable, "-c", script, IN_RANGE, log=tmp_path / "program")
    assert program.stdin is not None
    assert program.stdout is not None

    def exchange(text: str) -> str:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write(f"{text}\n")
        program.stdin.flush()
        return program.stdout.readline().strip()

    assert exchange("one") == "one"
    machine.seen_outside()
    capture.tell(grant=["10.8.0.0/16"])
    assert exchange("two") == "two", "what began before goes on"
    assert machine.connect(IN_RANGE, 81) == "hello"
    assert machine.seen_outside() == [], "what begins now is captured"
    capture.tell(grant=[IN_RANGE, "10.7.0.0/16"])
    assert exchange("three") == "three"
    capture.close()
    assert exchange("four") == "four"
    program.kill()
    program.wait()


def test_a_captured_connection_outlives_changes_of_what_is_granted(machine: Machine, tmp_path: Path) -> None:
    capture = machine.start_capture(granted=[IN_RANGE])
    script = (
        "import socket,sys\ns=socket.create_connection((sys.argv[1],81),5)\n"
        "for line in sys.stdin:\n s.sendall(line.encode())\n print(s.recv(100).decode().strip(),flush=True)"
    )
    program = machine.inside.start(sys.executable, "-c", script, IN_RANGE, log=tmp_path / "program")
    for grants in (["10.8.0.0/16"], ["10.8.3.0/24", "10.0.0.0/8"], ["10.7.0.1"]):
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write("more\n")
        program.stdin.flush()
        assert program.stdout.readline() == "more\n"
        capture.tell(only=grants)
    program.kill()
    program.wait()
    machine.seen_outside()
    assert machine.connect(IN_RANGE, 81) == "ECONNREFUSED", "what was granted once is never dialled past klinket"
    assert machine.seen_outside() == []
    capture.close()


def test_a_fast_resource_accepts_at_once_and_resets_when_refused(machine: Machine) -> None:
    capture = machine.start_capture(granted=[RESOURCE, NAME, IN_RANGE], fast=[RESOURCE, NAME])
    for host in (RESOURCE, NAME, IN_RANGE):
        assert machine.connect(host) == "hello"
    for host in (RESOURCE, NAME, IN_RANGE):
        capture.tell(refuse=[host, "timed-out"])
    assert [machine.connect(host, seconds=2) for host in (RESOURCE, NAME)] == ["ECONNRESET"] * 2
    assert machine.connect(IN_RANGE, seconds=1) == "ETIMEDOUT"
    capture.close()


def test_only_the_users_it_is_told_are_captured(machine: Machine) -> None:
    capture = machine.start_capture(users=[65534])
    assert machine.connect(RESOURCE) == "look-alike"
    other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c", CONNECT]
    assert machine.inside.run(*other, RESOURCE, "80", "5") == "hello"
    capture.close()


def test_a_resolver_that_is_a_resource_is_asked_through_klinket(machine: Machine) -> None:
    before = machine.resolv_conf.read_text()
    machine.resolv_conf.write_text("nameserver 10.8.53.53\n")  # nobody outside has this address
    capture = machine.start_capture(granted=["10.8.0.0/16", NAME], backend=[RESOLVER, 53])
    try:
        assert dig(machine, "+tcp", "+short", "public.example") == ["192.0.2.80"]
        [address] = dig(machine, "+tcp", "+short", NAME)
        assert ipaddress.ip_address(address) in synthetic.RANGE
    finally:
        machine.resolv_conf.write_text(before)
        capture.close()


def test_rules_that_somebody_takes_away_are_put_back(machine: Machine) -> None:
    capture = machine.start_capture()
    machine.inside.run("nft", "flush", "ruleset")
    machine.inside.run("ip", "rule", "del", "pref", "27")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and (
        "inet klinket" not in machine.inside.run("nft", "list", "tables") or "27:" not in machine.inside.run("ip", "rule")
    ):
        time.sleep(0.2)
    assert machine.connect(RESOURCE) == "hello"
    assert "put back" in capture.log.read_text()
    capture.close()


def test_a_machine_without_ipv6_is_captured_over_ipv4(tmp_path: Path) -> None:
    with Machine(tmp_path) as machine:
        machine.inside.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
        before = machine.snapshot()
        capture = machine.start_capture()
        for host in (RESOURCE, NAME):
            assert machine.connect(host) == "hello"
        assert dig(machine, "+short", NAME, "AAAA") == []
        assert machine.connect(RESOURCE6, seconds=1) in ("ENETUNREACH", "EADDRNOTAVAIL", "EACCES")
        capture.close()
        assert machine.snapshot() == before


def test_three_capabilities_are_enough(machine: Machine, tmp_path: Path) -> None:
    limited = ["setpriv", "--bounding-set=-all,+net_admin,+net_raw,+net_bind_service", "--inh-caps=-all", "--no-new-privs"]
    capture = machine.start_capture(prefix=limited)
    for host in (RESOURCE, NAME, RESOURCE6):
        assert machine.connect(host) == "hello"
        assert machine.datagram(host) == "echo hello"
    capture.close()
    assert "klinket" not in machine.inside.run("nft", "list", "tables")


def test_two_klinkets_on_one_machine_refuse_each_other(machine: Machine) -> None:
    first = machine.start_capture()
    before = machine.snapshot()
    second = machine.start_capture(answer="impossible")
    assert second.process.wait(10) == 0
    assert machine.snapshot() == before
    assert machine.connect(RESOURCE) == "hello"
    first.close()


def test_two_thousand_connections_at_a_time_lose_none(machine: Machine) -> None:
    capture = machine.start_capture()
    script = """
import asyncio, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
async def one(n):
    r, w = await asyncio.open_connection(sys.argv[1], 80)
    w.write(b"%d" % n); assert await r.read(10) == b"%d" % n
    return w
async def main():
    held = await asyncio.gather(*(one(n) for n in range(2000)))
    for w in held: w.close()
    print(len(held))
asyncio.run(main())
"""
    assert machine.inside.run("prlimit", "--nofile=8192", sys.executable, "-c", script, RESOURCE) == "2000"
    capture.close()


def test_klinkets_own_connections_are_never_captured(machine: Machine) -> None:
    # The resource's range holds the server that klinket itself dials: it would dial itself for ever.
    capture = machine.start_capture(granted=["10.8.0.0/16"], backend=[IN_RANGE, 81])
    machine.seen_outside()
    assert machine.connect("10.8.9.9") == "hello"
    assert machine.seen_outside() == [f"tcp {IN_RANGE}"]
    capture.close()


def test_a_gateway_captures_for_the_sources_it_is_told_and_for_nobody_else(machine: Machine) -> None:
    capture = machine.start_capture(sources=["172.16.1.0/24"])
    served, other = Namespaces(), Namespaces()
    try:
        for number, guest in ((1, served), (2, other)):
            name = f"guest{number}"
            machine.inside.run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(guest.keeper.pid))
            machine.inside.run("ip", "addr", "add", f"172.16.{number}.1/24", "dev", name)
            machine.inside.run("ip", "link", "set", name, "up")
            guest.run("ip", "addr", "add", f"172.16.{number}.2/24", "dev", "eth0")
            guest.run("ip", "link", "set", "eth0", "up")
            guest.run("ip", "route", "add", "default", "via", f"172.16.{number}.1")
        [address] = served.run("dig", "+short", "@100.95.0.251", NAME).splitlines()
        for host in (RESOURCE, address):
            assert served.run(sys.executable, "-c", CONNECT, host, "80", "5") == "hello"
            assert served.run(sys.executable, "-c", DATAGRAM, host, "99", "5") == "echo hello"
        large = DATAGRAM.replace('b"hello"', 'b"x" * 9000').replace(".decode()", ".__len__()")
        assert served.run(sys.executable, "-c", large, RESOURCE, "99", "5") == "9005", "answers larger than the link carries"
        for host, size in ((RESOURCE, "56"), (address, "56"), (RESOURCE, "9000")):
            told = served.run("ping", "-c2", "-i0.2", "-W2", "-s", size, host, check=False)
            assert "2 received, 0% packet loss" in told, "requests and replies larger than the link carries, too"
        capture.tell(refuse=[IN_RANGE, "refused"])
        assert "filtered" in served.run("ping", "-c1", "-W2", IN_RANGE, check=False)
        assert " 0 received" in other.run("ping", "-c1", "-W1", address, check=False)
        assert served.run(sys.executable, "-c", CONNECT, IN_RANGE, "80", "5") == "ECONNREFUSED"
        assert other.run(sys.executable, "-c", CONNECT, address, "80", "1") == "ETIMEDOUT"
        assert "timed out" in other.run("dig", "+tries=1", "+timeout=1", "@100.95.0.251", NAME, check=False)
    finally:
        served.close()
        other.close()
        for number in (1, 2):
            subprocess.run([*machine.inside.prefix(), "ip", "link", "del", f"guest{number}"], capture_output=True)
    capture.close()
