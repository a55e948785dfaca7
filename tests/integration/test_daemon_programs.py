"""Unmodified programs through the daemon, on a machine without a route to the private side: by name, alias, IP and CIDR."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.deployment import clean_environment
from tests.integration.daemon_commands import DaemonCommands
from tests.integration.daemon_world import (
    ALIAS,
    HTTP_PORT,
    HTTPS_PORT,
    IPERF_PORT,
    MANY,
    MANY_PORT,
    NAME,
    REDIS_PORT,
    ROOT,
    SSH_PORT,
    WAYS,
    World,
    daemon_world,
    missing_programs,
)
from tests.integration.private_services import ORDERS, postgres_programs
from tests.integration.topology import HIDDEN, PRIVATE, sh
from tests.integration.watched import wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.alone,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make network namespaces"),
    pytest.mark.skipif(postgres_programs() is None, reason="needs PostgreSQL (Debian package postgresql)"),
    pytest.mark.skipif(bool(missing_programs()), reason=f"needs Debian packages: {' '.join(missing_programs())}"),
    pytest.mark.skipif(shutil.which("nft", path="/usr/sbin:/usr/bin") is None, reason="needs nft (Debian package nftables)"),
]
#: How often the start loop runs; 50 shows that none of many starts misses.
ROUNDS = int(os.environ.get("KLINKET_TEST_STARTS", "3"))
PRIVATE6 = "fd10:91:3::2"
every_way = pytest.mark.parametrize("host", list(WAYS.values()), ids=list(WAYS))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with daemon_world() as made:
        made.daemon.ok("setup", "--headless", str(made.key))
        assert made.daemon.ok("start", "--wait", "20") == "online\n", (made.daemon.ok("status", "-v"), made.daemon.tail())
        yield made
        made.daemon.run("stop")


def ssh_options(world: World) -> list[str]:
    return ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-i", str(world.home / ".ssh" / "id_ed25519")]


def test_the_daemon_has_three_capabilities(world: World) -> None:
    pid = json.loads(world.daemon.ok("status", "--json"))["pid"]
    status = Path(f"/proc/{pid}/status").read_text()
    (bounding,) = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapBnd:")]
    assert bounding == (1 << 12) | (1 << 13) | (1 << 10), "CAP_NET_ADMIN, CAP_NET_RAW, CAP_NET_BIND_SERVICE"
    assert "NoNewPrivs:\t1" in status


@every_way
def test_psql(world: World, host: str) -> None:
    told = world.prints("psql", "-h", host, "-U", "reader", "-d", "postgres", "-Atc", "select item from orders order by number")
    assert told.splitlines() == [item for _, item in ORDERS]


@every_way
def test_redis_cli(world: World, host: str) -> None:
    assert world.prints("redis-cli", "-h", host, "-p", str(REDIS_PORT), "set", "a", "b") == "OK\n"
    assert world.prints("redis-cli", "-h", host, "-p", str(REDIS_PORT), "get", "a") == "b\n"


@every_way
def test_curl_with_http_1(world: World, host: str) -> None:
    assert world.prints("curl", "-sS", "--noproxy", "*", f"http://{host}:{HTTP_PORT}/hello.txt") == "behind the gate\n"


@every_way
def test_curl_with_http_2(world: World, host: str) -> None:
    url = f"https://{host}:{HTTPS_PORT}/"
    authority = str(world.home.parent / "web-ca.pem")
    told = world.prints("curl", "-sS", "--http2", "--cacert", authority, "-w", "%{http_version}", url + "hello.txt")
    assert told == "behind the gate\n2"
    sizes = world.prints(
        "curl", "-sS", "--http2", "--cacert", authority, "-o", "/dev/null", "-w", "%{size_download}", url + "big"
    )
    assert sizes == str(64 << 20)


@every_way
def test_ssh_and_scp(world: World, host: str) -> None:
    options = ssh_options(world)
    assert world.prints("ssh", *options, "-p", str(SSH_PORT), f"root@{host}", "echo over ssh") == "over ssh\n"
    copied = world.home / f"copied-{host}"
    world.prints("scp", "-q", *options, "-P", str(SSH_PORT), f"root@{host}:{world.home.parent}/web/big", str(copied))
    assert copied.read_bytes() == (world.home.parent / "web" / "big").read_bytes()


@every_way
def test_git_over_ssh(world: World, host: str) -> None:
    target = world.home / f"clone-{host}"
    command = " ".join(["ssh", *ssh_options(world)])
    url = f"ssh://root@{host}:{SSH_PORT}{world.home.parent}/repository.git"
    world.prints("git", "-c", f"core.sshCommand={command}", "clone", "-q", url, str(target))
    assert (target / "readme").read_text() == "cloned\n"


@every_way
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_iperf3(world: World, host: str, transport: str) -> None:
    options = ["-u", "-b", "5M", "-l", "1200"] if transport == "udp" else []
    told = json.loads(world.prints("iperf3", "-J", "-c", host, "-p", str(IPERF_PORT), "-t", "1", *options))
    end = told["end"]
    assert (end["sum"] if transport == "udp" else end["sum_received"])["bytes"] > 100_000
    if transport == "udp":
        assert end["sum"]["lost_percent"] < 50


@pytest.mark.parametrize("options", [["+notcp"], ["+tcp"]], ids=["udp", "tcp"])
def test_dig_asks_a_granted_server(world: World, options: list[str]) -> None:
    assert world.prints("dig", *options, "+short", f"@{PRIVATE}", NAME) == f"{PRIVATE}\n"


@pytest.mark.parametrize("options", [["+notcp"], ["+tcp"]], ids=["udp", "tcp"])
@pytest.mark.parametrize("host", [NAME, ALIAS])
def test_dig_gets_an_address_that_means_the_resource(world: World, host: str, options: list[str]) -> None:
    (address,) = world.prints("dig", *options, "+short", "@100.95.0.251", host).splitlines()
    assert address.startswith(("100.96.", "100.97.", "100.98.", "100.99.", "100.10", "100.11"))
    assert world.prints("curl", "-sS", f"http://{address}:{HTTP_PORT}/hello.txt") == "behind the gate\n"


@every_way
def test_ping(world: World, host: str) -> None:
    told = world.prints("ping", "-4", "-c", "3", "-i", "0.2", "-W", "5", host)
    assert "3 received, 0% packet loss" in told
    assert "(DIFFERENT ADDRESS!)" not in told


@pytest.mark.parametrize("size", ["0", "1473", "60000"])
def test_ping_with_payloads_of_every_size(world: World, size: str) -> None:
    told = world.prints("ping", "-4", "-c", "2", "-i", "0.2", "-W", "5", "-s", size, "-p", "c0ffee", NAME)
    assert "2 received, 0% packet loss" in told
    assert "wrong data byte" not in told


def test_ping_of_what_does_not_answer_is_told_as_unreachable(world: World) -> None:
    told = world.program("ping", "-4", "-c", "1", "-W", "10", "10.91.3.99")
    assert told.returncode == 1
    assert "Destination Host Unreachable" in told.stdout, (told, world.daemon.tail())


def granted(world: World, name: str, address: str, *options: str) -> None:
    """Make a resource, grant it, and wait until the daemon knows."""
    world.deployment.admin("resource", "create", "--network", "corp", "--address", address, *options, name)
    world.deployment.admin("service", "grant", "ci", name)
    deadline = time.monotonic() + 10
    while name not in world.daemon.ok("resources", "--json"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_ping_is_refused_where_the_resource_does_not_allow_it(world: World) -> None:
    granted(world, "Silent", "10.91.3.4", "--tcp", "all")
    told = world.program("ping", "-4", "-c", "1", "-W", "5", "10.91.3.4")
    assert told.returncode == 1
    assert "Packet filtered" in told.stdout, told
    explained = world.program(sys.executable, "-m", "klinket", "explain", "--icmp", "--key-file", str(world.key), "10.91.3.4")
    assert explained.returncode == 68
    assert "resource 'Silent' does not open ICMP echo" in explained.stdout


def test_explain_pings(world: World) -> None:
    told = world.prints(sys.executable, "-m", "klinket", "explain", "--icmp", "--key-file", str(world.key), NAME)
    assert "sends echo requests there; one was answered after" in told
    assert f"icmp {NAME} is reached" in told


def test_what_has_an_ipv6_address_is_reached_by_it(world: World) -> None:
    for role, link, address in (("private", "inner", "fd10:91:3::1"), ("services", "eth0", PRIVATE6)):
        sh("ip", "-n", world.topology.names[role], "addr", "add", f"{address}/64", "dev", link, "nodad")
    serve = [*world.topology.prefix("services"), sys.executable, "-m", "http.server", "--bind", PRIVATE6, "8086"]
    granted(world, "Six", "fd10:91:3::/64")
    with subprocess.Popen(serve, cwd=world.home.parent / "web", stderr=subprocess.DEVNULL) as server:
        try:
            told = world.prints("ping", "-6", "-c", "2", "-i", "0.2", "-W", "5", PRIVATE6)
            assert "2 received, 0% packet loss" in told
            url = f"http://[{PRIVATE6}]:8086/hello.txt"
            assert world.prints("curl", "-6", "-sS", "--retry", "5", "--retry-connrefused", url) == "behind the gate\n"
            inside = ["--key-file", str(world.key), "--capture", "namespace", "--"]
            job = [sys.executable, "-m", "klinket", "run", *inside]
            assert world.prints(*job, "curl", "-6", "-sS", url) == "behind the gate\n"
            told = world.prints(*job, "ping", "-6", "-c", "2", "-i", "0.2", "-W", "5", PRIVATE6)
            assert "2 received, 0% packet loss" in told
            told = world.prints(*job, "ping", "-4", "-c", "2", "-i", "0.2", "-W", "5", NAME)
            assert "2 received, 0% packet loss" in told
            assert world.program("ping", "-6", "-c", "1", "-W", "10", "fd10:91:3::99").stdout.count("Address unreachable") == 1
        finally:
            server.kill()


def test_a_ping_that_goes_on_ends_at_a_cut_and_is_in_the_receipt(world: World) -> None:
    granted(world, "Brief", "10.91.3.0/29")
    with subprocess.Popen(
        [*world.topology.prefix("client"), "ping", "-4", "-i", "0.2", HIDDEN], stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        lines = iter(program.stdout)
        try:
            while "icmp_seq=3" not in next(lines):
                pass
            world.deployment.admin("resource", "update", "Brief", "--no-icmp")
            begun = time.monotonic()
            while "Packet filtered" not in next(lines):
                assert time.monotonic() - begun < 10
        finally:
            program.kill()
    newest = max(int(cut["id"]) for cut in world.deployment.admin("cut", "list"))
    (receipt,) = world.deployment.admin("cut", "show", str(newest))["receipts"]
    told = receipt["flows"]  # a ping of a test before may not have been idle for long enough
    assert told
    flow = told[-1]
    assert (flow["protocol"], flow["host"]) == ("icmp", HIDDEN)


def memory_kb(world: World) -> int:
    pid = json.loads(world.daemon.ok("status", "--json"))["pid"]
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))


#: Prints the ports of a host that a connect() to them succeeds at, as JSON. Arguments: host, ports with commas between.
SCAN = """
import json, socket, sys, time
from concurrent.futures import ThreadPoolExecutor
def is_open(port):
    time.sleep(0.02)
    with socket.socket() as sock:
        sock.settimeout(20)
        return sock.connect_ex((sys.argv[1], port)) == 0
ports = list(map(int, sys.argv[2].split(",")))
with ThreadPoolExecutor(4) as pool:
    print(json.dumps([port for port, found in zip(ports, pool.map(is_open, ports)) if found]))
"""


def test_a_port_scan_shows_exactly_the_ports_that_are_open(world: World) -> None:
    """Strict connects (security.md 25): what accepts is the resource itself, so what does not listen there does not accept."""
    listed = subprocess.run([*world.topology.prefix("services"), "ss", "-Hltn4"], capture_output=True, text=True, check=True)
    ends = [line.split()[3].rsplit(":", 1) for line in listed.stdout.splitlines()]
    listening = {int(port) for address, port in ends if address in (PRIVATE, "0.0.0.0", "*")}
    assert len(listening) >= 5
    scanned = sorted({*range(1, 1025), *(near for port in listening for near in range(port - 10, port + 11))})
    found = json.loads(world.prints(sys.executable, "-c", SCAN, PRIVATE, ",".join(map(str, scanned)), timeout=200))
    assert found == sorted(listening & set(scanned))


def test_very_many_flows_at_a_time_all_work_and_take_little_memory(world: World) -> None:
    world.daemon.ok("stop")
    world.daemon.ok("start", "--wait", "20")
    command = [*world.topology.prefix("client"), "prlimit", "--nofile=8192", sys.executable, "-m", "tests.integration.many_flows"]
    with subprocess.Popen(
        [*command, "open", NAME, str(MANY_PORT), str(MANY)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**clean_environment(), "PYTHONPATH": str(ROOT)}, cwd=ROOT,
    ) as program:  # fmt: skip
        assert program.stdin is not None
        assert program.stdout is not None
        held = []
        try:
            for wanted in (MANY // 2, MANY, MANY):
                assert program.stdout.readline() == f"{wanted}\n", world.daemon.tail()
                assert json.loads(world.daemon.ok("status", "--json"))["flows"] == wanted
                held.append(memory_kb(world))
                program.stdin.write("\n")
                program.stdin.flush()
        finally:
            program.kill()
    # The first half pays for what comes with load and stays: pools, warm pipes, the allocator's.
    print(f"memory: {held} kB, {(held[1] - held[0]) / (MANY / 2):.1f} kB a flow")
    assert held[1] < 150_000
    flow = (held[1] - held[0]) / (MANY / 2)
    assert flow < 12
    assert held[1] + flow * (2000 - MANY) < 150_000
    deadline = time.monotonic() + 30
    while json.loads(world.daemon.ok("status", "--json"))["flows"]:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def nothing_of_klinkets(world: World) -> None:
    assert world.prints("nft", "list", "ruleset") == ""
    assert "klinket" not in world.prints("ip", "link")


@pytest.mark.timeout(120 + 15 * ROUNDS)
def test_the_start_loop_of_ci_actions_goes_online_in_its_first_round_each_time(world: World) -> None:
    world.daemon.run("stop")
    before = world.prints("ip", "rule"), world.prints("ip", "route", "show", "table", "all")
    rounds = []
    for _ in range(ROUNDS):
        world.daemon.ok("setup", "--headless", "-", given=world.key.read_text())
        for number in range(1, 6):
            world.daemon.run("start")
            if world.daemon.run("status").stdout == "online\n":
                rounds.append(number)
                break
            world.daemon.run("stop")
        assert world.prints("curl", "-sS", f"http://{NAME}:{HTTP_PORT}/hello.txt") == "behind the gate\n"
        world.daemon.ok("stop")
        nothing_of_klinkets(world)
        assert (world.prints("ip", "rule"), world.prints("ip", "route", "show", "table", "all")) == before
    assert rounds == [1] * ROUNDS
    world.daemon.ok("start", "--wait", "20")


def test_after_a_kill_resources_stay_rejected_until_a_start_or_a_stop(world: World) -> None:
    pid = json.loads(world.daemon.ok("status", "--json"))["pid"]
    os.kill(pid, 9)
    assert world.daemon.ok("status") == "not-running\n"
    assert world.program("curl", "-sS", "-m", "3", f"http://{PRIVATE}:{HTTP_PORT}/hello.txt").returncode == 7, "refused at once"
    assert world.daemon.ok("start", "--wait", "20") == "online\n"
    assert world.prints("curl", "-sS", f"http://{PRIVATE}:{HTTP_PORT}/hello.txt") == "behind the gate\n"
    os.kill(json.loads(world.daemon.ok("status", "--json"))["pid"], 9)
    assert world.daemon.ok("stop") == "klinket is not running; what a daemon had left that crashed is taken away\n"
    nothing_of_klinkets(world)
    assert world.daemon.ok("stop") == "klinket is not running\n"
    world.daemon.ok("start", "--wait", "20")


def test_a_crash_does_not_lock_out_a_daemon_whose_controller_is_in_a_granted_range(world: World, tmp_path: Path) -> None:
    deployment = world.deployment
    deployment.admin("resource", "create", "--network", "corp", "--address", "10.91.0.0/16", "Everything")
    deployment.admin("service", "create", "wide")
    deployment.admin("service", "grant", "wide", "Everything")
    world.daemon.ok("stop")
    wide = DaemonCommands(tmp_path, world.daemon.prefix)
    wide.ok("setup", "--headless", str(deployment.add_key("wide", "one")))
    try:
        for _ in range(2):
            assert wide.ok("start", "--wait", "20") == "online\n", (wide.ok("status", "-v"), wide.tail())
            assert world.prints("curl", "-sS", f"http://{PRIVATE}:{HTTP_PORT}/hello.txt") == "behind the gate\n"
            os.kill(json.loads(wide.ok("status", "--json"))["pid"], 9)
            refused = ("curl", "-sS", "-m", "3", f"http://{PRIVATE}:{HTTP_PORT}/hello.txt")
            wait_until(lambda: world.program(*refused).returncode == 7, "the watcher leaves no rules")  # noqa: B023
    finally:
        wide.run("stop")
    world.daemon.ok("start", "--wait", "20")


def test_a_second_client_of_the_machine_is_refused_by_name_and_the_first_goes_on(world: World, tmp_path: Path) -> None:
    other = DaemonCommands(tmp_path, world.daemon.prefix)
    other.ok("setup", "--headless", str(world.key))
    done = other.run("start", "--wait", "10")
    pid = json.loads(world.daemon.ok("status", "--json"))["pid"]
    assert (done.returncode, done.stdout) == (75, "capture-impossible\n"), (done, other.tail())
    assert f"another klinket captures this machine already: process {pid}" in done.stderr
    other.ok("stop")
    assert world.daemon.ok("status") == "online\n"
    assert world.prints("curl", "-sS", f"http://{NAME}:{HTTP_PORT}/hello.txt") == "behind the gate\n"


def test_without_the_daemon_nothing_is_reached_and_nothing_is_left(world: World) -> None:
    before = (
        world.prints("nft", "list", "ruleset"),
        world.prints("ip", "rule"),
        world.prints("ip", "route", "show", "table", "all"),
    )
    assert "klinket" in before[0]
    assert world.daemon.ok("stop") == "klinket is stopped\n"
    assert world.prints("nft", "list", "ruleset") == ""
    assert world.program("curl", "-sS", "-m", "3", f"http://{PRIVATE}:{HTTP_PORT}/hello.txt").returncode != 0
    assert world.daemon.ok("start", "--wait", "20") == "online\n"
    assert world.prints("curl", "-sS", f"http://{NAME}:{HTTP_PORT}/hello.txt") == "behind the gate\n"
