"""Binds at a relay's UDP port, and their answers: what is read, and everything that must not be."""

from __future__ import annotations

import hmac
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.errors import ProtocolError
from klinket.wire import datagram, relay
from klinket.wire import relay_datagram as wire
from klinket.wire.relay_datagram import Bind

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "relay-datagram.json").read_text())
KEY, OTHER = b"k" * 32, b"o" * 32
BIND = Bind(b"a" * 16, wire.leg_name(b"l" * 16, 3), b"\0own123", b"\0peer12", 9)
RECEIVERS = st.binary(min_size=7, max_size=7)
NUMBERS = st.integers(0, 2**64 - 1)
BINDS = st.builds(
    Bind,
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=24, max_size=24),
    RECEIVERS,
    RECEIVERS,
    NUMBERS,
    st.binary(min_size=16, max_size=16),
)
ANSWERS = (wire.challenge(KEY, BIND.own, 9, b"c" * 16), wire.bound(KEY, BIND.own, 9))


def test_the_exact_bytes_are_those_of_the_vectors() -> None:
    key = bytes.fromhex(VECTORS["key"])
    for one in VECTORS["binds"]:
        leg = wire.leg_name(bytes.fromhex(one["leg_admission"]), one["leg_counter"])
        fields = [bytes.fromhex(one[name]) for name in ("own", "to")]
        bind = Bind(bytes.fromhex(one["admission"]), leg, *fields, one["number"], bytes.fromhex(one["cookie"]))
        assert bind.sign(key).hex() == one["bytes"]
    for one in VECTORS["challenges"]:
        made = wire.challenge(key, bytes.fromhex(one["receiver"]), one["number"], bytes.fromhex(one["cookie"]))
        assert made.hex() == one["bytes"]
    for one in VECTORS["bounds"]:
        assert wire.bound(key, bytes.fromhex(one["receiver"]), one["number"]).hex() == one["bytes"]
    for one in VECTORS["admissions"]:
        admission = relay.parse_admission(bytes.fromhex(one["bytes"]))
        assert (admission.id.hex(), admission.datagram_port) == (one["id"], one["port"])
        assert admission.encode(one["protocol"]).hex() == one["bytes"]


@given(BINDS)
def test_a_bind_arrives_as_it_was_sent_and_verifies_with_its_key_alone(bind: Bind) -> None:
    data = bind.sign(KEY)
    assert len(data) == wire.BIND_BYTES == 111
    assert Bind.unverified(memoryview(data)) == bind
    wire.verify(memoryview(data), KEY)
    with pytest.raises(ProtocolError):
        wire.verify(data, OTHER)


@given(RECEIVERS, NUMBERS, st.binary(min_size=16, max_size=16))
def test_answers_arrive_as_they_were_sent(receiver: bytes, number: int, cookie: bytes) -> None:
    asked, done = wire.challenge(KEY, receiver, number, cookie), wire.bound(KEY, receiver, number)
    assert wire.read_answer(asked, KEY) == (number, cookie)
    assert wire.read_answer(memoryview(done), KEY) == (number, None)
    assert wire.receiver_of(asked) == wire.receiver_of(done) == receiver


@pytest.mark.parametrize("data", [BIND.sign(KEY), *ANSWERS])
def test_any_flipped_bit_and_any_cut_is_refused(data: bytes) -> None:
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ProtocolError):
            wire.verify(damaged, KEY)
    for end in range(len(data)):
        assert wire.receiver_of(data[:end]) is None
        with pytest.raises(ProtocolError):
            Bind.unverified(data[:end])
        with pytest.raises(ProtocolError):
            wire.read_answer(data[:end], KEY)


def test_no_message_is_taken_for_another_or_for_a_sealed_datagram() -> None:
    for message in (BIND.sign(KEY), *ANSWERS):
        assert datagram.receiver_of(message) is None
    for answer in ANSWERS:
        with pytest.raises(ProtocolError):
            Bind.unverified(answer)
    assert wire.receiver_of(BIND.sign(KEY)) is None
    hello = relay.RelayHello(relay.RelayRole.CLIENT, b"a" * 16, 9, 3).sign(KEY)
    assert hello[0] not in (wire.BIND, wire.BIND_CHALLENGE, wire.BOUND), "one key, told apart by the first byte"


def test_no_answer_is_as_long_as_the_bind_that_led_to_it() -> None:
    assert all(len(answer) < wire.BIND_BYTES for answer in ANSWERS)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_or_read_whole(data: bytes) -> None:
    try:
        bind = Bind.unverified(data)
    except ProtocolError:
        pass
    else:
        assert bind.sign(KEY)[: -wire.MAC_BYTES] == data[: -wire.MAC_BYTES]
    with pytest.raises(ProtocolError):
        wire.read_answer(data, KEY)


@given(st.binary(min_size=79, max_size=79))
def test_an_answer_is_bound_to_its_key(rest: bytes) -> None:
    for first, size in ((wire.BIND_CHALLENGE, wire.BIND_CHALLENGE_BYTES), (wire.BOUND, wire.BOUND_BYTES)):
        head = bytes((first,)) + rest[: size - wire.MAC_BYTES - 1]
        assert wire.read_answer(head + hmac.digest(KEY, head, "sha256"), KEY)
        with pytest.raises(ProtocolError):
            wire.read_answer(head + hmac.digest(OTHER, head, "sha256"), KEY)


def test_the_first_version_of_an_admission_says_nothing_of_a_port() -> None:
    admission = relay.Admission(b"a" * 16, b"k" * 32, 4e9, 8444)
    first, second = admission.encode(), admission.encode(relay.ADMISSION_PROTOCOL_2)
    assert (len(first), len(second)) == (relay.admitted_bytes("klinket-relay/1"), relay.admitted_bytes("klinket-relay/2"))
    assert relay.parse_admission(first).datagram_port == 0
    assert relay.parse_admission(second) == admission
    with pytest.raises(ProtocolError):
        relay.parse_admission(second[:-1])
