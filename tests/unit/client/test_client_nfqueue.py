"""The packet queue's netlink messages, against the layout of linux/netfilter/nfnetlink_queue.h."""

from __future__ import annotations

import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.client.capture import nfqueue
from klinket.client.capture.nfqueue import Acknowledgement, HeldPacket, Verdict
from klinket.domain.errors import ProtocolError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="netlink is Linux's")

NFQNL_MSG_PACKET = 3 << 8 | 0
NLMSG_ERROR = 2
PACKET_HEADER, PAYLOAD, MARK = 1, 10, 3


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


def held(id: int, content: bytes) -> bytes:
    """Return what the kernel sends for a held packet: nfgenmsg, then its attributes in the kernel's order."""
    header = struct.pack(">IHB", id, 0x0800, 3)
    return message(
        NFQNL_MSG_PACKET,
        bytes([2, 0, 0, 7]) + attribute(PACKET_HEADER, header) + attribute(5, bytes(4)) + attribute(PAYLOAD, content),
    )


def acknowledgement(error: int) -> bytes:
    return message(NLMSG_ERROR, struct.pack("=i", -error) + bytes(16))


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=nfqueue.COPY_BYTES)), max_size=6))
def test_held_packets_are_read_in_order(packets: list[tuple[int, bytes]]) -> None:
    data = b"".join(held(id, content) + b"\0" * (-len(held(id, content)) % 4) for id, content in packets)
    assert list(nfqueue.decode(data)) == [HeldPacket(id, content) for id, content in packets]


@pytest.mark.parametrize("error", [0, 1, 16, 95])
def test_the_kernels_word_on_a_request_is_read(error: int) -> None:
    assert list(nfqueue.decode(acknowledgement(error))) == [Acknowledgement(error)]


def test_other_messages_are_passed_over() -> None:
    assert list(nfqueue.decode(message(3, b"done") + held(9, b"x"))) == [HeldPacket(9, b"x")]


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("=IHHII", 15, NFQNL_MSG_PACKET, 0, 0, 0),
        struct.pack("=IHHII", 17, NFQNL_MSG_PACKET, 0, 0, 0),
        message(NLMSG_ERROR, b"\0\0\0"),
        message(NFQNL_MSG_PACKET, b"\0\0\0\7"),
        message(NFQNL_MSG_PACKET, b"\0\0\0\7" + attribute(PAYLOAD, b"x")),
        message(NFQNL_MSG_PACKET, b"\0\0\0\7" + struct.pack("=HH", 3, 1)),
        message(NFQNL_MSG_PACKET, b"\0\0\0\7" + struct.pack("=HH", 9, 1) + bytes(4)),
    ],
    ids=["short length", "long length", "short word", "nothing", "no id", "short attribute", "long attribute"],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(nfqueue.decode(data))


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        for found in nfqueue.decode(data):
            assert isinstance(found, HeldPacket | Acknowledgement)
    except ProtocolError:
        pass


@given(st.integers(0, 2**32 - 1), st.binary(max_size=64), st.data())
def test_damaged_messages_are_read_or_refused(id: int, content: bytes, data: st.DataObject) -> None:
    wire = bytearray(held(id, content) + acknowledgement(1))
    for _ in range(data.draw(st.integers(1, 6))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert len(list(nfqueue.decode(bytes(wire)))) <= len(wire) // 16
    except ProtocolError:
        pass


# ---- requests


def split(request: bytes) -> tuple[int, int, int, dict[int, bytes]]:
    """Return (type, flags, queue, attributes) of a request; checks lengths and padding."""
    length, kind, flags, _, _ = struct.unpack_from("=IHHII", request)
    assert length == len(request)
    family, version, queue = struct.unpack_from(">BBH", request, 16)
    assert (family, version) == (0, 0)
    attributes: dict[int, bytes] = {}
    position = 20
    while position < length:
        size, number = struct.unpack_from("=HH", request, position)
        attributes[number] = request[position + 4 : position + size]
        position += size + (-size % 4)
    assert position == length
    return kind, flags, queue, attributes


@given(st.integers(0, 65_535))
def test_a_queue_is_bound_and_configured_with_acknowledgement(queue: int) -> None:
    config = 3 << 8 | 2
    assert split(nfqueue.bind(queue)) == (config, 5, queue, {1: struct.pack(">BxH", 1, 2)})
    assert split(nfqueue.configure(queue)) == (config, 5, queue, {2: struct.pack(">IB", 128, 2), 3: struct.pack(">I", 1024)})


@given(st.integers(0, 65_535), st.integers(0, 2**32 - 1), st.sampled_from(list(Verdict)), st.integers(0, 2**32 - 1))
def test_a_verdict_names_its_packet_and_sets_a_mark_only_if_there_is_one(queue: int, id: int, word: Verdict, mark: int) -> None:
    attributes = {2: struct.pack(">II", word, id)} | ({3: struct.pack(">I", mark)} if mark else {})
    assert split(nfqueue.verdict(queue, id, word, mark)) == (3 << 8 | 1, 1, queue, attributes)
