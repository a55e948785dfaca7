"""Who is admitted, whose hello counts, who is joined with whom, and every limit of a relay."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.errors import InvalidToken, ProtocolError
from klinket.relay.core import Paired, Refused, RelayCore
from klinket.relay.limits import RelayLimits
from klinket.wire.relay import COUNTER_WINDOW, HELLO_BYTES, KEY_BYTES, RelayAnswer, RelayError, RelayHello, RelayRole
from klinket.wire.signing import KeySet, SigningKey, sign
from klinket.wire.ticket import TYP, TicketRole
from tests.unit.relay.conftest import KEY, NETWORK, NOW, MakeRelay, Peer, Relay, random_bytes, ticket

CLIENT, CONNECTOR = 1, 2


def refused(peer: int, answer: RelayAnswer) -> list[Refused]:
    return [Refused(peer, answer)]


# ---- admission


def test_a_valid_ticket_is_answered_with_a_key_of_its_own(relay: Relay) -> None:
    one, two = relay.core.admit(ticket(), NOW), relay.core.admit(ticket(), NOW)
    assert len(one.key) == KEY_BYTES
    assert one.id != two.id
    assert one.key != two.key
    assert one.expires_at == NOW + 600


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: ticket(network="evil"), "somebody else"),
        (lambda: ticket(relay=5), "audience"),
        (lambda: ticket(now=NOW - 700), "expired"),
        (lambda: ticket(now=NOW + 60), "future"),
        (lambda: ticket(lifetime=25 * 3600), "longer"),
        (lambda: ticket(key=SigningKey.generate("tickets-2")), "not known here"),
        (lambda: ticket(key=SigningKey.generate(KEY.kid)), "signature"),
        (lambda: ticket(TicketRole.CONNECTOR, (7, 8)), "itself only"),
        (lambda: ticket(TicketRole.CONNECTOR, ()), "itself only"),
        (lambda: ticket(connectors=tuple(range(1, 1026))), "connectors"),
        (lambda: sign(KEY, "klinket-grant+jwt", {"iss": NETWORK}), TYP.replace("+", r"\+")),
        (lambda: "", "not a signed token"),
        (lambda: "a.b.c", "not a signed token"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_any_other_ticket_is_refused(relay: Relay, make: Callable[[], str], reason: str) -> None:
    with pytest.raises(InvalidToken, match=reason):
        relay.core.admit(make(), NOW)


@given(st.text(max_size=300))
def test_arbitrary_text_is_no_ticket(text: str) -> None:
    with pytest.raises(InvalidToken):
        RelayCore(RelayLimits(), random_bytes()).admit(text, NOW)


def test_a_relay_that_was_not_told_who_it_is_admits_nobody() -> None:
    core = RelayCore(RelayLimits(), random_bytes())
    with pytest.raises(InvalidToken):
        core.admit(ticket(), NOW)


def test_the_number_of_admissions_is_limited_and_ended_ones_make_room(make_relay: MakeRelay) -> None:
    relay = make_relay(RelayLimits(max_admissions=2))
    relay.client(holder="a")
    relay.client(holder="b")
    with pytest.raises(RelayError) as caught:
        relay.client(holder="c")
    assert caught.value.answer is RelayAnswer.LIMIT
    later = NOW + 601
    relay.core.admit(ticket(holder="c", now=later), later)


def test_a_holders_own_oldest_admission_gives_way_and_nobody_elses(make_relay: MakeRelay) -> None:
    relay = make_relay(RelayLimits(max_admissions_per_holder=2))
    other = relay.client(holder="other")
    first, second, third = (relay.client(holder="session-1") for _ in range(3))
    assert relay.core.hello(1, first.hello(), NOW) == refused(1, RelayAnswer.UNKNOWN_ADMISSION)
    for peer, admitted in ((2, second), (3, third), (4, other)):
        assert relay.core.hello(peer, admitted.hello(), NOW) == []


def test_a_ticket_is_taken_once_while_it_is_valid(relay: Relay) -> None:
    signed = ticket(lifetime=600)
    relay.core.admit(signed, NOW)
    for when in (NOW, NOW + 599):
        with pytest.raises(RelayError, match="before") as caught:
            relay.core.admit(signed, when)
        assert caught.value.answer is RelayAnswer.TICKET_REFUSED
    relay.core.admit(ticket(), NOW)
    later = NOW + 10_000
    relay.core.admit(ticket(now=later), later)
    assert len(relay.core._shown) == 1  # what has ended is forgotten


def test_no_holder_makes_the_relay_forget_the_tickets_of_others(make_relay: MakeRelay) -> None:
    relay = make_relay(RelayLimits(max_shown_tickets=8))
    mine = ticket(holder="victim")
    relay.core.admit(mine, NOW)
    with pytest.raises(RelayError) as caught:
        for _ in range(10):
            relay.core.admit(ticket(holder="hog"), NOW)
    assert caught.value.answer is RelayAnswer.LIMIT
    with pytest.raises(RelayError, match="before"):
        relay.core.admit(mine, NOW)
    relay.core.admit(ticket(holder="other"), NOW)


def test_pairs_are_shared_fairly_and_counted_until_they_end(make_relay: MakeRelay) -> None:
    relay = make_relay(RelayLimits(max_pairs=4, max_idle_per_connector=10))
    connector, hog, victim = relay.connector(), relay.client(holder="hog"), relay.client(holder="victim")
    for peer in range(10, 16):
        relay.core.hello(peer, connector.hello(), NOW)
    joined = [relay.core.hello(peer, hog.hello(), NOW)[0] for peer in (1, 2, 3)]
    assert [type(one) for one in joined] == [Paired, Paired, Refused]
    assert isinstance(relay.core.hello(4, victim.hello(), NOW)[0], Paired)
    assert isinstance(joined[0], Paired)
    relay.core.pair_ended(joined[0].holder)
    assert isinstance(relay.core.hello(5, hog.hello(), NOW)[0], Paired)


def test_a_client_that_waits_counts_as_a_pair_and_leaves_its_place_when_it_goes(make_relay: MakeRelay) -> None:
    relay = make_relay(RelayLimits(max_pairs=2, max_unfinished_per_ticket=1))
    client = relay.client()
    relay.core.hello(1, client.hello(), NOW)
    assert relay.core.pairs.total == 1
    relay.core.gone(1)
    relay.core.gone(1)
    assert relay.core.pairs.total == 0
    relay.core.hello(2, client.hello(), NOW)
    relay.core.deadline_reached(NOW + 60)
    assert relay.core.pairs.total == 0
    relay.core.hello(3, client.hello(), NOW)
    assert isinstance(relay.core.hello(4, relay.connector().hello(), NOW)[0], Paired)
    assert relay.core.pairs.total == 1


def test_a_draining_relay_admits_and_joins_nobody(relay: Relay) -> None:
    client = relay.client()
    relay.core.draining = True
    with pytest.raises(RelayError) as caught:
        relay.client()
    assert caught.value.answer is RelayAnswer.DRAINING
    assert relay.core.hello(1, client.hello(), NOW) == refused(1, RelayAnswer.DRAINING)


# ---- hellos


def test_a_hello_without_an_admission_is_refused(relay: Relay) -> None:
    stranger = RelayHello(RelayRole.CLIENT, os.urandom(16), 1, 7).sign(os.urandom(32))
    assert relay.core.hello(1, stranger, NOW) == refused(1, RelayAnswer.UNKNOWN_ADMISSION)
    assert relay.core.waiting == 0


@pytest.mark.parametrize("position", [0, 1, 18, 25, 26, 33, 34, HELLO_BYTES - 1])
def test_a_hello_altered_anywhere_is_refused(relay: Relay, position: int) -> None:
    relay.core.hello(CONNECTOR, relay.connector().hello(), NOW)
    altered = bytearray(relay.client().hello())
    altered[position] ^= 1
    with pytest.raises(ProtocolError):
        relay.core.hello(CLIENT, bytes(altered), NOW)
    assert relay.core.waiting == 1


def test_a_hello_signed_with_another_key_is_refused(relay: Relay) -> None:
    client, other = relay.client(), relay.client(holder="other")
    forged = RelayHello(RelayRole.CLIENT, client.admission.id, 1, 7).sign(other.admission.key)
    with pytest.raises(ProtocolError):
        relay.core.hello(1, forged, NOW)
    # and it has not used up the counter
    assert relay.core.hello(1, client.hello(counter=1), NOW) == []


@given(st.binary(max_size=2 * HELLO_BYTES))
def test_arbitrary_bytes_are_no_hello(data: bytes) -> None:
    core = RelayCore(RelayLimits(), random_bytes())
    try:
        assert core.hello(1, data, NOW) == refused(1, RelayAnswer.UNKNOWN_ADMISSION)
        assert len(data) == HELLO_BYTES
    except ProtocolError:
        pass
    assert core.waiting == 0


@pytest.mark.parametrize("role", list(RelayRole))
def test_the_roles_cannot_be_swapped(relay: Relay, role: RelayRole) -> None:
    peer = relay.client() if role is RelayRole.CONNECTOR else relay.connector()
    assert relay.core.hello(1, peer.hello(role=role), NOW) == refused(1, RelayAnswer.NOT_ALLOWED)


def test_a_client_meets_only_the_connectors_its_ticket_names(relay: Relay) -> None:
    relay.core.hello(CONNECTOR, relay.connector(8).hello(8), NOW)
    assert relay.core.hello(CLIENT, relay.client(7).hello(8), NOW) == refused(CLIENT, RelayAnswer.NOT_ALLOWED)
    assert relay.core.hello(CLIENT, relay.client(7, 8).hello(8), NOW) == [Paired(CLIENT, CONNECTOR)]


def test_a_connector_cannot_wait_as_another(relay: Relay) -> None:
    assert relay.core.hello(1, relay.connector(7).hello(8), NOW) == refused(1, RelayAnswer.NOT_ALLOWED)


def test_an_admission_ends_with_its_ticket(relay: Relay) -> None:
    client = relay.client()
    assert relay.core.hello(1, client.hello(), NOW + 599) == []
    assert relay.core.hello(2, client.hello(), NOW + 600) == refused(2, RelayAnswer.EXPIRED)


def test_a_hello_counts_once(relay: Relay) -> None:
    client = relay.client()
    once = client.hello()
    assert relay.core.hello(1, once, NOW) == []
    relay.core.gone(1)
    assert relay.core.hello(2, once, NOW) == refused(2, RelayAnswer.REPLAYED)
    assert relay.core.hello(3, client.hello(), NOW) == []


def test_hellos_may_overtake_each_other_within_the_window(relay: Relay) -> None:
    client = relay.client()
    assert relay.core.hello(1, client.hello(counter=COUNTER_WINDOW), NOW) == []
    assert relay.core.hello(2, client.hello(counter=1), NOW) == []
    assert relay.core.hello(3, client.hello(counter=0), NOW) == refused(3, RelayAnswer.REPLAYED)
    assert relay.core.hello(4, client.hello(counter=1), NOW) == refused(4, RelayAnswer.REPLAYED)


@given(st.lists(st.integers(0, 6 * COUNTER_WINDOW), min_size=1, max_size=60))
def test_no_order_of_counters_lets_one_count_twice(counters: list[int]) -> None:
    limits = RelayLimits(max_unfinished_per_ticket=1000)
    core = RelayCore(limits, random_bytes())
    core.configure(4, NETWORK, KeySet({KEY.kid: KEY.public_key}).to_jwks())
    client = Peer(core.admit(_TICKET, NOW), RelayRole.CLIENT)
    seen: set[int] = set()
    # runs of neighbours make the table of seen counters shrink
    for number in [one + step for one in counters for step in range(0, 90, 30)]:
        if core.hello(number + len(seen) * 10_000, client.hello(counter=number), NOW) == []:
            assert number not in seen
            seen.add(number)
    assert seen


_TICKET = ticket()


def test_the_table_of_seen_counters_stays_small(relay: Relay) -> None:
    client = relay.client()
    for number in range(1, 5 * COUNTER_WINDOW):
        relay.core.hello(number, client.hello(), NOW)
        relay.core.gone(number)
    (admitted,) = relay.core._admitted.values()
    assert len(admitted.seen) <= 2 * COUNTER_WINDOW + 1
    for number in range(1, 5 * COUNTER_WINDOW, 97):
        assert relay.core.hello(0, client.hello(counter=number), NOW) == refused(0, RelayAnswer.REPLAYED)


# ---- pairing


def test_a_client_is_joined_with_a_waiting_connector(relay: Relay) -> None:
    assert relay.core.hello(CONNECTOR, relay.connector().hello(), NOW) == []
    assert relay.core.waiting == 1
    assert relay.core.hello(CLIENT, relay.client().hello(), NOW) == [Paired(CLIENT, CONNECTOR)]
    assert relay.core.waiting == 0


def test_a_client_that_came_first_is_joined_when_the_connector_comes(relay: Relay) -> None:
    client, connector = relay.client(), relay.connector()
    assert relay.core.hello(10, client.hello(), NOW) == []
    assert relay.core.hello(11, client.hello(), NOW) == []
    assert relay.core.hello(20, connector.hello(), NOW) == [Paired(10, 20)]
    assert relay.core.hello(21, connector.hello(), NOW) == [Paired(11, 21)]


def test_each_connection_is_joined_once(relay: Relay) -> None:
    client, connector = relay.client(), relay.connector()
    for peer in range(3):
        relay.core.hello(peer, connector.hello(), NOW)
    paired = [relay.core.hello(peer, client.hello(), NOW)[0] for peer in range(10, 13)]
    assert {one.connector for one in paired if isinstance(one, Paired)} == {0, 1, 2}
    assert relay.core.hello(13, client.hello(), NOW) == []


def test_nobody_is_joined_with_another_connector(relay: Relay) -> None:
    relay.core.hello(1, relay.connector(8).hello(8), NOW)
    assert relay.core.hello(2, relay.client(7, 8).hello(7), NOW) == []
    assert relay.core.hello(3, relay.connector(7).hello(7), NOW) == [Paired(2, 3)]
    assert relay.core.waiting == 1


def test_a_connection_that_is_gone_is_joined_with_nobody(relay: Relay) -> None:
    client, connector = relay.client(), relay.connector()
    relay.core.hello(1, connector.hello(), NOW)
    relay.core.gone(1)
    relay.core.gone(1)
    assert relay.core.hello(2, client.hello(), NOW) == []
    relay.core.gone(2)
    assert relay.core.hello(3, connector.hello(), NOW) == []
    assert relay.core.waiting == 1


# ---- limits and times


def test_idle_connections_of_a_connector_are_limited(make_relay: MakeRelay) -> None:
    relay = make_relay(RelayLimits(max_idle_per_connector=2))
    connector = relay.connector(7)
    assert [relay.core.hello(peer, connector.hello(), NOW) for peer in (1, 2)] == [[], []]
    assert relay.core.hello(3, connector.hello(), NOW) == refused(3, RelayAnswer.LIMIT)
    assert relay.core.hello(4, relay.connector(8).hello(8), NOW) == []
    relay.core.gone(1)
    assert relay.core.hello(5, connector.hello(), NOW) == []


def test_clients_that_wait_are_limited_per_ticket(make_relay: MakeRelay) -> None:
    relay = make_relay(RelayLimits(max_unfinished_per_ticket=2))
    client = relay.client(7, 8)
    assert [relay.core.hello(peer, client.hello(connector), NOW) for peer, connector in ((1, 7), (2, 8))] == [[], []]
    assert relay.core.hello(3, client.hello(), NOW) == refused(3, RelayAnswer.LIMIT)
    assert relay.core.hello(4, relay.client(holder="other").hello(), NOW) == []
    relay.core.gone(1)
    assert relay.core.hello(5, client.hello(), NOW) == []


def test_nobody_waits_for_ever(relay: Relay) -> None:
    assert relay.core.next_deadline() is None
    relay.core.hello(CLIENT, relay.client().hello(), NOW)
    relay.core.hello(CONNECTOR, relay.connector(8).hello(8), NOW)
    deadline = relay.core.next_deadline()
    assert deadline == NOW + relay.limits.pairing_seconds
    assert relay.core.deadline_reached(deadline - 0.01) == []
    assert relay.core.deadline_reached(deadline) == refused(CLIENT, RelayAnswer.NO_CONNECTOR)
    assert relay.core.next_deadline() == NOW + relay.limits.max_idle_seconds
    assert relay.core.deadline_reached(NOW + relay.limits.max_idle_seconds) == refused(CONNECTOR, RelayAnswer.EXPIRED)
    assert relay.core.waiting == 0


def test_a_place_that_was_waited_for_in_vain_is_free_again(make_relay: MakeRelay) -> None:
    relay = make_relay(RelayLimits(max_unfinished_per_ticket=1))
    client = relay.client()
    relay.core.hello(1, client.hello(), NOW)
    relay.core.deadline_reached(NOW + 60)
    assert relay.core.hello(2, client.hello(), NOW + 60) == []


# ---- accounts


def test_many_sessions_of_one_account_take_no_more_pairs_than_one_and_leave_others_theirs(make_relay: MakeRelay) -> None:
    relay = make_relay(RelayLimits(max_pairs=60, max_unfinished_per_ticket=60))
    peers = itertools.count(1)

    def waits(client: Peer) -> bool:
        return not relay.core.hello(next(peers), client.hello(), NOW)

    greedy = [relay.client(holder=f"session-{number}", account="one") for number in range(40)]
    taken = [sum(waits(client) for client in greedy) for _ in range(3)]
    assert sum(taken) == 30
    assert waits(relay.client(holder="other", account="two"))
    assert not waits(greedy[0])


def test_one_session_leaves_the_others_of_its_account_a_share(make_relay: MakeRelay) -> None:
    relay = make_relay(RelayLimits(max_pairs=60, max_unfinished_per_ticket=60))
    hog, other = relay.client(holder="hog", account="one"), relay.client(holder="other", account="one")
    assert sum(not relay.core.hello(peer, hog.hello(), NOW) for peer in range(60)) == 20
    assert sum(not relay.core.hello(peer, other.hello(), NOW) for peer in range(60, 120)) > 0


def test_many_sessions_of_one_account_take_half_of_the_admissions_and_free_them_with_their_tickets(
    make_relay: MakeRelay,
) -> None:
    relay = make_relay(RelayLimits(max_admissions=20))
    for number in range(10):
        relay.client(holder=f"session-{number}", account="one")
    with pytest.raises(RelayError, match="share of this relay's admissions"):
        relay.client(holder="session-10", account="one")
    relay.client(holder="other", account="two")
    later = NOW + 700
    for number in range(10):
        signed = ticket(holder=f"session-{number}", account="one", now=later)
        relay.core.admit(signed, later)


def test_a_ticket_that_is_refused_takes_no_place(make_relay: MakeRelay) -> None:
    relay = make_relay(RelayLimits(max_admissions=4))
    shown = ticket(account="one")
    relay.core.admit(shown, NOW)
    for _ in range(5):
        with pytest.raises(RelayError, match="shown before"):
            relay.core.admit(shown, NOW)
    relay.client(holder="session-2", account="one")
