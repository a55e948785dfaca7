"""Through capture a program sees of its target what it sees without klinket, and the target of the program.

Each rule is shown first on a connection that has nothing to do with klinket ("plain"), with the same words.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.integration.ends_world import (
    CONNECTOR_NAME,
    WAYS,
    Ends,
    EndsWorld,
    Flood,
    ends_world,
    hangs_up,
    pattern,
    read_exactly,
    read_to_end,
    reset,
    wait_until_taken,
)
from tests.integration.watched import wait_until

pytestmark = [
    pytest.mark.root,
    pytest.mark.alone,
    pytest.mark.timeout(300),
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root to make network namespaces"),
    pytest.mark.skipif(shutil.which("nft", path="/usr/sbin:/usr/bin") is None, reason="needs nft (Debian package nftables)"),
]
MEBIBYTE = 1 << 20
#: More than all that the parts and kernels on the way hold for a reader that does not read: eight buffers of 4 MiB and a little.
MOST_ON_THE_WAY = 48 * MEBIBYTE
#: Bytes that a kernel sends at once on a new connection: more of them a reset may overtake in klinket (captured-machine.md).
SENT_AT_ONCE = 10_000
#: Seconds until connection tracking forgets what is silent, in the test of silence, and how long it lasts.
FORGOTTEN_SECONDS, SILENT_SECONDS = 33, 40


@pytest.fixture(scope="module")
def world() -> Iterator[EndsWorld]:
    with ends_world() as made:
        yield made


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ends(world: EndsWorld, way: str) -> Iterator[Ends]:
    made = world.connect(way)
    yield made
    made.close()


SIDES = pytest.mark.parametrize(("here", "there"), [("program", "target"), ("target", "program")])


@SIDES
def test_a_half_close_is_one_and_the_other_direction_goes_on(ends: Ends, here: str, there: str) -> None:
    one, other = ends.of(here), ends.of(there)
    one.sendall(b"question")
    one.shutdown(socket.SHUT_WR)
    assert read_to_end(other) == (b"question", "end")
    assert not hangs_up(one, 0.5)
    sending = Flood(other, 3 * MEBIBYTE)
    assert read_exactly(one, 3 * MEBIBYTE) == pattern(3 * MEBIBYTE)
    sending.wait()
    other.close()
    assert read_to_end(one) == (b"", "end")


@SIDES
def test_a_reset_is_a_reset(ends: Ends, here: str, there: str) -> None:
    ends.of(here).sendall(b"x")
    assert ends.of(there).recv(1) == b"x"
    reset(ends.of(here))
    assert hangs_up(ends.of(there))
    assert read_to_end(ends.of(there)) == (b"", "reset")


@SIDES
def test_a_reset_after_ones_own_half_close_is_told_to_whoever_waits(ends: Ends, here: str, there: str) -> None:
    """A program that asked, ended its side, and was ended itself."""
    ends.of(here).shutdown(socket.SHUT_WR)
    assert ends.of(there).recv(1) == b""
    reset(ends.of(here))
    assert hangs_up(ends.of(there))


@SIDES
def test_a_reset_answers_bytes_for_one_who_has_closed_after_its_end(ends: Ends, here: str, there: str) -> None:
    """Who closes reads nothing more, and the other learns it from its first bytes, whether it sends more or not."""
    ends.of(here).close()
    assert ends.of(there).recv(1) == b""
    ends.of(there).sendall(b"is anybody there?")
    assert hangs_up(ends.of(there))


@SIDES
def test_what_was_taken_before_a_reset_is_read_before_it(ends: Ends, here: str, there: str) -> None:
    """As a web server does that refuses an upload: it answers, and closes with a reset, since it has not read everything."""
    one, other = ends.of(here), ends.of(there)
    other.sendall(b"what is never read")
    assert one.recv(100, socket.MSG_PEEK)  # it has arrived: who still sends may miss what came before a reset
    one.sendall(pattern(SENT_AT_ONCE))
    wait_until_taken(one)
    reset(one)
    assert read_to_end(other) == (pattern(SENT_AT_ONCE), "reset")


@SIDES
def test_a_stream_that_is_reset_under_way_is_a_beginning_and_a_reset(ends: Ends, here: str, there: str) -> None:
    one, other = ends.of(here), ends.of(there)
    sending = Flood(one)
    begin = read_exactly(other, 5 * MEBIBYTE)
    sending.stop()
    reset(one)
    rest, how = read_to_end(other)
    assert how == "reset"
    assert begin + rest == pattern(len(begin) + len(rest))
    assert len(begin) + len(rest) <= sending.sent


@SIDES
def test_who_sends_is_held_up_by_who_does_not_read_and_goes_on_with_it(ends: Ends, here: str, there: str) -> None:
    one, other = ends.of(here), ends.of(there)
    sending = Flood(one, MOST_ON_THE_WAY + 16 * MEBIBYTE)
    assert sending.wait_until_blocked() < MOST_ON_THE_WAY
    for begin in range(0, MOST_ON_THE_WAY + 16 * MEBIBYTE, MEBIBYTE):
        assert read_exactly(other, MEBIBYTE) == pattern(MEBIBYTE, begin)
    sending.wait()
    assert sending.error is None
    one.close()
    assert read_to_end(other) == (b"", "end")


@SIDES
def test_who_is_held_up_learns_of_a_reset(ends: Ends, here: str, there: str) -> None:
    sending = Flood(ends.of(here))
    sending.wait_until_blocked()
    reset(ends.of(there))
    sending.wait()
    assert isinstance(sending.error, ConnectionResetError)


@SIDES
def test_a_reset_comes_to_whoever_reads_nothing(ends: Ends, here: str, there: str) -> None:
    sending = Flood(ends.of(here))
    sending.wait_until_blocked()
    sending.stop()
    reset(ends.of(here))
    assert hangs_up(ends.of(there))
    data, how = read_to_end(ends.of(there))
    assert how == "reset"
    assert data == pattern(len(data))


@SIDES
def test_urgent_bytes_are_not_lost(ends: Ends, here: str, there: str) -> None:
    """Read in their place, as RFC 6093 wants it: a reader that asks for them out of band gets them only without klinket."""
    ends.of(there).setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    ends.of(here).sendall(b"before")
    ends.of(here).send(b"!", socket.MSG_OOB)
    ends.of(here).sendall(b"after")
    ends.of(here).close()
    assert read_to_end(ends.of(there)) == (b"before!after", "end")


@contextmanager
def forgetful(world: EndsWorld) -> Iterator[None]:
    """Have connection tracking of the machine that the daemon captures forget what is silent."""
    kinds = ("established", "close_wait", "fin_wait")
    settings = [f"net.netfilter.nf_conntrack_tcp_timeout_{kind}" for kind in kinds]
    before = [world.daemon_side("sysctl", "-n", setting) for setting in settings]
    try:
        for setting in settings:
            world.daemon_side("sysctl", "-qw", f"{setting}={FORGOTTEN_SECONDS}")
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            world.daemon_side("sysctl", "-qw", f"{setting}={value}")


def test_what_is_silent_for_long_goes_on_whole_or_half_closed(world: EndsWorld) -> None:
    """Longer than connection tracking remembers the silent, which knows by that what is captured: klinket probes in time."""
    with forgetful(world):
        flows = [(way, ended, world.connect(way)) for way in WAYS for ended in ("neither", "program", "target")]
        for _, ended, ends in flows:
            if ended != "neither":
                ends.of(ended).shutdown(socket.SHUT_WR)
        time.sleep(SILENT_SECONDS)  # it is what is tried
        for way, ended, ends in flows:
            for here, there in (("program", "target"), ("target", "program")):
                if here != ended:
                    sending = Flood(ends.of(here), MEBIBYTE)
                    assert read_exactly(ends.of(there), MEBIBYTE) == pattern(MEBIBYTE), (way, ended, here)
                    sending.wait()
            ends.close()


captured = pytest.mark.parametrize("way", [way for way in WAYS if way != "plain"])


@captured
def test_a_connector_that_is_killed_is_a_reset_at_both_ends_whatever_they_do(world: EndsWorld, way: str) -> None:
    idle, asking, answering, busy, held_up = (world.connect(way) for _ in range(5))
    asking.program.shutdown(socket.SHUT_WR)
    assert asking.target.recv(1) == b""
    answering.target.shutdown(socket.SHUT_WR)
    assert answering.program.recv(1) == b""
    upwards, downwards = Flood(busy.program), Flood(held_up.target)
    downwards.wait_until_blocked()
    begin = read_exactly(busy.target, 5 * MEBIBYTE)
    world.deployment.parts[CONNECTOR_NAME].kill()
    try:
        for ends in (idle, asking):
            assert read_to_end(ends.program) == (b"", "reset")
        for ends in (idle, answering):
            assert read_to_end(ends.target) == (b"", "reset")
        assert hangs_up(answering.program)
        assert hangs_up(asking.target)
        rest, how = read_to_end(busy.target)
        assert how == "reset"
        assert begin + rest == pattern(len(begin) + len(rest))
        data, how = read_to_end(held_up.program)
        assert how == "reset"
        assert data == pattern(len(data))
        for sending in (upwards, downwards):
            sending.wait()
            assert isinstance(sending.error, ConnectionResetError)
    finally:
        world.restart_connector()
        for ends in (idle, asking, answering, busy, held_up):
            ends.close()


def test_a_daemon_that_is_killed_is_a_reset_at_both_ends(world: EndsWorld) -> None:
    idle, asking, busy = (world.connect("daemon") for _ in range(3))
    asking.program.shutdown(socket.SHUT_WR)
    assert asking.target.recv(1) == b""
    sending = Flood(busy.target)
    begin = read_exactly(busy.program, 5 * MEBIBYTE)
    os.kill(int(world.daemon_status()["pid"]), signal.SIGKILL)
    try:
        assert read_to_end(idle.program) == read_to_end(idle.target) == (b"", "reset")
        assert read_to_end(asking.program) == (b"", "reset")
        assert hangs_up(asking.target)
        rest, how = read_to_end(busy.program)
        assert how == "reset"
        assert begin + rest == pattern(len(begin) + len(rest))
        sending.wait()
        assert isinstance(sending.error, ConnectionResetError)
    finally:
        assert world.daemon.ok("start", "--wait", "30") == "online\n"
        wait_until(lambda: world.reaches("daemon"), "no way after the daemon's start", 60)
        for ends in (idle, asking, busy):
            ends.close()
