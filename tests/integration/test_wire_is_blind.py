"""What crosses the relay tells neither names nor content, and a recording of it does nothing when replayed."""

from __future__ import annotations

import os
import socket
import time

import pytest

from tests.integration.conftest import ECHO_NAME, Loopback
from tests.integration.wiretap import Wiretap

pytestmark = [
    pytest.mark.root,
    pytest.mark.alone,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to listen on the wire"),
]

CONTENT = b"the quick brown fox jumps over the lazy gate " * 20


def test_the_wire_holds_neither_names_nor_content(loopback: Loopback) -> None:
    with Wiretap(loopback.deployment.relay_port) as wire:
        for _ in range(3):
            with loopback.dial() as flow:
                loopback.echo(flow, CONTENT)
        time.sleep(0.3)
    seen = wire.everything()
    assert len(seen) > 6 * len(CONTENT)
    for secret in (CONTENT[:24], ECHO_NAME.encode(), b"127.77.0.30", b"echo", b"ci", b"office"):
        if len(secret) > 4:
            assert secret not in seen


def test_a_recorded_connection_does_nothing_when_it_is_replayed(loopback: Loopback) -> None:
    relay_port = loopback.deployment.relay_port
    loopback.client.stop()
    with Wiretap(relay_port) as wire:
        loopback.client.start()
        loopback.wait_until_reachable()
        with loopback.dial() as flow:
            loopback.echo(flow, CONTENT)
        time.sleep(0.3)
    halves = [half for half in wire.halves() if half[1] == relay_port and len(wire.stream(half)) > 40]
    assert halves
    for half in halves:
        recorded = wire.stream(half)
        with socket.create_connection(("127.0.0.1", relay_port), timeout=10) as replay:
            replay.sendall(recorded)
            answer = bytearray()
            try:
                while more := replay.recv(65536):
                    answer += more
            except OSError:
                pass  # a reset or silence says no as well
        assert answer[:1] != b"\x01", "the relay paired a replayed hello"
        assert CONTENT[:24] not in answer
    loopback.wait_until_reachable()
