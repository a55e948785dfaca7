"""However a capture ends, nothing of it is left but rules that reject what it captured; and those go with the next start or stop.

KLINKET_TORTURE_ROUNDS: rounds of the torture test, 5 by default.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.captured_machine import (
    CONNECT,
    IN_RANGE,
    NAME,
    RESOURCE,
    RESOURCE6,
    Capture,
    Machine,
    signal_and_wait,
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.alone,
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root for namespaces"),
]
ROUNDS = int(os.environ.get("KLINKET_TORTURE_ROUNDS", "5"))
UNDO = "from klinket.client.capture.host.undo import undo; undo()"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path) as made:
        yield made


def until_closed(machine: Machine) -> None:
    """Wait until a watcher has done its work: it is the only one that fills the chain."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        rules = machine.inside.run("nft", "list", "chain", "inet", "klinket", "closed", check=False)
        preferences = machine.inside.run("ip", "rule") + machine.inside.run("ip", "-6", "rule")
        if "reject" in rules and "27501" not in preferences:
            return
        time.sleep(0.02)
    raise AssertionError(f"no watcher has closed the way: {rules} {preferences}")


def differences(before: dict[str, object], after: dict[str, object]) -> dict[str, tuple[object, object]]:
    return {key: (before[key], after[key]) for key in before if before[key] != after[key]}


def assert_rejected(machine: Machine) -> None:
    """Everything that was captured is refused, nothing of it gets outside, and names go where they went before."""
    machine.seen_outside()
    for host in (RESOURCE, IN_RANGE, RESOURCE6, "100.96.0.1"):
        assert machine.connect(host, seconds=2) == "ECONNREFUSED"
        assert machine.datagram(host) in ("EPERM", "EACCES")
    assert machine.seen_outside() == []
    assert machine.connect("public.example") == "look-alike"


def test_a_stop_undoes_everything(machine: Machine) -> None:
    before = machine.snapshot()
    capture = machine.start_capture()
    assert machine.connect(NAME) == "hello"
    assert differences(before, machine.snapshot()).keys() >= {"nft list ruleset", "ip -4 rule", "ip -6 rule"}
    assert machine.snapshot()["cat /etc/resolv.conf"] == before["cat /etc/resolv.conf"], "no file is touched, ever"
    capture.close()
    assert differences(before, machine.snapshot()) == {}


def test_a_start_that_fails_leaves_nothing(machine: Machine) -> None:
    before = machine.snapshot()
    machine.inside.run("ip", "tuntap", "add", "dev", "klinket0", "mode", "tap")
    machine.start_capture(answer="impossible")
    machine.inside.run("ip", "link", "del", "klinket0")
    assert differences(before, machine.snapshot()) == {}


def test_after_a_crash_resources_are_rejected_until_the_next_start(machine: Machine) -> None:
    before = machine.snapshot()
    machine.start_capture().kill()
    until_closed(machine)
    assert differences(before, machine.snapshot()).keys() == {"nft list ruleset"}
    assert_rejected(machine)
    # The next one is told of nothing that is granted: what was is not dialled past it all the same.
    again = machine.start_capture(granted=[])
    assert machine.connect(RESOURCE) == "ECONNREFUSED"
    again.tell(grant=[RESOURCE])
    assert machine.connect(RESOURCE) == "hello"
    again.close()
    assert differences(before, machine.snapshot()) == {}


def test_after_a_crash_undoing_takes_everything_away(machine: Machine) -> None:
    before = machine.snapshot()
    machine.start_capture().kill()
    until_closed(machine)
    for _ in range(2):
        machine.inside.run(sys.executable, "-c", UNDO)
        assert differences(before, machine.snapshot()) == {}
    assert machine.connect(RESOURCE) == "look-alike"


def test_nobody_undoes_a_capture_that_lives(machine: Machine) -> None:
    capture = machine.start_capture()
    before = machine.snapshot()
    assert "CaptureImpossible" in machine.inside.run("sh", "-c", f"{sys.executable} -c '{UNDO}' 2>&1", check=False)
    assert machine.snapshot() == before
    capture.close()


def test_a_watcher_that_is_killed_is_replaced(machine: Machine) -> None:
    capture = machine.start_capture()
    [watcher] = capture.watchers()
    signal_and_wait(watcher)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and capture.watchers() in ([], [watcher]):
        time.sleep(0.05)
    time.sleep(0.3)  # it has read its will
    capture.kill()
    until_closed(machine)
    assert_rejected(machine)


def test_with_both_killed_nothing_leaks_and_the_next_start_is_clean(machine: Machine) -> None:
    before = machine.snapshot()
    capture = machine.start_capture()
    [watcher] = capture.watchers()
    os.kill(watcher, signal.SIGKILL)
    capture.kill()
    machine.seen_outside()
    for host in (RESOURCE, IN_RANGE, RESOURCE6):
        assert machine.connect(host, seconds=1) in ("ETIMEDOUT", "ECONNREFUSED", "ENETUNREACH")
        machine.datagram(host, seconds=0.5)
    assert [line for line in machine.seen_outside() if not line.startswith("dns")] == []
    again = machine.start_capture()
    assert machine.connect(RESOURCE) == "hello"
    again.close()
    assert differences(before, machine.snapshot()) == {}


def test_terminating_the_watcher_does_not_end_it(machine: Machine) -> None:
    capture = machine.start_capture()
    [watcher] = capture.watchers()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(watcher, number)
    capture.kill()
    until_closed(machine)


def provoke(machine: Machine, capture: Capture, dice: random.Random, directory: Path) -> None:
    """Have programs talk to resources, then kill klinket at a random moment, and sometimes its watcher with it."""
    hosts = [RESOURCE, IN_RANGE, RESOURCE6, NAME]
    script = f"import sys\nwhile True:\n for host in {hosts!r}:\n  sys.argv[1:] = [host, '80', '0.3']\n  exec({CONNECT!r})"
    programs = [machine.inside.start(sys.executable, "-c", script, log=directory / "program") for _ in range(2)]
    try:
        time.sleep(dice.uniform(0.1, 0.8))
        watcher = capture.watchers()[0]
        if dice.random() < 0.25:
            os.kill(watcher, signal.SIGKILL)
        if dice.random() < 0.25:
            capture.process.send_signal(signal.SIGSTOP)
        capture.kill()
        time.sleep(dice.uniform(0, 0.5))
    finally:
        for program in programs:
            program.kill()
            program.communicate()


@pytest.mark.timeout(60 + 20 * ROUNDS)
def test_rounds_of_start_traffic_and_kill_leave_nothing_and_leak_nothing(machine: Machine, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    before = machine.snapshot()
    for round in range(ROUNDS):
        where = f"round {round}, seed {seed}"
        capture = machine.start_capture()
        machine.seen_outside()
        provoke(machine, capture, dice, tmp_path)
        leaked = [line for line in machine.seen_outside() if line.split()[-1] in (RESOURCE, IN_RANGE, RESOURCE6, "hello")]
        assert leaked == [], where
        match dice.randrange(3):
            case 0:
                capture = machine.start_capture()  # takes over, whether a watcher is still at work or not
                assert machine.connect(RESOURCE) == "hello", where
                capture.close()
            case 1:
                machine.inside.run(sys.executable, "-c", UNDO)
            case 2:
                machine.start_capture().kill()
                machine.start_capture().close()
        assert differences(before, machine.snapshot()) == {}, where
