"""What crosses the relay tells neither names nor content, and a recording of it does nothing when replayed."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from klinket.client.core import ClientCore
from klinket.net.relay_path import RelayPath
from klinket.net.sockets import receive_exactly
from klinket.wire import pipe
from klinket.wire.relay import HELLO_BYTES, RelayAnswer, RelayHello, RelayRole
from tests.integration.conftest import ECHO_ADDRESS, ECHO_NAME, Loopback
from tests.integration.evidence import Evidence
from tests.integration.test_stolen_credentials import hold
from tests.integration.watched import WatchedService, wait_until
from tests.integration.wiretap import Half, Wiretap

pytestmark = [
    pytest.mark.root,
    pytest.mark.alone,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to listen on the wire"),
]

CONTENT = b"the quick brown fox jumps over the lazy gate " * 20
#: Long enough that random bytes do not hold them by chance.
ACCOUNT, RESOURCE, ALIAS = "nightly-accounts-job", "Ledger of the vault", "ledger.vault.internal"
#: Bytes below which a text can turn up by chance.
MIN_SECRET_BYTES = 8


@dataclass
class Recording:
    """One client's connections, from login to a flow, as an eavesdropper has them."""

    wire: Wiretap
    relay_port: int
    service: WatchedService
    flows: int

    def wait_until_reported(self, world: Loopback) -> None:
        """Wait until the connector has reported the end of every flow to the service."""

        def closed() -> int:
            with closing(sqlite3.connect(world.deployment.state / "klinket.db", timeout=10)) as database:
                events = database.execute("select event from flow_events where kind = 'closed'").fetchall()
            return sum(json.loads(event)["connection"]["resource_port"] == self.service.port for (event,) in events)

        wait_until(lambda: closed() == self.flows, f"{closed()} of {self.flows} flows are reported")

    def clients_halves(self) -> list[bytes]:
        """Return what the client sent on each connection to the relay."""
        return [self.wire.stream(half) for half in self._halves() if self._role(half) is not RelayRole.CONNECTOR]

    def hellos(self) -> list[bytes]:
        """Return what was sent on each connection that begins with a hello, by either side."""
        return [self.wire.stream(half) for half in self._halves() if self._role(half) is not None]

    def pipes(self) -> list[bytes]:
        """Return what the client sent to the connector on each pipe: all behind the hello for the relay."""
        sent = [self.wire.stream(half)[HELLO_BYTES:] for half in self._halves() if self._role(half) is RelayRole.CLIENT]
        return [data for data in sent if data[:1] == bytes([pipe.VERSION])]

    def link_handshakes(self) -> list[bytes]:
        """Return what the client sent to the connector to make its link."""
        sent = [self.wire.stream(half)[HELLO_BYTES:] for half in self._halves() if self._role(half) is RelayRole.CLIENT]
        return [data for data in sent if data[:1] == bytes([pipe.TLS_HANDSHAKE])]

    def admissions(self) -> list[bytes]:
        """Return what was sent on each connection on which somebody was admitted."""
        return [stream for half in self._halves() if (stream := self.wire.stream(half))[0] == pipe.TLS_HANDSHAKE]

    def _halves(self) -> list[Half]:
        return [half for half in self.wire.halves() if half[1] == self.relay_port]

    def _role(self, half: Half) -> RelayRole | None:
        stream = self.wire.stream(half)
        if stream[0] == pipe.TLS_HANDSHAKE or len(stream) < HELLO_BYTES:
            return None
        return RelayHello.unverified(stream[:HELLO_BYTES]).role


@pytest.fixture(scope="module")
def recording(loopback: Loopback) -> Iterator[Recording]:
    """Record a job of an account, a resource and a name of their own; the client goes on with its session."""
    deployment = loopback.deployment
    with WatchedService("127.77.0.42") as service:
        deployment.admin("service", "create", ACCOUNT)
        loopback.grant(ACCOUNT, RESOURCE, service.address, "--alias", ALIAS)
        loopback.key = deployment.add_key(ACCOUNT, "runner")
        loopback.client.stop()
        loopback.client.command[loopback.client.command.index("--key-file") + 1] = str(loopback.key)
        with Wiretap(deployment.relay_port) as wire:
            loopback.client.start()
            wait_until(lambda: can_dial(loopback, service), "the recorded client reaches nothing", 20)
            for _ in range(3):
                with loopback.dial(ALIAS, service.port) as flow:
                    loopback.echo(flow, CONTENT)
            wait_until(lambda: len(wire.everything()) > 6 * len(CONTENT), "the wiretap sees nothing")
        yield Recording(wire, deployment.relay_port, service, service.accepted)


def can_dial(world: Loopback, service: WatchedService) -> bool:
    try:
        world.dial(ALIAS, service.port, timeout=5).close()
    except OSError:
        return False
    return True


def test_the_recording_is_one_of_everything_that_crosses(recording: Recording) -> None:
    """Otherwise what is not found in it would prove nothing."""
    assert len(recording.pipes()) >= 2  # control and flows
    assert recording.link_handshakes()
    assert recording.admissions()
    assert len(recording.hellos()) > len(recording.pipes())


def test_the_wire_holds_neither_names_nor_content(loopback: Loopback, recording: Recording) -> None:
    seen = recording.wire.everything()
    session = loopback.key.read_text()
    secrets = [
        CONTENT[:24], ECHO_NAME.encode(), ECHO_ADDRESS.encode(), ALIAS.encode(), RESOURCE.encode(), ACCOUNT.encode(),
        recording.service.address.encode(), b"office-1", b"PRIVATE KEY", b"klinket-grant+jwt", b"spiffe://",
        loopback.deployment.api_token.encode(), *(line.encode() for line in session.split("\n")[1:-2]),
    ]  # fmt: skip
    for secret in secrets:
        assert len(secret) >= MIN_SECRET_BYTES, f"{secret!r} is too short to be looked for"
        assert secret not in seen


def answer_of(port: int, sent: bytes) -> bytes:
    """Send recorded bytes to the relay; return what it answers until the end. A reset is an end.

    The relay may answer and close before all is sent: its answer is there to be read after the reset as well.
    """
    answer = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as replay:
        try:
            replay.sendall(sent)
            replay.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.EPIPE, errno.ECONNRESET):
                raise
        try:
            while more := replay.recv(65536):
                answer += more
        except ConnectionResetError:
            pass
    return bytes(answer)


def test_a_replayed_hello_is_refused_by_the_relay(loopback: Loopback, recording: Recording) -> None:
    for recorded in recording.hellos():
        for sent in (recorded, recorded[:HELLO_BYTES]):
            assert answer_of(recording.relay_port, sent) == bytes([RelayAnswer.REPLAYED])
    assert recording.service.accepted == recording.flows


def test_a_replayed_admission_admits_nobody(recording: Recording) -> None:
    for recorded in recording.admissions():
        # The relay's half of a new handshake: nothing in it can be an admission, whose key would be inside TLS.
        answer = answer_of(recording.relay_port, recorded)
        assert answer[:1] in (b"", b"\x16", b"\x15")
    assert recording.service.accepted == recording.flows


async def replay_to_connector(world: Loopback, recorded: bytes) -> tuple[bytes, bool]:
    """Meet the connector with an admission of one's own, and say what was recorded; returns the answer and whether it ended."""
    mine = await hold(world)
    core = ClientCore()
    core.configure(mine.configuration)
    relay = mine.configuration.relays[0]
    sock = await RelayPath(relay, RelayRole.CLIENT, lambda: core.ticket_for(relay.id), time.time).connect(mine.connector.id)
    loop = asyncio.get_running_loop()
    answer = bytearray()
    with sock:
        greeting = await receive_exactly(sock, pipe.GREETING_BYTES)
        assert greeting[0] == pipe.VERSION
        try:
            await loop.sock_sendall(sock, recorded)
            async with asyncio.timeout(10):
                while more := await loop.sock_recv(sock, 65_536):
                    answer += more
        except ConnectionResetError:
            pass
        except TimeoutError:
            return bytes(answer), False
    return bytes(answer), True


async def test_a_pipe_replayed_to_the_connector_does_nothing(loopback: Loopback, recording: Recording) -> None:
    """Its link is alive and its handle known: only the connector's fresh random makes the recording worthless."""
    recording.wait_until_reported(loopback)
    evidence = Evidence(loopback.deployment)
    pipes = recording.pipes()
    for recorded in pipes:
        assert await replay_to_connector(loopback, recorded) == (b"", True)
    await asyncio.to_thread(evidence.wait_for, "office-1", "a frame of a pipe does not verify")
    assert recording.service.accepted == recording.flows
    assert can_dial(loopback, recording.service)  # the recorded session itself goes on
    recording.flows += 1
    recording.wait_until_reported(loopback)
    established = [line for line in evidence.flows().splitlines() if line.startswith("established ")]
    assert len(established) == 1  # this last one: a replay would have been reported before it


async def test_a_link_handshake_replayed_to_the_connector_makes_no_link(loopback: Loopback, recording: Recording) -> None:
    evidence = Evidence(loopback.deployment)
    for recorded in recording.link_handshakes():
        answer, ended = await replay_to_connector(loopback, recorded)
        assert ended
        assert CONTENT[:24] not in answer
    assert "link with session" not in evidence.log("office-1")
    assert recording.service.accepted == recording.flows
