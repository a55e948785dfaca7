"""What the resource does, the program sees, and the other way round: ends, half ends, resets, silence and slowness."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import Loopback
from tests.integration.watched import wait_until

pytestmark = [pytest.mark.alone, pytest.mark.timeout(180)]

NAME = "ends.internal"
ADDRESS = "127.77.0.61"
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def listener(loopback: Loopback) -> Iterator[socket.socket]:
    with socket.create_server((ADDRESS, 0)) as made:
        made.settimeout(20)
        loopback.grant("ci", "Ends", ADDRESS, "--alias", NAME)
        loopback.wait_until_known(NAME, made.getsockname()[1])
        yield made


@pytest.fixture
def both(loopback: Loopback, listener: socket.socket) -> Iterator[dict[str, socket.socket]]:
    """The program's and the resource's end of a flow."""
    program = loopback.dial(NAME, listener.getsockname()[1])
    program.settimeout(20)
    program.sendall(b"?")
    while True:
        resource, _ = listener.accept()
        resource.settimeout(20)
        with contextlib.suppress(ConnectionResetError):
            if resource.recv(1) == b"?":
                break
        resource.close()  # one that the fixture above waited with
    yield {"program": program, "resource": resource}
    program.close()
    resource.close()


SIDES = pytest.mark.parametrize(("here", "there"), [("program", "resource"), ("resource", "program")])


@SIDES
def test_a_half_close_is_one_and_the_other_direction_goes_on(both: dict[str, socket.socket], here: str, there: str) -> None:
    both[here].sendall(b"question")
    both[here].shutdown(socket.SHUT_WR)
    assert both[there].recv(100) == b"question"
    assert both[there].recv(100) == b""
    time.sleep(0.3)
    both[there].sendall(b"answer, later")
    assert both[here].recv(100) == b"answer, later"
    both[there].close()
    assert both[here].recv(100) == b""


@SIDES
def test_a_reset_is_a_reset(both: dict[str, socket.socket], here: str, there: str) -> None:
    both[here].sendall(b"x")
    assert both[there].recv(1) == b"x"
    both[here].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    both[here].close()
    with pytest.raises(ConnectionResetError):
        both[there].recv(1)


def resident(pid: int) -> int:
    """Return bytes of resident memory."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


@SIDES
def test_a_slow_reader_stops_the_sender_and_no_part_keeps_what_it_does_not_read(
    loopback: Loopback, both: dict[str, socket.socket], here: str, there: str
) -> None:
    parts = [loopback.client.pid, loopback.deployment.parts["office-1"].pid]
    parts.append(int((loopback.deployment.state / "relay" / "relay.pid").read_text()))
    before = sum(map(resident, parts))
    sent = [0]

    def send() -> None:
        try:
            while True:
                sent[0] += both[here].send(bytes(MEBIBYTE))
        except OSError:
            pass

    both[here].settimeout(60)
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    last = [-1]

    def stopped() -> bool:
        time.sleep(1.0)
        last[0], so = sent[0], last[0]
        return so == last[0]

    wait_until(stopped, "the sender never stops", 30)
    assert sum(map(resident, parts)) - before < 32 * MEBIBYTE
    # A reset reaches the slow side though it reads nothing, within some looks.
    both[here].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    both[here].shutdown(socket.SHUT_RDWR)
    both[here].close()
    sender.join(10)
    wait_until(lambda: both[there].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0, "no reset came", 20)


def test_an_idle_flow_lives_on(both: dict[str, socket.socket]) -> None:
    """Longer than a pipe may wait for a flow at the least; hours are the settings' business."""
    time.sleep(20)
    both["program"].sendall(b"still here")
    assert both["resource"].recv(100) == b"still here"
