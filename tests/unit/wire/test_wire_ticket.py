"""Relay tickets, beyond what holds for every token (test_wire_tokens)."""

from __future__ import annotations

import pytest

from klinket.domain.errors import InvalidToken
from klinket.wire import signing
from klinket.wire.relay import MAX_TICKET_BYTES
from klinket.wire.ticket import TicketClaims, TicketRole, sign_ticket, verify_ticket
from tests.unit.wire.conftest import NOW, forge, parts

KEY = signing.SigningKey.generate("ticket-1")
KEYS = signing.KeySet({KEY.kid: KEY.public_key})


def sign(role: TicketRole = TicketRole.CLIENT, connectors: tuple[int, ...] = (1, 2), lifetime: float = 3600) -> str:
    return sign_ticket(
        KEY,
        network="acme",
        role=role,
        holder="holder-1",
        relay=4,
        connectors=connectors,
        now=NOW,
        lifetime=lifetime,
        id="ticket-1",
    )


def verify(token: str, relay: int = 4, network: str = "acme") -> TicketClaims:
    return verify_ticket(token, KEYS, network=network, relay=relay, now=NOW)


def refuse(token: str, relay: int = 4, network: str = "acme") -> None:
    with pytest.raises(InvalidToken):
        verify(token, relay, network)


@pytest.mark.parametrize(
    ("role", "connectors"), [(TicketRole.CLIENT, (1, 2)), (TicketRole.CLIENT, ()), (TicketRole.CONNECTOR, (7,))]
)
def test_a_ticket_says_who_may_meet_whom(role: TicketRole, connectors: tuple[int, ...]) -> None:
    assert verify(sign(role, connectors)) == TicketClaims(role, "holder-1", 4, connectors, NOW + 3600, "ticket-1")


def test_a_ticket_is_for_one_relay_of_one_network() -> None:
    refuse(sign(), relay=5)
    refuse(sign(), relay=44)
    refuse(sign(), network="other")


@pytest.mark.parametrize("connectors", [(), (1, 2)])
def test_a_connector_speaks_for_itself_only(connectors: tuple[int, ...]) -> None:
    refuse(sign(TicketRole.CONNECTOR, connectors))


@pytest.mark.parametrize("role", [None, "", "CLIENT", "relay", 1, [], {}])
def test_another_role_is_refused(role: object) -> None:
    header, claims, _ = parts(sign())
    refuse(forge(KEY.private_key, header, {**claims, "role": role}))


@pytest.mark.parametrize("connectors", [None, 1, "1", ["1"], [1.0], [True], [None], {"1": 1}, list(range(1025))])
def test_other_connectors_are_refused(connectors: object) -> None:
    header, claims, _ = parts(sign())
    refuse(forge(KEY.private_key, header, {**claims, "connectors": connectors}))


def test_a_ticket_for_the_most_connectors_fits_what_a_relay_reads() -> None:
    most = tuple(range(10**7, 10**7 + 1024))
    token = sign(connectors=most)
    assert len(token) <= MAX_TICKET_BYTES
    assert verify(token).connectors == most


def test_a_day_is_the_longest_life() -> None:
    assert verify(sign(lifetime=86_400)).expires_at == NOW + 86_400
    refuse(sign(lifetime=86_402))
