"""OPEN, OPENED and FAIL: what they hold and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.errors import ProtocolError
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.domain.identifiers import FlowId, ResourceId
from klinket.wire.pipe_messages import FAILURE_NUMBERS, MAX_MESSAGE_BYTES, OPEN_BYTES, Failure, OpenAnswer, OpenRequest
from tests.unit.wire.conftest import MODERATE

HOSTS = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.just("2001:db8::1"),
    st.from_regex(r"[a-z][a-z0-9]{0,20}(\.[a-z0-9_]{1,20}){0,4}", fullmatch=True),
    st.just(".".join(["a" * 62, "b" * 62, "c" * 62, "d" * 61])),
)
OPEN = OpenRequest(Destination("db.internal", 5432, TransportProtocol.TCP), ResourceId(42), FlowId("ab" * 16))
CONTENT = OPEN.encode()


@MODERATE
@given(
    HOSTS,
    st.integers(1, 65_535),
    st.sampled_from(TransportProtocol),
    st.integers(0, 2**64 - 1),
    st.binary(min_size=16, max_size=16),
    st.booleans(),
)
def test_an_open_arrives_and_tells_nothing_by_its_length(
    host: str, port: int, protocol: TransportProtocol, resource: int, flow: bytes, follows: bool
) -> None:
    port = 0 if protocol is TransportProtocol.ICMP else port
    request = OpenRequest(Destination(host, port, protocol), ResourceId(resource), FlowId(flow.hex()), follows)
    assert len(request.encode()) == OPEN_BYTES == 511
    assert OpenRequest.decode(request.encode()) == request


def refuse(content: bytes) -> None:
    with pytest.raises(ProtocolError):
        OpenRequest.decode(content)


def test_an_open_of_another_length_is_refused() -> None:
    for end in range(OPEN_BYTES):
        refuse(CONTENT[:end])
    refuse(CONTENT + b"\0")


@pytest.mark.parametrize(
    ("at", "values"),
    [
        (0, [0, 1, 5, 7, 255]),  # protocol
        (1, [2, 3, 128, 255]),  # flags
        (28, [0, 10, 12, 254, 255]),  # host length
    ],
)
def test_an_open_with_another_byte_is_refused(at: int, values: list[int]) -> None:
    for value in values:
        refuse(CONTENT[:at] + bytes([value]) + CONTENT[at + 1 :])


def test_an_open_without_port_is_refused() -> None:
    refuse(CONTENT[:2] + b"\0\0" + CONTENT[4:])


def test_an_open_of_icmp_has_no_port() -> None:
    opened = OpenRequest.decode(b"\x01\x00\x00\x00" + CONTENT[4:])
    assert opened.destination == Destination("db.internal", 0, TransportProtocol.ICMP)
    refuse(b"\x01" + CONTENT[1:])


def test_padding_that_could_carry_something_is_refused() -> None:
    for at in range(29 + len("db.internal"), OPEN_BYTES):
        refuse(CONTENT[:at] + b"\x01" + CONTENT[at + 1 :])


@pytest.mark.parametrize(
    "host",
    [
        "DB.internal",
        "db.internal.",
        "010.0.0.1",
        "[::1]",
        "::0001",
        "0x7f.1",
        "1.2.3",
        "a b",
        "*.a",
        "a/b",
        "a\0b",
        "é",
        "",
        "..",
    ],
)
def test_a_host_that_is_not_canonical_is_refused(host: str) -> None:
    encoded = host.encode("latin-1")
    refuse((CONTENT[:28] + bytes([len(encoded)]) + encoded).ljust(OPEN_BYTES, b"\0"))


@MODERATE
@given(
    st.binary(max_size=40)
    | st.binary(min_size=OPEN_BYTES, max_size=OPEN_BYTES)
    | st.builds(
        lambda head, host: (head + bytes([len(host)]) + host).ljust(OPEN_BYTES, b"\0"),
        st.builds(
            lambda first, rest: first + rest,
            st.sampled_from([b"\x06\x00", b"\x11\x01", b"\x01\x00"]),
            st.binary(min_size=26, max_size=26),
        ),
        st.binary(max_size=30) | HOSTS.map(str.encode),
    )
)
def test_arbitrary_bytes_are_an_open_in_its_one_form_or_refused(content: bytes) -> None:
    try:
        request = OpenRequest.decode(content)
    except ProtocolError:
        return
    assert request.encode() == content


def test_every_failure_has_a_number_and_none_has_moved() -> None:
    assert set(FAILURE_NUMBERS) == set(FlowFailure)
    assert len(set(FAILURE_NUMBERS.values())) == len(FlowFailure)
    assert [FAILURE_NUMBERS[failure] for failure in FlowFailure][:16] == [*range(1, 16), 0]
    assert FAILURE_NUMBERS[FlowFailure.ICMP_UNAVAILABLE] == 16


@MODERATE
@given(
    st.sampled_from(FlowFailure),
    st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zs", "Zl", "Zp", "Co", "Cn"]), max_size=90),
    st.none() | st.integers(1, 65_535).map(float),
)
def test_a_failure_arrives(failure: FlowFailure, message: str, retry_after: float | None) -> None:
    original = Failure(failure, message, retry_after)
    assert Failure.decode(original.encode()) == original


@pytest.mark.parametrize(("seconds", "arrives"), [(0.2, 1.0), (0.0, 1.0), (1.6, 2.0), (1e9, 65_535.0), (None, None)])
def test_a_wait_is_whole_seconds_and_never_lost(seconds: float | None, arrives: float | None) -> None:
    assert Failure.decode(Failure(FlowFailure.THROTTLED, "", seconds).encode()).retry_after == arrives


@pytest.mark.parametrize("message", ["x" * 1000, "é" * 300, "x" + "é" * 300, "€" * 200])
def test_a_long_message_is_cut_and_still_reads(message: str) -> None:
    content = Failure(FlowFailure.INTERNAL, message).encode()
    assert len(content) == 3 + MAX_MESSAGE_BYTES
    told = Failure.decode(content).message
    assert message.startswith(told.removesuffix("\N{REPLACEMENT CHARACTER}"))
    assert len(told) > 130


def test_a_message_cannot_steer_a_terminal_or_a_log() -> None:
    told = Failure.decode(Failure(FlowFailure.REFUSED, "a\x1b[31m\r\nERROR fake\u202e").encode()).message
    assert told == "a?[31m??ERROR fake?"


def test_a_failure_of_a_newer_peer_reads_as_internal() -> None:
    assert Failure.decode(b"\xc8\0\0new").failure is FlowFailure.INTERNAL


@MODERATE
@given(st.binary(max_size=420))
def test_arbitrary_bytes_are_a_failure_or_refused(content: bytes) -> None:
    if 3 <= len(content) <= 3 + MAX_MESSAGE_BYTES:
        assert Failure.decode(content).message.isprintable()
    else:
        with pytest.raises(ProtocolError):
            Failure.decode(content)


@pytest.mark.parametrize("size", [0, 1, 2, 404, 4096])
def test_a_failure_of_a_wrong_size_is_refused(size: int) -> None:
    with pytest.raises(ProtocolError):
        Failure.decode(bytes(size))


@pytest.mark.parametrize("address", ["", "10.0.0.1", "2001:db8::1"])
def test_an_answer_arrives(address: str) -> None:
    assert OpenAnswer.decode(OpenAnswer(address).encode()) == OpenAnswer(address)


@pytest.mark.parametrize("content", [b"x" * 65, "é".encode(), b"\xff"])
def test_another_answer_is_refused(content: bytes) -> None:
    with pytest.raises(ProtocolError):
        OpenAnswer.decode(content)


@pytest.mark.parametrize("content", [b"10.0.0.1\n", b"\x1b[31m", b"\0", b"x" * 65, "é".encode()])
def test_an_address_that_could_not_be_shown_is_refused(content: bytes) -> None:
    with pytest.raises(ProtocolError):
        OpenAnswer.decode(content)
