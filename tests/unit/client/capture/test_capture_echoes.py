"""Captured echo requests: flows by identifier, honest answers, and bounds."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest

from klinket.client.capture import echo_packets, echoes
from klinket.client.capture.doorway import Doorway
from klinket.client.capture.echo_packets import EchoRequest
from klinket.client.capture.echoes import CapturedEchoes
from klinket.client.capture.synthetic import SyntheticAddresses
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.wire.echo import Echo
from tests.eventually import eventually
from tests.unit.client.conftest import FakeClient

PROGRAM, GRANTED = "192.0.2.1", "10.9.0.5"


class Answered(CapturedEchoes):
    """Keeps what a program would get."""

    def __init__(self, doorway: Doorway) -> None:
        queue, _ = socket.socketpair()
        super().__init__(queue, 1, [], doorway)
        self.answers: list[bytes] = []

    def answer(self, packet: bytes, to: str) -> None:
        assert to == PROGRAM
        self.answers.append(packet)


@pytest.fixture
async def captured(client: FakeClient) -> AsyncIterator[Answered]:
    client.grant(GRANTED)
    made = Answered(Doorway(client, SyntheticAddresses(), lambda _: None, only_klinkets=True))
    yield made
    await made.aclose()


def request(sequence: int, identifier: int = 7, source: str = PROGRAM) -> EchoRequest:
    return EchoRequest(source, GRANTED, identifier, Echo(sequence, b"payload"), b"quoted %d" % sequence)


async def test_requests_of_one_identifier_are_one_flow_and_each_is_answered(captured: Answered, client: FakeClient) -> None:
    for one in (request(1), request(2), request(1, identifier=8)):
        captured._take(one)
    await eventually(lambda: len(captured.answers) == 3)
    assert client.asked == [Destination(GRANTED, 0, TransportProtocol.ICMP)] * 2
    assert sorted(captured.answers) == sorted(
        echo_packets.reply(GRANTED, PROGRAM, identifier, Echo(sequence, b"payload"))
        for identifier, sequence in ((7, 1), (7, 2), (8, 1))
    )


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (FlowFailure.NOT_GRANTED, echo_packets.PROHIBITED),
        (FlowFailure.CUT, echo_packets.PROHIBITED),
        (FlowFailure.NAME_NOT_FOUND, echo_packets.HOST_UNREACHABLE),
        (FlowFailure.ICMP_UNAVAILABLE, echo_packets.PROTOCOL_UNREACHABLE),
        (FlowFailure.TIMED_OUT, None),
        (FlowFailure.THROTTLED, None),
    ],
)
async def test_a_refusal_is_told_for_each_request(
    captured: Answered, client: FakeClient, failure: FlowFailure, code: int | None
) -> None:
    client.refuse(GRANTED, failure)
    captured._take(request(1))
    captured._take(request(2))
    await eventually(lambda: not captured._flows)
    told = [] if code is None else [echo_packets.refusal(b"quoted %d" % one, GRANTED, PROGRAM, code) for one in (1, 2)]
    assert captured.answers == told


async def test_one_source_does_not_take_every_flow(captured: Answered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echoes, "MAX_ECHO_FLOWS_PER_SOURCE", 3)
    monkeypatch.setattr(echoes, "MAX_ECHO_FLOWS", 5)
    for identifier in range(5):
        captured._take(request(1, identifier))
    assert (len(captured._flows), captured.dropped) == (3, 2)
    for identifier in range(5):
        captured._take(request(1, identifier, "192.0.2.9"))
    assert (len(captured._flows), captured.dropped) == (5, 5)


async def test_a_flow_without_echoes_ends(captured: Answered, client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echoes, "IDLE_SECONDS", 0.1)
    captured._take(request(1))
    await eventually(lambda: not captured._flows)
    assert client.associations[0].closed
    assert len(captured.answers) == 1
