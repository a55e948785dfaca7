"""Other records of resources' names, asked at the connector with dig; and names whose connector is away, which fail at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from examples.deployment import KLINKET, Part, clean_environment
from tests.integration.daemon_world import ALIAS, NAME, World, daemon_world, missing_programs
from tests.integration.private_services import postgres_programs
from tests.integration.topology import HIDDEN, PRIVATE

pytestmark = [
    pytest.mark.root,
    pytest.mark.alone,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make network namespaces"),
    pytest.mark.skipif(postgres_programs() is None, reason="needs PostgreSQL (Debian package postgresql)"),
    pytest.mark.skipif(bool(missing_programs()), reason=f"needs Debian packages: {' '.join(missing_programs())}"),
    pytest.mark.skipif(shutil.which("nft", path="/usr/sbin:/usr/bin") is None, reason="needs nft (Debian package nftables)"),
    pytest.mark.skipif(shutil.which("dig") is None, reason="needs dig (Debian package bind9-dnsutils)"),
]
Dig = Callable[..., str]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with daemon_world() as made:
        made.daemon.ok("setup", "--headless", str(made.key))
        assert made.daemon.ok("start", "--wait", "20") == "online\n", (made.daemon.ok("status", "-v"), made.daemon.tail())
        yield made
        made.daemon.run("stop")


def through_the_daemon(world: World, *words: str) -> str:
    return world.prints("dig", "+tries=1", "+time=8", *words)


def in_a_job(world: World, *words: str) -> str:
    klinket = [*world.topology.prefix("middle"), *KLINKET, "run", "--key-file", str(world.key), "--"]
    command = [*klinket, "dig", "+tries=1", "+time=8", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/", env=clean_environment())
    assert done.returncode == 0, (done.stdout[-800:], done.stderr[-800:])
    return done.stdout


@pytest.fixture(params=[through_the_daemon, in_a_job], ids=["daemon", "run"])
def dig(world: World, request: pytest.FixtureRequest) -> Dig:
    return partial(request.param, world)


@pytest.mark.parametrize("name", [NAME, ALIAS, "x.wild.internal"], ids=["name", "alias", "unknown-there"])
def test_mx_and_srv_come_from_the_connectors_side(dig: Dig, name: str) -> None:
    mail, service = dig("+short", name, "MX"), dig("+short", name, "SRV")
    if name == "x.wild.internal":
        assert (mail, service) == ("", "")
        return
    assert (mail, service) == ("10 mail.private.internal.\n", "0 5 5432 db.private.internal.\n")


def test_long_texts_come_over_tcp(dig: Dig) -> None:
    texts = dig("+bufsize=1232", NAME, "TXT")
    assert texts.count("x" * 200) == 10
    assert "Truncated, retrying in TCP mode" in texts


def test_a_name_that_does_not_exist_there_does_not_exist(dig: Dig) -> None:
    assert "status: NXDOMAIN" in dig("nobody.wild.internal", "MX")


def test_hints_with_addresses_are_told_to_nobody(dig: Dig) -> None:
    told = dig(NAME, "HTTPS")
    assert "status: NOERROR" in told
    assert "ANSWER: 0" in told
    assert "198.18.7.7" not in told


def test_any_is_refused_with_a_reason(dig: Dig) -> None:
    told = dig("+notcp", NAME, "ANY")
    assert "status: REFUSED" in told
    assert "ask for one type of records" in told


def test_the_name_of_a_resources_address_is_asked_there_too(dig: Dig) -> None:
    assert dig("+short", "-x", PRIVATE) == f"{NAME}.\n"
    assert "status: NXDOMAIN" in dig("-x", HIDDEN)


def connector(world: World) -> Part:
    return world.deployment.parts["corp-1"]


def test_without_a_connector_names_fail_at_once_and_come_back_with_it(world: World) -> None:
    part = connector(world)
    assert through_the_daemon(world, "+short", NAME)
    part.stop()
    try:
        deadline = time.monotonic() + 20
        while "status: SERVFAIL" not in (told := through_the_daemon(world, NAME)):
            assert time.monotonic() < deadline, told
            time.sleep(0.2)
        for kind in ("A", "AAAA", "MX"):
            begun = time.monotonic()
            told = through_the_daemon(world, NAME, kind)
            took = time.monotonic() - begun
            assert "status: SERVFAIL" in told
            assert "EDE: 22" in told
            assert "no connector" in told or "connector corp-1" in told, told
            assert took < 4, "nobody waits for a timeout"
    finally:
        part.start()
    deadline = time.monotonic() + 30
    while "status: NOERROR" not in (told := through_the_daemon(world, NAME)):
        assert time.monotonic() < deadline, told
        time.sleep(0.2)
    assert through_the_daemon(world, "+short", NAME, "MX") == "10 mail.private.internal.\n"
