"""Sealed pipes: any change of the bytes ends them, and keys move on their own (security.md 3-5)."""

from __future__ import annotations

import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.errors import ProtocolError
from klinket.wire import pipe
from klinket.wire.link import Link
from klinket.wire.pipe import FrameType, Opener, PipeKeys, Purpose, Sealer
from tests.unit.wire.conftest import MODERATE

LINK = Link(b"h" * 16, b"s" * 32, 4e9)
TYPES = st.sampled_from(FrameType)
FRAMES = st.lists(st.tuples(TYPES, st.binary(max_size=70)), min_size=1, max_size=12)


def ends(
    link: Link = LINK, purpose: Purpose = Purpose.FLOW, client: bytes = b"c" * 32, connector: bytes = b"n" * 32
) -> list[PipeKeys]:
    """Return the keys of the client and of the connector."""
    return [make(link, purpose, client, connector) for make in (pipe.client_keys, pipe.connector_keys)]


def pair() -> tuple[Sealer, Opener]:
    """Return the client's sealer with the connector's opener."""
    client, connector = ends()
    return client.sealer, connector.opener


def refuse(opener: Opener, frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        opener.open(frame)


# ---- what arrives is what was sent


@MODERATE
@given(FRAMES, st.lists(st.integers(1, 90), min_size=1, max_size=30))
def test_frames_arrive_however_the_stream_is_cut(frames: list[tuple[FrameType, bytes]], cuts: list[int]) -> None:
    sealer, opener = pair()
    stream = b"".join(sealer.seal(type, content) for type, content in frames)
    buffer, received, at, turn = b"", [], 0, 0
    while at < len(stream):
        size = cuts[turn % len(cuts)]
        buffer, at, turn = buffer + stream[at : at + size], at + size, turn + 1
        while (length := pipe.frame_length(buffer)) is not None and len(buffer) >= length:
            received.append(opener.open(buffer[:length]))
            buffer = buffer[length:]
    assert received == frames
    assert buffer == b""


@MODERATE
@given(FRAMES, st.booleans())
def test_sealing_in_place_is_sealing(frames: list[tuple[FrameType, bytes]], first_in_place: bool) -> None:
    plainly, in_place = pair()[0], pair()[0]
    for number, (type, content) in enumerate(frames):
        room = bytearray(pipe.HEADER_BYTES + len(content) + 17)
        if first_in_place is (number % 2 == 0):
            length = in_place.seal_into(type, memoryview(bytearray(content + b"?")), len(content), memoryview(room))
            sealed = bytes(room[:length])
        else:
            sealed = in_place.seal(type, content)
        assert sealed == plainly.seal(type, content)


def test_the_largest_frame_fits_and_a_larger_one_is_not_made() -> None:
    sealer, opener = pair()
    content = bytes(pipe.MAX_CONTENT_BYTES)
    frame = sealer.seal(FrameType.DATA, content)
    assert len(frame) == pipe.frame_length(frame) == pipe.MAX_FRAME_BYTES
    assert opener.open(frame) == (FrameType.DATA, content)
    with pytest.raises(ValueError):
        sealer.seal(FrameType.DATA, content + b"x")
    assert opener.open(sealer.seal(FrameType.FIN)) == (FrameType.FIN, b"")  # the refusal used no nonce up


# ---- lengths, before anything is buffered


def test_a_length_is_known_with_its_fourth_byte() -> None:
    frame = pair()[0].seal(FrameType.DATA, b"hello")
    for end in range(len(frame) + 1):
        assert pipe.frame_length(frame[:end]) == (None if end < 4 else len(frame))
    assert pipe.frame_length(memoryview(frame + b"more")) == len(frame)


@pytest.mark.parametrize("sealed", [0, 1, 15, 16, 256 * 1024 + 18, 0x16030100, 2**31, 2**32 - 1])
def test_a_length_outside_the_limits_is_refused_by_its_header_alone(sealed: int) -> None:
    with pytest.raises(ProtocolError):
        pipe.frame_length(sealed.to_bytes(4, "big"))


@pytest.mark.parametrize("sealed", [17, 256 * 1024 + 17])
def test_both_limits_are_allowed(sealed: int) -> None:
    assert pipe.frame_length(sealed.to_bytes(4, "big")) == sealed + 4


# ---- what was changed on the way


def test_a_frame_cut_at_any_byte_is_refused() -> None:
    sealer, _ = pair()
    frame = sealer.seal(FrameType.DATA, b"some content")
    for end in range(len(frame)):
        refuse(pair()[1], frame[:end])
        if end > 4:
            refuse(pair()[1], (end - 4).to_bytes(4, "big") + frame[4:end])  # with a length that fits
    refuse(pair()[1], frame + b"\0")


def test_any_flipped_bit_is_refused() -> None:
    frame = pair()[0].seal(FrameType.DATA, b"some content")
    for bit in range(len(frame) * 8):
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        refuse(pair()[1], bytes(damaged))
    assert pair()[1].open(frame) == (FrameType.DATA, b"some content")


@MODERATE
@given(st.binary(max_size=120))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    refuse(pair()[1], data)
    refuse(pair()[1], (len(data)).to_bytes(4, "big") + data)


def test_a_replayed_frame_is_refused() -> None:
    sealer, opener = pair()
    frame = sealer.seal(FrameType.DATA, b"pay 1")
    opener.open(frame)
    refuse(opener, frame)


def test_frames_that_changed_places_are_refused() -> None:
    sealer, opener = pair()
    first, second = sealer.seal(FrameType.DATA, b"1"), sealer.seal(FrameType.DATA, b"2")
    refuse(opener, second)
    refuse(pair()[1], second)
    assert pair()[1].open(first) == (FrameType.DATA, b"1")


@MODERATE
@given(FRAMES.filter(lambda frames: len(frames) > 1), st.data())
def test_a_frame_left_out_or_moved_is_noticed_at_once(frames: list[tuple[FrameType, bytes]], data: st.DataObject) -> None:
    sealer, opener = pair()
    sealed = [sealer.seal(type, content) for type, content in frames]
    here = data.draw(st.integers(0, len(sealed) - 1))
    there = data.draw(st.integers(0, len(sealed) - 1).filter(lambda other: other != here))
    for frame in sealed[:here]:
        opener.open(frame)
    refuse(opener, sealed[there])


def test_after_one_bad_frame_nothing_is_opened_any_more() -> None:
    sealer, opener = pair()
    frames = [sealer.seal(FrameType.DATA, bytes([number])) for number in range(5)]
    opener.open(frames[0])
    refuse(opener, frames[1][:-1] + bytes([frames[1][-1] ^ 1]))
    refuse(opener, frames[1])


def test_a_frame_sent_back_is_refused() -> None:
    client, connector = ends()
    mine = client.sealer.seal(FrameType.DATA, b"hello")
    refuse(client.opener, mine)
    theirs = connector.sealer.seal(FrameType.DATA, b"hello")
    assert mine != theirs
    assert ends()[0].opener.open(theirs) == (FrameType.DATA, b"hello")


@pytest.mark.parametrize(
    "other",
    [
        ends(Link(LINK.handle, b"t" * 32, 4e9)),
        ends(Link(b"i" * 16, LINK.secret, 4e9)),
        ends(purpose=Purpose.CONTROL),
        ends(client=b"d" * 32),
        ends(connector=b"m" * 32),
        ends(client=b"n" * 32, connector=b"c" * 32),
    ],
    ids=["secret", "handle", "purpose", "client random", "connector random", "randoms swapped"],
)
def test_every_input_of_the_keys_counts(other: list[PipeKeys]) -> None:
    client, connector = ends()
    refuse(other[1].opener, client.sealer.seal(FrameType.DATA, b"hello"))
    refuse(other[0].opener, connector.sealer.seal(FrameType.DATA, b"hello"))


@pytest.mark.parametrize("number", [0, 8, 9, 128, 255])
def test_an_unknown_type_is_refused_though_it_was_sealed_right(number: int) -> None:
    sealer, opener = pair()
    refuse(opener, sealer.seal(number, b"x"))  # type: ignore[arg-type]


def test_the_type_is_sealed_with_the_content() -> None:
    """Equal lengths for every type: an observer cannot tell DATA from FIN."""
    frames = {pair()[0].seal(type, b"same") for type in FrameType}
    assert len(frames) == len(FrameType)
    assert {len(frame) for frame in frames} == {4 + 4 + 1 + 16}


# ---- keys and nonces, beside a second computation


class Reference:
    """One direction, computed from the words of the format."""

    def __init__(self, chain: bytes) -> None:
        self.chain, self.counter = chain, 0
        self.ratchet()

    def ratchet(self) -> None:
        self.key = hmac.digest(self.chain, b"key\x01", "sha256")
        self.chain = hmac.digest(self.chain, b"ratchet\x01", "sha256")

    def seal(self, type: int, content: bytes) -> bytes:
        header = (len(content) + 17).to_bytes(4, "big")
        nonce = bytes(4) + self.counter.to_bytes(8, "big")
        self.counter += 1
        return header + AESGCM(self.key).encrypt(nonce, content + bytes([type]), header)


@MODERATE
@given(FRAMES)
def test_keys_move_at_each_open_and_the_counter_never_goes_back(frames: list[tuple[FrameType, bytes]]) -> None:
    sealer, reference = Sealer(b"x" * 32), Reference(b"x" * 32)
    for type, content in frames:
        assert sealer.seal(type, content) == reference.seal(type, content)
        if type in (FrameType.OPEN, FrameType.OPENED):
            reference.ratchet()


def test_keys_move_after_so_many_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pipe.MAX_KEY_FRAMES == 2**20
    monkeypatch.setattr(pipe, "MAX_KEY_FRAMES", 3)
    sealer, opener, reference = Sealer(b"x" * 32), Opener(b"x" * 32), Reference(b"x" * 32)
    for number in range(10):
        frame = sealer.seal(FrameType.DATA, b"x")
        assert frame == reference.seal(FrameType.DATA, b"x")
        assert opener.open(frame) == (FrameType.DATA, b"x")
        if number % 3 == 2:
            reference.ratchet()


def test_keys_move_after_so_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pipe.MAX_KEY_BYTES == 16 * 2**30
    monkeypatch.setattr(pipe, "MAX_KEY_BYTES", 200)
    sealer, opener, reference = Sealer(b"x" * 32), Opener(b"x" * 32), Reference(b"x" * 32)
    for number in range(10):
        content = bytes(83)  # 100 with type and tag: two frames for one key
        frame = sealer.seal(FrameType.DATA, content)
        assert frame == reference.seal(FrameType.DATA, content)
        assert opener.open(frame) == (FrameType.DATA, content)
        if number % 2 == 1:
            reference.ratchet()


def test_an_open_starts_the_count_of_frames_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "MAX_KEY_FRAMES", 3)
    sealer, reference = Sealer(b"x" * 32), Reference(b"x" * 32)
    for type, moves in (("DATA", 0), ("DATA", 0), ("OPEN", 1), ("DATA", 0), ("DATA", 0), ("DATA", 1), ("DATA", 0)):
        assert sealer.seal(FrameType[type], b"") == reference.seal(FrameType[type], b"")
        if moves:
            reference.ratchet()


def test_a_counter_never_begins_again() -> None:
    sealer, opener = pair()
    sealer._counter = opener._counter = 2**64 - 1
    last = sealer.seal(FrameType.DATA, b"the last one")
    assert opener.open(last) == (FrameType.DATA, b"the last one")
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            sealer.seal(FrameType.DATA, b"one more")
        with pytest.raises(ConnectionResetError):
            sealer.seal_into(FrameType.DATA, memoryview(bytearray(9)), 8, memoryview(bytearray(40)))
        refuse(opener, last)


# ---- every frame of the vectors, cut, changed and swapped

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "pipe.json").read_text())


def keys_of(vector: dict[str, Any]) -> tuple[PipeKeys, PipeKeys]:
    link = Link(bytes.fromhex(VECTORS["link"]["handle"]), bytes.fromhex(VECTORS["link"]["secret"]), 4e9)
    randoms = bytes.fromhex(vector["client_random"]), bytes.fromhex(vector["connector_random"])
    purpose = Purpose[vector["purpose"]]
    return pipe.client_keys(link, purpose, *randoms), pipe.connector_keys(link, purpose, *randoms)


def frames_of(vector: dict[str, Any], direction: str) -> list[bytes]:
    return [bytes.fromhex(frame["frame"]) for frame in vector[f"{direction}_frames"]]


EVERY_FRAME = [
    pytest.param(vector, direction, number, id=f"{vector['purpose']}-{direction}-{number}")
    for vector in VECTORS["pipes"]
    for direction in ("client", "connector")
    for number in range(len(vector[f"{direction}_frames"]))
]


def opener_at(vector: dict[str, Any], direction: str, number: int) -> Opener:
    """Return the receiver's opener when it has opened the frames before."""
    client, connector = keys_of(vector)
    opener = connector.opener if direction == "client" else client.opener
    for frame in frames_of(vector, direction)[:number]:
        opener.open(frame)
    return opener


@pytest.mark.parametrize(("vector", "direction", "number"), EVERY_FRAME)
def test_every_frame_of_the_vectors_is_refused_when_cut_at_any_byte(vector: dict[str, Any], direction: str, number: int) -> None:
    frame = frames_of(vector, direction)[number]
    opener = opener_at(vector, direction, number)
    before = opener._counter
    for end in range(len(frame)):
        opener._counter = before  # as a receiver that sees this stream only
        refuse(opener, frame[:end])
    opener._counter = before
    opener.open(frame)


@pytest.mark.parametrize(("vector", "direction", "number"), EVERY_FRAME)
def test_every_frame_of_the_vectors_is_refused_with_any_bit_flipped(vector: dict[str, Any], direction: str, number: int) -> None:
    frame = frames_of(vector, direction)[number]
    opener = opener_at(vector, direction, number)
    before = opener._counter
    for bit in range(len(frame) * 8):
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        opener._counter = before
        refuse(opener, bytes(damaged))


def test_no_frame_of_the_vectors_opens_anywhere_but_in_its_place() -> None:
    """Replays, reordering, other directions and other pipes: every frame at every place of every pipe."""
    places = [parameter.values for parameter in EVERY_FRAME]
    for vector, direction, number in places:
        for other_vector, other_direction, other_number in places:
            frame = frames_of(other_vector, other_direction)[other_number]
            opener = opener_at(vector, direction, number)
            if (vector["purpose"], direction, number) == (other_vector["purpose"], other_direction, other_number):
                opener.open(frame)
            else:
                refuse(opener, frame)


# ---- greeting and hello


@pytest.mark.parametrize(
    "data", [b"", b"\x01", b"\x01" + bytes(31), b"\x01" + bytes(33), b"\x00" + bytes(32), b"\x02" + bytes(32)]
)
def test_another_greeting_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        pipe.parse_greeting(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01\x01" + bytes(47),
        b"\x01\x01" + bytes(49),
        b"\x02\x01" + bytes(48),
        b"\x01\x00" + bytes(48),
        b"\x01\x04" + bytes(48),
    ],
)
def test_another_hello_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        pipe.parse_hello(data)


def test_a_hello_can_be_told_from_a_tls_handshake() -> None:
    assert pipe.VERSION != pipe.TLS_HANDSHAKE == 22
    assert pipe.hello(Purpose.FLOW, bytes(16), bytes(32))[0] == pipe.VERSION


@MODERATE
@given(st.binary(max_size=60) | st.binary(min_size=48, max_size=48).map(lambda rest: b"\x01\x01" + rest))
def test_arbitrary_bytes_are_a_hello_or_refused(data: bytes) -> None:
    try:
        purpose, handle, random = pipe.parse_hello(data)
    except ProtocolError:
        return
    assert pipe.hello(purpose, handle, random) == data


@MODERATE
@given(st.binary(max_size=40) | st.binary(min_size=32, max_size=32).map(lambda rest: b"\x01" + rest))
def test_arbitrary_bytes_are_a_greeting_or_refused(data: bytes) -> None:
    try:
        random = pipe.parse_greeting(data)
    except ProtocolError:
        return
    assert pipe.greeting(random) == data


@MODERATE
@given(st.binary(max_size=12))
def test_arbitrary_bytes_have_a_length_none_or_are_refused(data: bytes) -> None:
    try:
        length = pipe.frame_length(data)
    except ProtocolError:
        return
    assert (length is None) is (len(data) < 4)
    assert length is None or 21 <= length <= pipe.MAX_FRAME_BYTES


def test_many_flows_on_few_pipes_make_each_cipher_once_per_key(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0

    class Counted:
        def __init__(self, key: bytes) -> None:
            nonlocal made
            made += 1

        def encrypt(self, *_: object) -> bytes:
            return b""

    monkeypatch.setattr(pipe, "AESGCM", Counted)
    sealers = [Sealer(bytes([number]) * 32) for number in range(4)]
    for _ in range(pipe.MAX_READY):
        for sealer in sealers:
            sealer.seal(FrameType.OPEN)
            sealer.seal(FrameType.DATA)
    assert made == len(sealers) * (pipe.MAX_READY + 1)
