"""Messages of a link's control pipe, and grants that take several frames."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.errors import ProtocolError
from klinket.domain.printable import printable
from klinket.wire import dns_answer, link_control
from klinket.wire.grant_token import MAX_GRANT_CHARS
from klinket.wire.link_control import MAX_PARTS, PART_CHARS, GrantParts, PresentGrant
from klinket.wire.pipe import MAX_CONTENT_BYTES
from tests.unit.wire.conftest import MODERATE, hostile_json, messages

FROM_CLIENT, FROM_CONNECTOR = get_args(link_control.FromClient), get_args(link_control.FromConnector)
TAGS = [kind.__struct_config__.tag for kind in FROM_CLIENT + FROM_CONNECTOR]


def test_every_message_has_a_sender() -> None:
    assert set(link_control.LinkMessage.__subclasses__()) == {*FROM_CLIENT, *FROM_CONNECTOR}
    assert len(set(TAGS)) == len(TAGS)


@MODERATE
@given(st.sampled_from(FROM_CLIENT + FROM_CONNECTOR).flatmap(messages))
def test_a_message_arrives_in_its_direction_only(message: Any) -> None:
    data = link_control.encode(message)
    right, wrong = link_control.decode_from_client, link_control.decode_from_connector
    if type(message) in FROM_CONNECTOR:
        right, wrong = wrong, right  # type: ignore[assignment]
    if isinstance(message, link_control.GrantRefused):
        message = link_control.GrantRefused(code=printable(message.code), message=printable(message.message))
    if isinstance(message, link_control.NameAnswer):
        message = msgspec.structs.replace(message, text=printable(message.text))
    assert right(data) == message
    with pytest.raises(ProtocolError):
        wrong(data)


@MODERATE
@given(hostile_json(TAGS))
def test_arbitrary_bytes_are_a_message_or_refused(data: bytes) -> None:
    for decode, kinds in ((link_control.decode_from_client, FROM_CLIENT), (link_control.decode_from_connector, FROM_CONNECTOR)):
        try:
            message = decode(data)
        except ProtocolError:
            continue
        assert type(message) in kinds


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000, b"\xff", b'{"type":"present-grant"}', b'{"type":"drain","type":1}'])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    for decode in (link_control.decode_from_client, link_control.decode_from_connector):
        with pytest.raises(ProtocolError):
            decode(data)


@pytest.mark.parametrize("size", [1, PART_CHARS - 1, PART_CHARS, PART_CHARS + 1, 3 * PART_CHARS + 5, MAX_GRANT_CHARS])
def test_a_grant_arrives_in_frames_that_fit(size: int) -> None:
    token = "".join(chr(ord("a") + number % 26) for number in range(size))
    parts, received = GrantParts(), []
    for message in link_control.present(token):
        data = link_control.encode(message)
        assert len(data) <= MAX_CONTENT_BYTES
        decoded = link_control.decode_from_client(data)
        assert isinstance(decoded, PresentGrant)
        received.append(parts.add(decoded))
    assert received[:-1] == [None] * (len(received) - 1)
    assert received[-1] == token


def test_one_grant_after_the_other_can_be_presented() -> None:
    parts = GrantParts()
    for token in ("first", "second"):
        assert [parts.add(message) for message in link_control.present(token)] == [token]


def part(number: int, of: int) -> PresentGrant:
    return PresentGrant(token="x", part=number, parts=of)


@pytest.mark.parametrize(
    "sequence",
    [
        [part(1, 2)],
        [part(0, 2), part(0, 2)],
        [part(0, 3), part(2, 3)],
        [part(0, 2), part(1, 1)],
        [part(0, 0)],
        [part(0, -1)],
        [part(-1, 1)],
        [part(1, 1)],
        [part(0, MAX_PARTS + 1)],
        [part(0, 10**12)],
    ],
)
def test_parts_out_of_order_are_refused(sequence: list[PresentGrant]) -> None:
    parts = GrantParts()
    for message in sequence[:-1]:
        assert parts.add(message) is None
    with pytest.raises(ProtocolError):
        parts.add(sequence[-1])


@MODERATE
@given(st.lists(st.tuples(st.integers(-2, 5), st.integers(-2, 5)), max_size=8))
def test_any_sequence_of_parts_gives_whole_tokens_or_is_refused(sequence: list[tuple[int, int]]) -> None:
    parts, since = GrantParts(), 0
    for number, of in sequence:
        try:
            token = parts.add(PresentGrant(token=str(number), part=number, parts=of))
        except ProtocolError:
            return
        since += 1
        if token is not None:
            assert token == "".join(str(one) for one in range(of))
            assert since == of
            since = 0


def test_a_missing_default_is_one_whole_part() -> None:
    message = link_control.decode_from_client(json.dumps({"type": "present-grant", "token": "x"}).encode())
    assert message == part(0, 1)


def test_what_a_connector_says_of_a_refusal_can_be_shown() -> None:
    sent = link_control.GrantRefused(code="not\x1b[2Jgranted", message="no\nINFO all is well\x07" + "x" * 1000)
    told = link_control.decode_from_connector(link_control.encode(sent))
    assert isinstance(told, link_control.GrantRefused)
    assert told.code == "not?[2Jgranted"
    assert told.message.startswith("no?INFO all is well?x")
    assert len(told.message) == 400


def test_an_answer_for_a_name_has_no_more_records_than_a_resolvers_and_can_be_shown() -> None:
    most = link_control.MAX_ANSWER_RECORDS
    sent = link_control.NameAnswer(id=1, code=2, records=[b""] * most, text="no\x1b[2J resolver")
    told = link_control.decode_from_connector(link_control.encode(sent))
    assert isinstance(told, link_control.NameAnswer)
    assert told.text == "no?[2J resolver"
    assert len(told.records) == most == dns_answer.MAX_RECORDS
    with pytest.raises(ProtocolError):
        link_control.decode_from_connector(link_control.encode(link_control.NameAnswer(id=1, code=0, records=[b""] * (most + 1))))


PATH_MESSAGES = (link_control.OpenDatagrams, link_control.DatagramsOpened)


@pytest.mark.parametrize("message", PATH_MESSAGES)
def test_a_datagram_path_has_its_lengths(message: type[link_control.OpenDatagrams]) -> None:
    assert message(receiver="01" * 7, random="02" * 32).path() == (b"\x01" * 7, b"\x02" * 32)
    for receiver, random in (
        ("01" * 6, "02" * 32),
        ("01" * 7, "02" * 33),
        ("0x" * 7, "02" * 32),
        ("", ""),
        ("01" * 7, "é" * 64),
        ("01" * 6 + "  ", "02" * 32),
    ):
        with pytest.raises(ProtocolError):
            message(receiver=receiver, random=random).path()


@given(st.text(), st.text())
def test_a_datagram_path_of_any_text_is_read_or_refused(receiver: str, random: str) -> None:
    try:
        one, other = link_control.OpenDatagrams(receiver=receiver, random=random).path()
    except ProtocolError:
        return
    assert (len(one), len(other)) == (7, 32)
