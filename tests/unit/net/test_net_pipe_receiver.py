"""What a receiver holds: a few bytes of a frame must not hold half a mebibyte, and lose nothing."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klinket.net.pipe_receiver import SMALL_PART_BYTES, Frame, PipeReceiver
from klinket.net.scratch import SCRATCH
from klinket.wire import pipe as wire
from klinket.wire.link import Link
from klinket.wire.pipe import FrameType, PipeKeys, Purpose


def keys() -> tuple[PipeKeys, PipeKeys]:
    link, one, two = Link(os.urandom(16), os.urandom(32), 4e9), os.urandom(32), os.urandom(32)
    return wire.client_keys(link, Purpose.FLOW, one, two), wire.connector_keys(link, Purpose.FLOW, one, two)


def feed(receiver: PipeReceiver, data: bytes) -> list[Frame]:
    """Hand bytes over as a socket would; return the whole frames."""
    frames = []
    while data:
        space = receiver.space()
        count = min(len(space), len(data))
        space[:count] = data[:count]
        receiver.received(count)
        data = data[count:]
        while (frame := receiver.open()) is not None:
            frames.append(frame)
    return frames


def test_the_beginning_of_a_frame_holds_no_receive_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    borrowed = []
    monkeypatch.setattr(type(SCRATCH), "borrow", lambda self: borrowed.append(bytearray(1 << 20)) or borrowed[-1])
    monkeypatch.setattr(type(SCRATCH), "give_back", lambda self, buffer: borrowed.remove(buffer))
    _, connector = keys()
    receivers = [PipeReceiver(connector.opener) for _ in range(100)]
    for receiver in receivers:
        assert feed(receiver, (200_000).to_bytes(4, "big") + bytes(SMALL_PART_BYTES - 4)) == []
    assert borrowed == []
    assert all(receiver.incomplete_since is not None for receiver in receivers)


@given(st.lists(st.integers(0, 60_000), min_size=1, max_size=6), st.lists(st.integers(1, 70_000), min_size=1, max_size=40))
@settings(max_examples=40, deadline=None)
def test_frames_come_out_whole_however_they_came_in(sizes: list[int], cuts: list[int]) -> None:
    client, connector = keys()
    contents = [os.urandom(size) for size in sizes]
    stream = b"".join(client.sealer.seal(FrameType.DATA, content) for content in contents)
    receiver, frames, at = PipeReceiver(connector.opener), [], 0
    for cut in [*cuts, len(stream)]:
        frames += feed(receiver, stream[at : at + cut])
        at += cut
    assert [frame.content for frame in frames] == contents
    assert receiver.incomplete_since is None


def test_the_time_of_an_incomplete_frame_is_that_of_its_beginning() -> None:
    client, connector = keys()
    frame = client.sealer.seal(FrameType.DATA, bytes(1000))
    receiver = PipeReceiver(connector.opener)
    feed(receiver, frame[:10])
    since = receiver.incomplete_since
    feed(receiver, frame[10:20])
    assert receiver.incomplete_since == since is not None
    feed(receiver, frame[20:])
    assert receiver.incomplete_since is None


def test_a_frame_that_is_handed_over_half_is_measured_where_it_went() -> None:
    client, connector = keys()
    receiver = PipeReceiver(connector.opener)
    frame = client.sealer.seal(FrameType.DATA, b"x" * 100)
    receiver.space()[:10] = frame[:10]
    receiver.received(10)
    assert receiver.open() is None
    assert receiver.incomplete_since is not None
    _, left = receiver.hand_over()
    assert left == frame[:10]
    assert receiver.incomplete_since is None
