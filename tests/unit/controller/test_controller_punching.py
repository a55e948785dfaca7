"""Meetings: only for who is granted something there, only where the controller has seen them itself, and bounded."""

from __future__ import annotations

import os
from typing import Any

import pytest

from klinket.controller import punching
from klinket.controller.peers import ClientPeer, ConnectorPeer
from klinket.controller.punching import Punching, Reflection
from klinket.domain.errors import Forbidden
from klinket.domain.grant import Principal
from klinket.domain.identifiers import ConnectorId, ServiceAccountUuid, ServiceKeyId, SessionId, Thumbprint
from klinket.domain.punch import ENDPOINTS
from klinket.wire import control
from klinket.wire.control import PunchInvitation, PunchRefused, PunchStart
from klinket.wire.paths import REFLECT_PATH
from tests.unit.controller.running import Enrolled, Running, Session

CLIENT, CONNECTOR, CONTROLLER = "8.8.8.8", "9.9.9.9", "1.1.1.1"


class Told:
    """An outbox that keeps what is put."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def put(self, message: control.Message) -> None:
        self.messages.append(message)


class Meetings:
    """Punching with a clock that tests move, one connector, and clients."""

    def __init__(self, enabled: bool = True) -> None:
        self.now = 1_000.0
        self.outcomes: list[str] = []
        self.punching = Punching(enabled, lambda: self.now, os.urandom, self.outcomes.append)
        self.connector = self.add_connector()
        self.client = self.add_client()

    def add_connector(self, address: str = CONNECTOR, *, punches: bool = True) -> ConnectorPeer:
        outbox: Any = Told()
        return ConnectorPeer(ConnectorId(7), Thumbprint("t"), outbox, address=address, punches=punches)

    def add_client(self, session: str = "s", address: str = CLIENT) -> ClientPeer:
        principal = Principal(ServiceAccountUuid("a"), ServiceKeyId("k"), SessionId(session))
        outbox: Any = Told()
        return ClientPeer(principal, Thumbprint("t"), outbox, address=address)

    def ask(self, client: ClientPeer | None = None, connector: ConnectorPeer | None = None, *, granted: bool = True) -> list[Any]:
        """Ask for a meeting; returns what the client was told."""
        client = client or self.client
        self.punching.ask(client, 7, connector or self.connector, lambda: granted)
        return told(client)

    def invitations(self, *where: ConnectorPeer) -> tuple[PunchInvitation, PunchInvitation]:
        """Ask for a meeting; returns the invitations of client and connector."""
        (mine,) = self.ask(None, *where)
        return mine, told(where[0] if where else self.connector)[-1]

    def see(self, invitation: PunchInvitation, address: str, times: int = ENDPOINTS, connect_ms: float = 0.0) -> None:
        for number in range(times):
            self.punching.reflect(Reflection(invitation.token, connect_ms), address, 40_000 + number, CONTROLLER)


def told(peer: ClientPeer | ConnectorPeer) -> list[Any]:
    """Take what a peer was told."""
    outbox: Any = peer.outbox
    messages, outbox.messages = outbox.messages, []
    return messages


@pytest.fixture
def meetings() -> Meetings:
    return Meetings()


def test_both_sides_are_told_where_the_other_was_seen(meetings: Meetings) -> None:
    mine, its = meetings.invitations()
    assert mine.id == its.id
    assert mine.token != its.token
    meetings.see(mine, CLIENT)
    assert told(meetings.client) == told(meetings.connector) == []
    meetings.see(its, CONNECTOR)
    assert told(meetings.client) == [PunchStart(id=mine.id, peers=[f"{CONNECTOR}:{port}" for port in range(40_000, 40_004)])]
    assert told(meetings.connector) == [PunchStart(id=mine.id, peers=[f"{CLIENT}:{port}" for port in range(40_000, 40_004)])]
    assert meetings.outcomes == ["asked", "started"]


def test_the_nearer_side_waits_for_the_other(meetings: Meetings) -> None:
    mine, its = meetings.invitations()
    meetings.see(mine, CLIENT, connect_ms=20.0)
    meetings.see(its, CONNECTOR, connect_ms=120.0)
    assert told(meetings.client)[0].in_ms == 50
    assert told(meetings.connector)[0].in_ms == 0


@pytest.mark.parametrize("lie", [1e300, -1e300])
def test_no_lie_about_a_distance_puts_a_start_off_for_long(meetings: Meetings, lie: float) -> None:
    mine, its = meetings.invitations()
    meetings.see(mine, CLIENT, connect_ms=lie)
    meetings.see(its, CONNECTOR)
    assert 0 <= told(meetings.connector)[0].in_ms <= punching.MAX_START_MS
    assert 0 <= told(meetings.client)[0].in_ms <= punching.MAX_START_MS


def test_a_token_does_not_count_from_another_address(meetings: Meetings) -> None:
    mine, its = meetings.invitations()
    for address in ("8.8.4.4", CONNECTOR, "", "testclient"):
        with pytest.raises(Forbidden):
            meetings.see(mine, address)
    meetings.see(its, CONNECTOR)
    assert told(meetings.connector) == []


def test_a_token_counts_as_often_as_there_are_ports_and_no_more(meetings: Meetings) -> None:
    mine, its = meetings.invitations()
    meetings.see(mine, CLIENT)
    with pytest.raises(Forbidden):
        meetings.see(mine, CLIENT, 1)
    meetings.see(its, CONNECTOR)
    with pytest.raises(Forbidden):
        meetings.see(mine, CLIENT, 1)


def test_whoever_comes_to_a_meeting_that_is_over_hears_why_for_a_while(meetings: Meetings) -> None:
    meetings.client = meetings.add_client(address="127.0.0.1")
    mine, its = meetings.invitations()
    for _ in range(2):  # the first one ends it, and those beside it say the same
        with pytest.raises(Forbidden, match=r"127\.0\.0\.1 is in a special range"):
            meetings.see(mine, "127.0.0.1", 1)
    with pytest.raises(Forbidden, match="over: the client cannot be met") as told_there:
        meetings.see(its, CONNECTOR, 1)
    assert "127.0.0.1" not in told_there.value.message
    meetings.now += punching.MEETING_SECONDS
    with pytest.raises(Forbidden, match="long over"):
        meetings.see(mine, "127.0.0.1", 1)


def test_of_a_meeting_that_took_too_long_it_is_told_who_did_not_come(meetings: Meetings) -> None:
    mine, its = meetings.invitations()
    meetings.see(mine, CLIENT)
    meetings.see(its, CONNECTOR, 1)
    meetings.now += punching.MEETING_SECONDS
    with pytest.raises(Forbidden, match=r"in 10 s there did not come: the connector \(1 of 4 connections seen\)$"):
        meetings.see(its, CONNECTOR, 1)


def test_a_meeting_that_has_begun_needs_nobody_else(meetings: Meetings) -> None:
    mine, its = meetings.invitations()
    meetings.see(mine, CLIENT)
    meetings.see(its, CONNECTOR)
    with pytest.raises(Forbidden, match="it has begun"):
        meetings.see(mine, CLIENT, 1)


def test_reasons_of_no_more_meetings_are_kept_than_there_may_be(meetings: Meetings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(punching, "MAX_MEETINGS", 2)
    for number in range(5):
        meetings.client = meetings.add_client(f"s{number}")
        mine, its = meetings.invitations()
        meetings.see(mine, CLIENT)
        meetings.see(its, CONNECTOR)
    assert len(meetings.punching._over) == 4


@pytest.mark.parametrize("token", ["", "guess", "\ud800"])
def test_a_token_nobody_was_given_is_refused(meetings: Meetings, token: str) -> None:
    meetings.invitations()
    with pytest.raises(Forbidden):
        meetings.punching.reflect(Reflection(token), CLIENT, 40_000, CONTROLLER)


@pytest.mark.parametrize(
    ("client", "port"), [("127.0.0.1", 40_000), ("169.254.169.254", 40_000), (CONTROLLER, 40_000), (CLIENT, 22)]
)
def test_nobody_is_led_to_services_special_ranges_or_the_controller(meetings: Meetings, client: str, port: int) -> None:
    meetings.client = meetings.add_client(address=client)
    mine, its = meetings.invitations()
    with pytest.raises(Forbidden):
        meetings.punching.reflect(Reflection(mine.token), client, port, CONTROLLER)
    (refused,) = told(meetings.client)
    assert isinstance(refused, PunchRefused)
    with pytest.raises(Forbidden):
        meetings.see(its, CONNECTOR)


@pytest.mark.parametrize(("client", "connector"), [("10.0.0.7", CONNECTOR), (CLIENT, "10.0.0.7"), (CLIENT, CLIENT)])
def test_nobody_is_led_from_outside_into_a_private_network_or_to_its_own_nat(client: str, connector: str) -> None:
    meetings = Meetings()
    meetings.client, meetings.connector = meetings.add_client(address=client), meetings.add_connector(connector)
    mine, its = meetings.invitations(meetings.connector)
    meetings.see(mine, client)
    meetings.see(its, connector)
    assert told(meetings.connector) == []
    assert [type(one) for one in told(meetings.client)] == [PunchRefused]


def test_without_a_grant_behind_the_connector_there_is_no_meeting(meetings: Meetings) -> None:
    (refused,) = meetings.ask(granted=False)
    assert isinstance(refused, PunchRefused)
    assert told(meetings.connector) == []
    assert meetings.outcomes == ["asked", "refused"]


def test_a_connector_that_takes_no_part_is_not_asked(meetings: Meetings) -> None:
    aside = meetings.add_connector(punches=False)
    assert [type(one) for one in meetings.ask(None, aside)] == [PunchRefused]
    assert told(aside) == []
    off = Meetings(enabled=False)
    assert [type(one) for one in off.ask()] == [PunchRefused]
    assert told(off.connector) == []


def test_a_session_and_a_connector_are_asked_for_in_measure(meetings: Meetings) -> None:
    answers = [type(meetings.ask()[0]) for _ in range(punching.SESSION_BURST + 1)]
    assert answers == [PunchInvitation] * punching.SESSION_BURST + [PunchRefused]
    left = punching.CONNECTOR_BURST - punching.SESSION_BURST
    others = [type(meetings.ask(meetings.add_client(f"s{number}"))[0]) for number in range(left + 1)]
    assert others == [PunchInvitation] * left + [PunchRefused]
    meetings.now += 1 / punching.SESSION_PER_SECOND
    assert [type(one) for one in meetings.ask()] == [PunchInvitation]


def test_meetings_end_after_a_while_and_there_are_not_too_many(meetings: Meetings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(punching, "MAX_MEETINGS", 1)
    mine, _ = meetings.invitations()
    assert [type(one) for one in meetings.ask()] == [PunchRefused]
    meetings.now += punching.MEETING_SECONDS
    with pytest.raises(Forbidden):
        meetings.see(mine, CLIENT)
    assert [type(one) for one in meetings.ask()] == [PunchInvitation]


# ---- over live channels


async def met(live: Running) -> tuple[Session, Session, Enrolled]:
    """Return a session that is granted something behind a connector, one that is not, and the connector."""
    office = await live.add_network()
    resource = await live.add_resource(office)
    granted = await live.log_in((await live.add_key(await live.add_account("ci", [resource])))[1])
    other = await live.log_in((await live.add_key(await live.add_account("other")))[1])
    return granted, other, await live.enrol(await live.connector_tokens(await live.add_connector(office)))


async def test_clients_hear_which_connectors_take_part_and_only_who_is_granted_meets_them(live: Running) -> None:
    granted, other, connector = await met(live)
    async with live.attached(connector) as its, live.attached(granted) as mine, live.attached(other) as stranger:
        await its.send(control.Heartbeat(sequence=1, time_ms=1, punches=True))
        while not (await mine.wait_for(control.ClientConfiguration)).connectors[0].punches:
            pass
        await stranger.send(control.Punch(connector=connector.id))
        assert "granted" in (await stranger.wait_for(PunchRefused)).message
        await mine.send(control.Punch(connector=connector.id))
        invitation = await mine.wait_for(PunchInvitation)
        assert (await its.wait_for(PunchInvitation)).id == invitation.id
        answer = await live.post(REFLECT_PATH, {"token": invitation.token}, source="8.8.8.8")
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        answer = await live.post(REFLECT_PATH, {"token": invitation.token}, source="127.0.0.1")
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
        assert "own machine" in (await mine.wait_for(PunchRefused)).message


async def test_a_connector_that_says_nothing_of_it_and_one_that_is_unknown_are_not_met(live: Running) -> None:
    granted, _, connector = await met(live)
    async with live.attached(connector), live.attached(granted) as mine:
        for id in (connector.id, 0, -1, 1 << 62):
            await mine.send(control.Punch(connector=id))
            assert (await mine.wait_for(PunchRefused)).connector == id


async def test_a_connector_does_not_ask(live: Running) -> None:
    _, _, connector = await met(live)
    async with live.attached(connector) as its:
        await its.take(control.ConnectorConfiguration)
        await its.send(control.Punch(connector=connector.id))
        assert await its.closed() == 1008
