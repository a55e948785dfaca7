"""Sending to peers never waits: what one cannot take in time ends its channel, and it comes again for the full state."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from klinket.controller.peers import MAX_QUEUED, POLICY_VIOLATION, TRY_AGAIN, ConnectorPeer, Outbox, Peers
from klinket.domain.identifiers import ConnectorId, Thumbprint
from klinket.wire import control


class Socket:
    """The sending half of a WebSocket, as slow as a test wants."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.closed_with: int | None = None
        self.may_send = asyncio.Event()
        self.may_send.set()

    async def send_text(self, text: str) -> None:
        await self.may_send.wait()
        self.sent.append(text)

    async def close(self, code: int) -> None:
        self.closed_with = code


def heartbeat(number: int) -> control.HeartbeatAnswer:
    return control.HeartbeatAnswer(sequence=number, time_ms=0)


def cut(number: int) -> control.Cut:
    return control.Cut(id=number, token="t")


async def test_messages_go_out_in_order_and_the_channel_closes_after_the_last() -> None:
    socket: Any = Socket()
    outbox = Outbox(socket)
    for number in range(3):
        outbox.put(heartbeat(number))
    outbox.finish()
    await asyncio.wait_for(outbox.run(), 5)
    assert socket.sent == [control.encode(heartbeat(number)) for number in range(3)]
    assert socket.closed_with == POLICY_VIOLATION


async def test_a_peer_that_takes_nothing_is_closed_at_the_bound_and_told_to_come_again() -> None:
    socket: Any = Socket()
    socket.may_send.clear()
    outbox = Outbox(socket)
    running = asyncio.create_task(outbox.run())
    await asyncio.sleep(0)
    for number in range(MAX_QUEUED + 2):
        outbox.put(heartbeat(number))
    assert outbox.overflowed
    socket.may_send.set()
    await asyncio.wait_for(running, 5)
    assert socket.closed_with == TRY_AGAIN
    assert len(socket.sent) <= MAX_QUEUED + 1


@given(before=st.integers(0, 5), after=st.integers(0, 5))
def test_a_cut_never_comes_before_the_configuration_and_none_is_lost(before: int, after: int) -> None:
    async def run() -> list[str]:
        socket: Any = Socket()
        peer = ConnectorPeer(ConnectorId(1), Thumbprint("t"), Outbox(socket))
        for number in range(before):
            peer.cut(cut(number))
        peer.configure(CONFIGURATION, made_of=())
        for number in range(before, before + after):
            peer.cut(cut(number))
        peer.outbox.finish()
        await peer.outbox.run()
        return socket.sent

    sent = asyncio.run(run())
    assert sent == [control.encode(CONFIGURATION), *(control.encode(cut(number)) for number in range(before + after))]


async def test_a_connector_has_answered_when_it_has_answered_every_cut() -> None:
    socket: Any = Socket()
    peer = ConnectorPeer(ConnectorId(1), Thumbprint("t"), Outbox(socket))
    await asyncio.wait_for(peer.all_answered(), 5)  # nothing was asked
    for number in (1, 2):
        peer.cut(cut(number))
    waiting = asyncio.create_task(peer.all_answered())
    peer.answered(1)
    peer.answered(99)
    await asyncio.sleep(0)
    assert not waiting.done()
    peer.answered(2)
    await asyncio.wait_for(waiting, 5)


def test_only_attached_connectors_are_online() -> None:
    peers = Peers()
    socket: Any = Socket()
    peers.connectors[7] = ConnectorPeer(ConnectorId(7), Thumbprint("t"), Outbox(socket), relays=(1, 2))
    assert peers.online() == {7: (1, 2)}


CONFIGURATION = control.ConnectorConfiguration(
    epoch=1,
    revision=1,
    network="acme",
    connector=1,
    remote_network=1,
    time_ms=0,
    client_authority="",
    grant_keys={},
    cut_keys={},
    relays=[],
    tickets=[],
    cuts=[],
    limits=control.AccountLimits(new_flows_per_second=1.0, new_flows_burst=1, max_flows=1),
    max_grant_seconds=300,
    renew_at_ms=0,
)
