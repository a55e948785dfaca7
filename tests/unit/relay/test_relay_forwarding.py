"""Which datagrams a relay forwards: those of the two proven addresses of one pair, and no others."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klinket.relay.core import Leg, Paired, RelayCore
from klinket.relay.forwarding import DatagramForwarding, End
from klinket.relay.limits import RelayLimits
from klinket.relay.traffic import Drop
from klinket.wire import relay_datagram as wire
from klinket.wire.relay import Admission, RelayHello
from klinket.wire.relay_datagram import NO_COOKIE, Bind
from klinket.wire.signing import KeySet
from tests.unit.relay.conftest import KEY, NETWORK, NOW, RELAY, Peer, Relay, random_bytes

CLIENT, CONNECTOR, ELSEWHERE = ("192.0.2.1", 1000), ("192.0.2.2", 2000), ("192.0.2.9", 9000)
TO_CONNECTOR, TO_CLIENT = b"\0to-con", b"\0to-cli"
_PEERS = itertools.count(1)


@dataclass
class Ended:
    """One end, and what it binds with."""

    world: World
    peer: Peer
    leg: bytes
    own: bytes
    to: bytes
    number: int = 0

    def bind(self, cookie: bytes = NO_COOKIE, admission: Admission | None = None) -> bytes:
        self.number += 1
        used = admission or self.peer.admission
        return Bind(used.id, self.leg, self.own, self.to, self.number, cookie).sign(used.key)

    def prove(self, address: object, admission: Admission | None = None) -> None:
        """Bind an address as an end does: with the cookie that went there."""
        key = (admission or self.peer.admission).key
        answer = self.world.forwarding.asked(self.bind(admission=admission), address)
        assert answer is not None
        number, cookie = wire.read_answer(answer, key)
        assert number == self.number
        assert cookie is not None
        self.world.later(self.world.limits.bind_challenge_seconds)
        answer = self.world.forwarding.asked(self.bind(cookie, admission), address)
        assert answer is not None
        assert wire.read_answer(answer, key) == (self.number, None)


@dataclass
class World:
    """A relay's core and what it forwards; time passes as a test says."""

    limits: RelayLimits = field(default_factory=RelayLimits)
    now: float = NOW
    ticks: float = 1000.0

    def __post_init__(self) -> None:
        entropy = random_bytes()
        self.core = RelayCore(self.limits, entropy)
        self.core.configure(RELAY, NETWORK, KeySet({KEY.kid: KEY.public_key}).to_jwks())
        self.relay = Relay(self.core, self.limits)
        self.forwarding = DatagramForwarding(self.core, self.limits, entropy, lambda: self.now, lambda: self.ticks)

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.ticks += seconds

    def pair(self, client: Peer | None = None, connector: Peer | None = None) -> tuple[Ended, Ended]:
        """Join a client and a connector."""
        client, connector = client or self.relay.client(now=self.now), connector or self.relay.connector(now=self.now)
        names = []
        outputs = []
        for peer in (connector, client):
            hello = peer.hello()
            counter = RelayHello.unverified(hello).counter
            names.append(wire.leg_name(peer.admission.id, counter))
            outputs = self.core.hello(next(_PEERS), hello, self.now)
        (paired,) = outputs
        assert isinstance(paired, Paired)
        assert [leg.name for leg in paired.legs] == names[::-1]
        self.paired = paired
        self.forwarding.joined(paired.holder, paired.legs)
        return (
            Ended(self, client, names[1], TO_CLIENT, TO_CONNECTOR),
            Ended(self, connector, names[0], TO_CONNECTOR, TO_CLIENT),
        )

    def bound(self) -> tuple[Ended, Ended]:
        """Join two whose addresses are bound."""
        client, connector = self.pair()
        client.prove(CLIENT)
        connector.prove(CONNECTOR)
        return client, connector

    def leads(self, address: object, receiver: bytes) -> object:
        """Return where a sealed datagram from an address would go; None: nowhere."""
        sender = self.forwarding.senders.get((address, receiver))
        return None if sender is None else sender.peer.address

    def dropped(self, reason: Drop) -> int:
        return self.forwarding.counts.dropped[reason]


@pytest.fixture
def world() -> World:
    return World()


def ends(world: World) -> Iterator[End]:
    return iter(world.forwarding.senders.values())


def test_datagrams_go_between_the_two_proven_addresses_of_a_pair_and_nowhere_else(world: World) -> None:
    world.bound()
    assert world.leads(CLIENT, TO_CONNECTOR) == CONNECTOR
    assert world.leads(CONNECTOR, TO_CLIENT) == CLIENT
    for address in (CLIENT, CONNECTOR, ELSEWHERE):
        for receiver in (TO_CLIENT, TO_CONNECTOR, b"\0other!"):
            if (address, receiver) not in ((CLIENT, TO_CONNECTOR), (CONNECTOR, TO_CLIENT)):
                assert world.leads(address, receiver) is None


def test_nothing_goes_to_an_end_that_has_not_proven_its_address(world: World) -> None:
    client, connector = world.pair()
    client.prove(CLIENT)
    assert world.leads(CLIENT, TO_CONNECTOR) is None
    answer = world.forwarding.asked(connector.bind(), CONNECTOR)
    assert answer is not None
    assert answer[0] == wire.BIND_CHALLENGE
    assert world.leads(CLIENT, TO_CONNECTOR) is None, "asked is not proven"


def test_ends_are_made_for_pairs_that_datagrams_are_asked_for_and_go_with_them(world: World) -> None:
    client, connector = world.pair()
    forged = Bind.unverified(client.bind()).sign(b"k" * 32)
    assert world.forwarding.asked(forged, CLIENT) is None
    assert world.forwarding._ends == {}
    client.prove(CLIENT)
    assert set(world.forwarding._ends) == {client.leg, connector.leg}
    world.forwarding.parted(world.paired.legs)
    assert world.forwarding._ends == world.forwarding._joined == {}


def test_a_stranger_gets_no_answer(world: World) -> None:
    client, _ = world.pair()
    good = Bind.unverified(client.bind())
    other = world.relay.client(holder="session-2")
    for data in (
        b"",
        b"\x21",
        bytes(111),
        replace(good, admission=b"x" * 16).sign(b"k" * 32),
        replace(good, leg=b"x" * 24).sign(client.peer.admission.key),
        good.sign(b"k" * 32),
        good.sign(other.admission.key),
        replace(good, admission=other.admission.id).sign(other.admission.key),
    ):
        assert world.forwarding.asked(data, CLIENT) is None
    assert world.forwarding.bound == world.forwarding.counts.challenges == 0
    assert world.dropped(Drop.UNKNOWN) + world.dropped(Drop.REFUSED) == 8


@settings(max_examples=200)
@given(st.binary(max_size=130))
def test_arbitrary_bytes_get_no_answer(data: bytes) -> None:
    world = World()
    world.pair()
    assert world.forwarding.asked(data, ELSEWHERE) is None


def test_an_answer_is_shorter_than_what_led_to_it_and_challenges_are_rare(world: World) -> None:
    client, _ = world.pair()
    answers = [world.forwarding.asked(client.bind(), ELSEWHERE) for _ in range(50)]
    assert [one is not None for one in answers] == [True] + [False] * 49
    assert all(one is None or len(one) < wire.BIND_BYTES for one in answers)
    world.later(world.limits.bind_challenge_seconds)
    assert world.forwarding.asked(client.bind(), CLIENT) is not None


def test_a_cookie_that_went_to_one_address_proves_no_other(world: World) -> None:
    client, _ = world.pair()
    answer = world.forwarding.asked(client.bind(), CLIENT)
    assert answer is not None
    _, cookie = wire.read_answer(answer, client.peer.admission.key)
    assert cookie is not None
    world.later(1)
    again = world.forwarding.asked(client.bind(cookie), ELSEWHERE)
    assert again is not None
    assert again[0] == wire.BIND_CHALLENGE
    assert world.forwarding.bound == 0


def test_a_cookie_counts_for_a_while_only(world: World) -> None:
    client, _ = world.pair()
    answer = world.forwarding.asked(client.bind(), CLIENT)
    assert answer is not None
    _, cookie = wire.read_answer(answer, client.peer.admission.key)
    assert cookie is not None
    world.later(2 * world.limits.cookie_seconds)
    late = world.forwarding.asked(client.bind(cookie), CLIENT)
    assert late is not None
    assert late[0] == wire.BIND_CHALLENGE


def test_a_cookie_of_one_end_is_none_for_another(world: World) -> None:
    client, connector = world.pair()
    answer = world.forwarding.asked(client.bind(), CLIENT)
    assert answer is not None
    _, cookie = wire.read_answer(answer, client.peer.admission.key)
    assert cookie is not None
    swapped = world.forwarding.asked(connector.bind(cookie), CLIENT)
    assert swapped is not None
    assert swapped[0] == wire.BIND_CHALLENGE


def test_a_bind_that_comes_again_moves_nothing(world: World) -> None:
    client, _ = world.pair()
    recorded = [client.bind()]
    answer = world.forwarding.asked(recorded[0], CLIENT)
    assert answer is not None
    _, cookie = wire.read_answer(answer, client.peer.admission.key)
    assert cookie is not None
    recorded.append(client.bind(cookie))
    assert world.forwarding.asked(recorded[1], CLIENT) is not None
    world.later(1)
    client.prove(ELSEWHERE)
    world.later(1)
    for data in recorded:
        for address in (CLIENT, CONNECTOR):
            assert world.forwarding.asked(data, address) is None, "from its own address as from another's"
    assert world.dropped(Drop.REPLAYED) == 4
    assert {end.address for end in ends(world)} == {ELSEWHERE}


def test_an_end_binds_its_own_leg_only(world: World) -> None:
    """Neither the other end's, nor that of another session or connector; also with its own good admission."""
    client, connector = world.pair()
    other_client, _ = world.pair(world.relay.client(holder="session-2"), world.relay.connector())
    for thief in (connector.peer, other_client.peer):
        stolen = Bind(thief.admission.id, client.leg, client.own, client.to, 1).sign(thief.admission.key)
        assert world.forwarding.asked(stolen, ELSEWHERE) is None
    stolen = Bind(client.peer.admission.id, connector.leg, connector.own, connector.to, 1).sign(client.peer.admission.key)
    assert world.forwarding.asked(stolen, ELSEWHERE) is None
    assert world.dropped(Drop.REFUSED) == 3


def test_an_address_that_moves_is_proven_anew_and_the_former_stays_until_then(world: World) -> None:
    client, _ = world.bound()
    world.later(1)
    answer = world.forwarding.asked(client.bind(), ELSEWHERE)
    assert answer is not None
    assert answer[0] == wire.BIND_CHALLENGE
    assert world.leads(CONNECTOR, TO_CLIENT) == CLIENT
    world.later(1)
    client.prove(ELSEWHERE)
    assert world.leads(CONNECTOR, TO_CLIENT) == ELSEWHERE
    assert world.leads(CLIENT, TO_CONNECTOR) is None
    assert world.leads(ELSEWHERE, TO_CONNECTOR) == CONNECTOR
    assert world.forwarding.bound == 2


def test_an_address_that_an_end_has_left_is_bound_no_longer_than_its_cookie_allows(world: World) -> None:
    """It can still write that address on what it sends, but not read there any more."""
    client, _ = world.pair()
    world.forwarding.asked(client.bind(), CLIENT)
    world.later(1)
    answer = world.forwarding.asked(client.bind(), CLIENT)
    assert answer is not None
    _, cookie = wire.read_answer(answer, client.peer.admission.key)
    assert cookie is not None
    assert world.forwarding.asked(client.bind(cookie), CLIENT) is not None
    most = 2 * world.limits.cookie_seconds + world.limits.binding_seconds
    for _ in range(int(most)):
        world.later(1)
        for told in (cookie, NO_COOKIE):
            world.forwarding.asked(client.bind(told), CLIENT)
        world.forwarding.end_stale()
    assert world.forwarding.bound == 0


def test_an_end_may_name_another_receiver_of_its_peer(world: World) -> None:
    client, _ = world.bound()
    client.to = b"\0newer!"
    world.later(1)
    client.prove(CLIENT)
    assert world.leads(CLIENT, TO_CONNECTOR) is None
    assert world.leads(CLIENT, b"\0newer!") == CONNECTOR


def test_the_end_of_a_pair_ends_its_bindings(world: World) -> None:
    client, _ = world.bound()
    world.forwarding.parted(world.paired.legs)
    assert world.forwarding.bound == 0
    assert world.leads(CLIENT, TO_CONNECTOR) is world.leads(CONNECTOR, TO_CLIENT) is None
    assert world.forwarding.asked(client.bind(), CLIENT) is None
    world.forwarding.parted(world.paired.legs)


def test_a_binding_ends_without_binds_and_stays_with_them(world: World) -> None:
    client, _ = world.bound()
    world.later(world.limits.binding_seconds - 1)
    client.prove(CLIENT)
    world.forwarding.end_stale()
    assert world.forwarding.bound == 2
    world.later(1)
    world.forwarding.end_stale()
    assert [end.address for end in ends(world)] == [CLIENT]
    assert world.leads(CLIENT, TO_CONNECTOR) is None


def test_a_binding_ends_with_its_admission_and_goes_on_with_a_newer_one_of_the_same_holder(world: World) -> None:
    client, connector = world.bound()
    world.later(590)
    fresh = world.relay.client(now=world.now)
    client.prove(CLIENT, fresh.admission)
    connector.prove(CONNECTOR)
    world.later(11)
    world.forwarding.end_stale()
    assert [end.address for end in ends(world)] == [CLIENT]
    assert world.forwarding.asked(connector.bind(), CONNECTOR) is None, "the admission is over"
    client.prove(CLIENT, fresh.admission)


def test_two_legs_do_not_share_a_way(world: World) -> None:
    """One socket of a connector serves many clients: of two paths that it names alike, the first has the way."""
    world.bound()
    _, second = world.pair(world.relay.client(holder="session-2"), world.relay.connector())
    answer = world.forwarding.asked(second.bind(), CONNECTOR)
    assert answer is not None
    _, cookie = wire.read_answer(answer, second.peer.admission.key)
    assert cookie is not None
    assert world.forwarding.asked(second.bind(cookie), CONNECTOR) is None
    assert world.leads(CONNECTOR, TO_CLIENT) == CLIENT


def test_no_account_takes_all_there_is(world: World) -> None:
    world = World(RelayLimits(max_datagram_pairs=4))
    greedy, bound = world.relay.client(account="greedy"), 0
    for number in range(6):
        client, _ = world.pair(greedy, world.relay.connector())
        client.to = bytes((0, number)) * 3 + b"x"
        where = ("192.0.2.1", number)
        answer = world.forwarding.asked(client.bind(), where)
        assert answer is not None
        _, cookie = wire.read_answer(answer, greedy.admission.key)
        assert cookie is not None
        bound += world.forwarding.asked(client.bind(cookie), where) is not None
    assert 0 < bound < 4
    assert world.dropped(Drop.LIMIT) == 6 - bound
    honest, _ = world.pair(world.relay.client(holder="session-9", account="honest"), world.relay.connector())
    honest.prove(ELSEWHERE)


def test_places_are_free_again_when_pairs_end(world: World) -> None:
    world = World(RelayLimits(max_datagram_pairs=2))
    for _ in range(5):
        world.bound()
        world.forwarding.parted(world.paired.legs)
    assert world.forwarding.bound == world.forwarding._shares.total == 0
    world.bound()
    world.later(world.limits.binding_seconds)
    world.forwarding.end_stale()
    assert world.forwarding._shares.total == 0


def test_a_relay_that_stops_binds_nobody_new_and_goes_on_with_who_is_bound(world: World) -> None:
    client, _ = world.bound()
    late, _ = world.pair(world.relay.client(holder="session-2"), world.relay.connector())
    world.core.drain()
    client.prove(ELSEWHERE)
    answer = world.forwarding.asked(late.bind(), CLIENT)
    assert answer is not None
    _, cookie = wire.read_answer(answer, late.peer.admission.key)
    assert cookie is not None
    assert world.forwarding.asked(late.bind(cookie), CLIENT) is None


def test_a_leg_says_nothing_that_was_not_in_the_ticket(world: World) -> None:
    world.pair()
    client, connector = world.paired.legs
    assert isinstance(client, Leg)
    assert (client.holder, connector.holder) == ("session-1", "connector:7")
