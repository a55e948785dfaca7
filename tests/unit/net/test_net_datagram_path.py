"""Datagrams that came together: opened one by one, given to their flows together, in order."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klinket.net import datagram_path, segments
from klinket.net.datagram_path import ConnectorPath
from klinket.wire import datagram as wire
from klinket.wire.datagram import DatagramKind
from klinket.wire.link import Link
from tests.unit.taken import Taken

ONE, TWO = b"flow-one", b"flow-two"
CLIENT = ("192.0.2.1", 9)
RECEIVERS = b"\1" * 7, b"\2" * 7
PAYLOAD = DatagramKind.PAYLOAD


@dataclass
class Path:
    """A connector's end, and the keys of its client. `answers`: where its own datagrams can be read."""

    one: Taken = field(default_factory=Taken)
    two: Taken = field(default_factory=Taken)

    def __post_init__(self) -> None:
        link = Link(bytes(16), bytes(32), 4e9)
        self.keys = wire.client_keys(link, *RECEIVERS, bytes(32), bytes(32))
        near, self.answers = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        near.setblocking(False)
        self.answers.setblocking(False)
        self.path = ConnectorPath(wire.connector_keys(link, *RECEIVERS, bytes(32), bytes(32)), near)
        self.path.address, self.path._proven_at = CLIENT, time.monotonic()
        self.path.flows = {ONE: self.one.take, TWO: self.two.take}
        self.near = near

    def close(self) -> None:
        self.near.close()
        self.answers.close()

    def seal(self, content: bytes, flow: bytes = ONE, kind: DatagramKind = PAYLOAD) -> bytes:
        return self.keys.sealer.seal(kind, flow, content)

    def take(self, *sealed: bytes, address: object = CLIENT) -> None:
        self.path.received(memoryview(b"".join(sealed)), len(sealed[0]), address)


@pytest.fixture
def path() -> Iterator[Path]:
    made = Path()
    yield made
    made.close()


def test_those_of_one_flow_come_in_one_call(path: Path) -> None:
    contents = [bytes((number,)) * 100 for number in range(8)] + [b"shorter"]
    path.take(*map(path.seal, contents))
    assert path.one == contents
    assert path.one.calls == [9]
    assert path.path.counts().received == 9


def test_each_flow_gets_its_own(path: Path) -> None:
    path.take(path.seal(b"a1"), path.seal(b"a2"), path.seal(b"b1", TWO), path.seal(b"a3"), path.seal(b"c", b"no flow."))
    assert (path.one, path.two) == ([b"a1", b"a2", b"a3"], [b"b1"])
    assert path.one.calls == [2, 1]
    assert (path.path.counts().received, path.path.counts().no_flow) == (4, 1)


def test_empty_ones_are_datagrams_too(path: Path) -> None:
    path.take(path.seal(b""), path.seal(b""))
    path.take(path.seal(b"full"), path.seal(b""))
    assert path.one == [b"", b"", b"full", b""]


@pytest.mark.parametrize("broken", range(4))
def test_one_that_does_not_verify_takes_no_other_with_it(path: Path, broken: int) -> None:
    contents = [b"%d" % number * 50 for number in range(4)]
    sealed = [bytearray(path.seal(content)) for content in contents]
    sealed[broken][30] ^= 1
    path.take(*map(bytes, sealed))
    assert path.one == contents[:broken] + contents[broken + 1 :]
    assert path.path.counts().forged == 1


def test_one_that_comes_twice_in_a_batch_is_given_once(path: Path) -> None:
    first, second = path.seal(b"1"), path.seal(b"2")
    path.take(first, second, first, second)
    path.take(second, first)
    assert path.one == [b"1", b"2"]
    assert path.path.counts().replayed == 4


def test_a_probe_between_them_is_answered_and_spoils_none(path: Path) -> None:
    contents = [bytes((number,)) * 200 for number in range(4)]
    sealed = [path.seal(content) for content in contents]
    probe = path.seal(wire.probe(1400, bytes(wire.PROOF_BYTES)).ljust(200, b"\0"), wire.NO_FLOW, DatagramKind.PROBE)
    path.path._to = None  # the answer goes to the pair's other end
    path.take(sealed[0], sealed[1], probe, sealed[2], sealed[3])
    assert path.one == contents
    assert path.path.size == 1400
    kind, _, size = path.keys.opener.open_into(memoryview(path.answers.recv(65_535)), memoryview(bytearray(2_000)))
    assert (kind, size) == (DatagramKind.PROBE_ANSWER, 200)


def test_a_batch_from_an_address_that_is_not_proven_is_asked_once_and_spoils_none(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, int]] = []
    monkeypatch.setattr(ConnectorPath, "_challenge", lambda _, address, size: asked.append((address, size)))
    contents = [bytes((number,)) * 60 for number in range(3)]
    sealed = [path.seal(content) for content in contents]
    path.take(sealed[2], sealed[0], sealed[1], address=("198.51.100.7", 1))
    assert path.one == [contents[2], *contents[:2]], "who seals is the client, wherever it is"
    assert asked == [(("198.51.100.7", 1), len(sealed[0]))], "only what is newer than all before moves a path"
    assert path.path.address == CLIENT


Sizes = st.lists(st.tuples(st.sampled_from([ONE, TWO]), st.integers(0, 40)), min_size=1, max_size=30)


@given(sizes=Sizes)
@settings(max_examples=150)
def test_flows_get_what_was_sent_however_it_came_together(sizes: list[tuple[bytes, int]]) -> None:
    path = Path()
    try:
        wanted: dict[bytes, list[bytes]] = {ONE: [], TWO: []}
        batch: list[bytes] = []
        for number, (flow, size) in enumerate(sizes):
            content = bytes((number,)) * size
            wanted[flow].append(content)
            sealed = path.seal(content, flow)
            if batch and len(sealed) > len(batch[0]):
                path.take(*batch)
                batch = []
            batch.append(sealed)
            if len(sealed) < len(batch[0]):  # only the last of a batch is shorter
                path.take(*batch)
                batch = []
        if batch:
            path.take(*batch)
        assert (path.one, path.two) == (wanted[ONE], wanted[TWO])
    finally:
        path.close()


@given(content=st.binary(max_size=60), size=st.integers(1, 20), head=st.integers(1, 8))
def test_runs_are_the_parts_with_the_same_head(content: bytes, size: int, head: int) -> None:
    head = min(head, size)
    runs = list(segments.runs(memoryview(content), size, head))
    assert b"".join(runs) == content
    heads = [{part[:head] for part in segments.split(run, size)} for run in runs]
    assert all(len(one) == 1 for one in heads)
    assert all(before != after for before, after in itertools.pairwise(heads))
    assert all(len(run) % size == 0 for run in runs[:-1])


@given(
    sizes=st.lists(st.sampled_from([0, 10, 10, 10, 10, 11, 700, 1400, 1500]), max_size=80),
    together=st.booleans(),
)
@settings(max_examples=150)
def test_whatever_sizes_are_sent_together_all_that_fit_leave_in_order(sizes: list[int], together: bool) -> None:
    path = Path()
    left: list[tuple[int, int]] = []
    opened: list[bytes] = []

    class Watched(ConnectorPath):
        def leave(self, sealed: memoryview, segment: int) -> None:
            left.append((len(sealed), segment))
            for start in range(0, len(sealed), segment):
                opened.append(path.keys.opener.open(bytes(sealed[start : start + segment]))[2])

        def _transmit(self, sealed: memoryview) -> bool:
            opened.append(path.keys.opener.open(bytes(sealed))[2])
            return True

    try:
        link = Link(bytes(16), bytes(32), 4e9)
        made = Watched(wire.connector_keys(link, *RECEIVERS, bytes(32), bytes(32)), path.near)
        made.size = 1400 + wire.OVERHEAD_BYTES
        contents = [bytes((number,)) * size for number, size in enumerate(sizes)]
        if together:
            datagram_path.gather()
        frames, at = [], 0
        while at < len(contents):
            at += made.send_all(ONE, contents[at:])
            if at < len(contents):
                frames.append(contents[at])
                at += 1
        datagram_path.leave_all()
        assert opened == [content for content in contents if len(content) <= 1400]
        assert frames == [content for content in contents if len(content) > 1400]
        assert made.counts().sent == len(opened)
        assert all(size <= min(datagram_path.MOST_GATHERED * segment, datagram_path.MOST_BYTES) for size, segment in left)
    finally:
        path.close()
