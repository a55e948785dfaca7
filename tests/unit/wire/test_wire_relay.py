"""What crosses between a relay and its peers: hellos with counter and HMAC, admissions, reports (security.md 18)."""

from __future__ import annotations

import hmac
import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.errors import ProtocolError
from klinket.wire import relay
from klinket.wire.relay import Admission, RelayAnswer, RelayConfiguration, RelayError, RelayHello, RelayReport, RelayRole
from tests.unit.wire.conftest import ANY_TEXT, JSON, MODERATE, hostile_json, messages

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
NUMBER = st.integers(0, 2**64 - 1)
HELLOS = st.builds(RelayHello, st.sampled_from(RelayRole), st.binary(min_size=16, max_size=16), NUMBER, NUMBER)
HELLO = RelayHello(RelayRole.CLIENT, b"a" * 16, 7, 3)


def accept(data: bytes, key: bytes = KEY) -> RelayHello:
    """Do what a relay does: read, look the key up, verify."""
    hello = RelayHello.unverified(data)
    hello.verify(data, key)
    return hello


def refuse(data: bytes, key: bytes = KEY) -> None:
    with pytest.raises(ProtocolError):
        accept(data, key)


def test_a_hello_has_the_bytes_of_the_format() -> None:
    head = bytes([1, 1]) + b"a" * 16 + struct.pack(">QQ", 7, 3)
    assert HELLO.sign(KEY) == head + hmac.digest(KEY, head, "sha256")
    assert len(HELLO.sign(KEY)) == relay.HELLO_BYTES == 66


@MODERATE
@given(HELLOS)
def test_a_hello_arrives_and_only_with_its_key(hello: RelayHello) -> None:
    assert accept(hello.sign(KEY)) == hello
    refuse(hello.sign(KEY), OTHER_KEY)
    refuse(hello.sign(OTHER_KEY))


def test_any_flipped_bit_of_a_hello_is_refused() -> None:
    """So neither role, nor counter, nor the connector asked for can be changed on the way."""
    data = HELLO.sign(KEY)
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        refuse(bytes(damaged))


@MODERATE
@given(HELLOS, HELLOS)
def test_a_signature_of_one_hello_is_none_of_another(one: RelayHello, other: RelayHello) -> None:
    if one != other:
        refuse(one.sign(KEY)[:-32] + other.sign(KEY)[-32:])


@pytest.mark.parametrize(("version", "role"), [(0, 1), (2, 1), (22, 1), (1, 0), (1, 3), (1, 255)])
def test_another_version_or_role_is_refused_though_it_is_signed(version: int, role: int) -> None:
    head = bytes([version, role]) + HELLO.sign(KEY)[2:-32]
    refuse(head + hmac.digest(KEY, head, "sha256"))


def test_a_hello_of_another_length_is_refused() -> None:
    data = HELLO.sign(KEY)
    for end in range(len(data)):
        refuse(data[:end])
    refuse(data + b"\0")


@MODERATE
@given(st.binary(max_size=70) | st.binary(min_size=64, max_size=64).map(lambda rest: b"\x01\x01" + rest))
def test_arbitrary_bytes_are_no_hello(data: bytes) -> None:
    refuse(data)


def test_a_hello_can_be_told_from_a_tls_handshake() -> None:
    assert HELLO.sign(KEY)[0] == relay.VERSION != relay.TLS_HANDSHAKE == 22


@MODERATE
@given(st.binary(min_size=16, max_size=16), st.binary(min_size=32, max_size=32), st.integers(0, 2**50))
def test_an_admission_arrives(id: bytes, key: bytes, expires_ms: int) -> None:
    data = Admission(id, key, expires_ms / 1000).encode()
    assert len(data) == relay.ADMITTED_BYTES
    admission = relay.parse_admission(data)
    assert (admission.id, admission.key) == (id, key)
    assert admission.expires_at == pytest.approx(expires_ms / 1000, abs=0.0011)


@MODERATE
@given(st.binary(max_size=70) | st.binary(min_size=56, max_size=56).map(lambda rest: b"\x01" + rest))
def test_arbitrary_bytes_are_an_admission_or_refused(data: bytes) -> None:
    if len(data) == relay.ADMITTED_BYTES and data[0] == RelayAnswer.PAIRED:
        assert relay.parse_admission(data).id == data[1:17]
    else:
        with pytest.raises(ProtocolError):
            relay.parse_admission(data)


@pytest.mark.parametrize("answer", [answer for answer in RelayAnswer if answer is not RelayAnswer.PAIRED])
def test_a_refusal_is_no_admission(answer: RelayAnswer) -> None:
    data = Admission(b"i" * 16, KEY, 5).encode()
    with pytest.raises(ProtocolError):
        relay.parse_admission(bytes([answer]) + data[1:])
    assert answer.name.lower().replace("_", "-") in RelayError(answer).message


def test_the_key_of_an_admission_is_not_shown() -> None:
    assert "kkkk" not in repr(Admission(b"i" * 16, KEY, 5))


def test_a_ticket_is_framed_by_its_length() -> None:
    assert relay.encode_ticket("abc") == b"\0\x03abc"
    assert relay.encode_ticket("x" * relay.MAX_TICKET_BYTES)[:2] == b"\x40\0"


@MODERATE
@given(messages(RelayReport), messages(RelayConfiguration))
def test_messages_arrive_in_their_direction_only(report: RelayReport, configuration: RelayConfiguration) -> None:
    assert relay.decode_report(relay.encode(report)) == report
    assert relay.decode_configuration(relay.encode(configuration)) == configuration
    with pytest.raises(ProtocolError):
        relay.decode_report(relay.encode(configuration))
    with pytest.raises(ProtocolError):
        relay.decode_configuration(relay.encode(report))


@MODERATE
@given(hostile_json(["relay-report", "relay-configuration"]) | ANY_TEXT)
def test_arbitrary_input_is_refused(data: str | bytes) -> None:
    for decode in (relay.decode_report, relay.decode_configuration):
        with pytest.raises(ProtocolError):
            decode(data)


@MODERATE
@given(messages(RelayConfiguration), st.sampled_from(["relay", "network", "ticket_keys", "time_ms"]), JSON)
def test_any_value_of_any_field_is_taken_or_refused(configuration: RelayConfiguration, name: str, junk: Any) -> None:
    document = {**json.loads(relay.encode(configuration)), name: junk}
    try:
        decoded = relay.decode_configuration(json.dumps(document))
    except ProtocolError:
        return
    assert relay.decode_configuration(relay.encode(decoded)) == decoded


def test_nesting_without_end_is_refused() -> None:
    text = '{"type":"relay-configuration","ticket_keys":' + '{"a":' * 100_000
    with pytest.raises(ProtocolError):
        relay.decode_configuration(text)
