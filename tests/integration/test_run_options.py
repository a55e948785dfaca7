"""`klinket run` with --only, --env-proxy and --host-loopback, inside real namespaces."""

from __future__ import annotations

import ipaddress
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from klinket.client.capture import synthetic
from tests.integration.conftest import ECHO_NAME, Loopback

pytestmark = [pytest.mark.alone, pytest.mark.timeout(120)]

needs_ping = pytest.mark.skipif(shutil.which("ping") is None, reason="needs ping (Debian package iputils-ping)")
#: What the host's own service says.
GREETING = b"from the host\n"
#: Connects to HOST PORT (argv) by TCP, sends "ping", and prints what comes back or the error's name.
TALK = """import errno, socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=10) as connection:
        connection.sendall(b"ping")
        print(connection.recv(100).decode().strip())
except OSError as error:
    print(errno.errorcode.get(error.errno or 0, type(error).__name__))
"""
#: The same through the HTTP proxy of the environment; prints the status where it is not 200.
TALK_BY_PROXY = """import os, socket, sys, urllib.parse
proxy = urllib.parse.urlsplit(os.environ["HTTPS_PROXY"])
with socket.create_connection((proxy.hostname, proxy.port), timeout=10) as connection:
    connection.sendall(f"CONNECT {sys.argv[1]}:{sys.argv[2]} HTTP/1.1\\r\\n\\r\\n".encode())
    head = b""
    while b"\\r\\n\\r\\n" not in head:
        head += connection.recv(1)
    if b" 200 " in head.split(b"\\r\\n")[0]:
        connection.sendall(b"ping")
        print(connection.recv(100).decode().strip())
    else:
        print(head.split()[1].decode())
"""
TALK6 = """import socket, sys
family, kind, _, _, address = socket.getaddrinfo(sys.argv[1], int(sys.argv[2]), socket.AF_INET6, socket.SOCK_STREAM)[0]
with socket.socket(family, kind) as connection:
    connection.settimeout(10)
    connection.connect(address)
    connection.sendall(b"ping")
    print(address[0], connection.recv(100).decode().strip())
"""
TALK_UDP = """import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.settimeout(10)
    sock.sendto(b"ping", (sys.argv[1], int(sys.argv[2])))
    print(sock.recv(100).decode().strip())
"""


@contextmanager
def host_service() -> Iterator[int]:
    """A service on this machine's 127.0.0.1, TCP and UDP, which says GREETING to whoever comes; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        port = server.getsockname()[1]
        datagrams.bind(("127.0.0.1", port))
        server.settimeout(0.2)
        datagrams.settimeout(0.2)
        over = threading.Event()

        def greet() -> None:
            while not over.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    connection.sendall(GREETING)
                    connection.recv(100)

        def answer() -> None:
            while not over.is_set():
                try:
                    _, source = datagrams.recvfrom(100)
                except TimeoutError:
                    continue
                datagrams.sendto(GREETING, source)

        threads = [threading.Thread(target=work) for work in (greet, answer)]
        for thread in threads:
            thread.start()
        try:
            yield port
        finally:
            over.set()
            for thread in threads:
                thread.join()


def said(world: Loopback, script: str, host: str, port: int, *options: str) -> tuple[str, str]:
    """Return what a script printed inside, and what klinket said."""
    done = world.run(sys.executable, "-c", script, host, str(port), options=["--capture", "namespace", *options])
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize("host", ["100.127.255.2", "host.klinket.internal"])
@pytest.mark.parametrize("script", [TALK, TALK_UDP], ids=["tcp", "udp"])
def test_the_hosts_loopback_is_reached_where_that_was_asked_for(loopback: Loopback, host: str, script: str) -> None:
    with host_service() as port:
        assert said(loopback, script, host, port, "--host-loopback")[0] == GREETING.decode().strip()


def test_the_hosts_loopback_is_not_reached_without_it(loopback: Loopback) -> None:
    with host_service() as port:
        assert said(loopback, TALK, "127.0.0.1", port)[0] == "ECONNREFUSED"
        assert said(loopback, TALK_BY_PROXY, "127.0.0.1", port, "--env-proxy")[0] == "502"
        assert said(loopback, TALK, "127.0.0.1", port, "--host-loopback")[0] == "ECONNREFUSED"


def test_proxies_inside_lead_to_what_is_granted_by_name(loopback: Loopback) -> None:
    assert said(loopback, TALK_BY_PROXY, ECHO_NAME, loopback.echo_port, "--env-proxy")[0] == "ping"
    assert said(loopback, TALK, ECHO_NAME, loopback.echo_port, "--env-proxy")[0] == "ping"
    assert said(loopback, TALK_BY_PROXY, ECHO_NAME, 9, "--env-proxy")[0] == "403"


def test_a_narrowed_job_reaches_what_was_chosen_and_nothing_else_that_is_granted(loopback: Loopback) -> None:
    loopback.grant("ci", "Second", "127.77.0.30", "--alias", "second.internal", "--tcp", str(loopback.echo_port))
    assert said(loopback, TALK, "second.internal", loopback.echo_port)[0] == "ping"
    assert said(loopback, TALK, ECHO_NAME, loopback.echo_port, "--only", "Echo")[0] == "ping"
    found, told = said(loopback, TALK, "second.internal", loopback.echo_port, "--only", "Echo")
    assert found == "ECONNREFUSED"
    assert "not-granted: resource 'Second' is granted, but only Echo may be used here" in told


def test_a_choice_of_what_is_not_granted_ends_with_68(loopback: Loopback) -> None:
    done = loopback.run("true", options=["--only", "nobody.internal"])
    assert done.returncode == 68
    assert "nobody.internal" in done.stderr


def test_a_setuid_program_is_told_what_to_expect(loopback: Loopback, tmp_path_factory: pytest.TempPathFactory) -> None:
    program = tmp_path_factory.mktemp("setuid") / "program"
    program.write_text("#!/bin/sh\nexit 5\n")
    program.chmod(0o4755)
    done = loopback.run(str(program))
    assert done.returncode == 5
    assert f"klinket: {program} is setuid, which has no effect inside" in done.stderr


def test_a_name_is_reached_over_ipv6_as_well(loopback: Loopback) -> None:
    found, _ = said(loopback, TALK6, ECHO_NAME, loopback.echo_port)
    address, answer = found.split()
    assert answer == "ping"
    assert ipaddress.ip_address(address) in synthetic.PREFIX6


def test_ipv6_that_is_not_reached_is_refused_by_the_connector_and_leaves_by_no_way(loopback: Loopback) -> None:
    loopback.grant("ci", "Six", "2001:db8:77::/64", "--tcp", "80")
    assert said(loopback, TALK, "2001:db8:77::7", 80)[0] in ("EHOSTUNREACH", "ETIMEDOUT")
    found, told = said(loopback, TALK, "2001:db8:77::7", 81)
    assert found == "EACCES"
    assert "[2001:db8:77::7]:81: not-granted" in told
    routes = "import pathlib; print({line.split()[-1] for line in pathlib.Path('/proc/net/ipv6_route').read_text().splitlines()})"
    done = loopback.run(sys.executable, "-c", routes, options=["--capture", "namespace"])
    assert done.stdout.strip() in ("{'lo'}", "set()"), done.stdout


def ping(loopback: Loopback, host: str, *options: str) -> tuple[str, str]:
    command = ["ping", "-n", "-c", "2", "-i", "0.2", "-W", "5", *options, host]
    done = loopback.run(*command, options=["--capture", "namespace"])
    return done.stdout, done.stderr


@needs_ping
@pytest.mark.parametrize("family", ["-4", "-6"])
def test_a_ping_goes_to_a_resource_that_allows_icmp_and_to_no_other(loopback: Loopback, family: str) -> None:
    loopback.grant("ci", f"Pinged{family}", "127.77.0.31", "--alias", f"pinged{family}.internal", "--tcp", "none", "--icmp")
    told, said = ping(loopback, f"pinged{family}.internal", family)
    if "icmp-unavailable" in said:
        pytest.skip("the connector of this machine may not ping")
    assert "2 received, 0% packet loss" in told, said
    told, said = ping(loopback, ECHO_NAME, family)
    assert " 0 received" in told
    assert ("Packet filtered" if family == "-4" else "Administratively prohibited") in told
    assert f"{ECHO_NAME}: not-granted: resource 'Echo' does not open ICMP echo" in said


@needs_ping
def test_the_commands_own_machine_answers_pings_itself(loopback: Loopback) -> None:
    assert "2 received, 0% packet loss" in ping(loopback, "127.0.0.1")[0]
    assert "2 received, 0% packet loss" in ping(loopback, "::1")[0]
