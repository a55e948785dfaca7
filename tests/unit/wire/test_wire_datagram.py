"""Sealed datagrams: what opens, and everything that must not."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.errors import ProtocolError
from klinket.wire import datagram as wire
from klinket.wire.datagram import DatagramKeys, DatagramKind, DatagramSealer
from klinket.wire.link import Link
from klinket.wire.replay_window import WINDOW

LINK = Link(bytes(range(16)), bytes(range(32)), 1e12)
CLIENT, CONNECTOR = wire.receiver(0, 0x010203040506), wire.receiver(3, 0x0A0B0C0D0E0F)
FLOW = b"\x11" * wire.FLOW_BYTES
PAYLOAD = DatagramKind.PAYLOAD
VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "datagram.json").read_text())


def ends(link: Link = LINK, salt: bytes = b"") -> tuple[DatagramKeys, DatagramKeys]:
    randoms = (b"c" * 32, (salt + b"n" * 32)[:32])
    return wire.client_keys(link, CLIENT, CONNECTOR, *randoms), wire.connector_keys(link, CLIENT, CONNECTOR, *randoms)


def at(sealer: DatagramSealer, counter: int) -> None:
    """Move a sealer on as if it had sealed all before: its key follows."""
    sealer._counter = counter
    while sealer._chain.epoch < (counter - 1) >> wire.EPOCH_BITS:
        sealer._aead = sealer._chain.next()


@given(st.binary(max_size=1500), st.binary(min_size=8, max_size=8), st.sampled_from(DatagramKind))
def test_what_is_sealed_opens_at_the_other_end_alone(content: bytes, flow: bytes, kind: DatagramKind) -> None:
    client, connector = ends()
    sealed = client.sealer.seal(kind, flow, content)
    assert len(sealed) == len(content) + wire.OVERHEAD_BYTES
    assert wire.receiver_of(sealed) == CONNECTOR
    assert connector.opener.open(sealed) == (kind, flow, content)
    with pytest.raises(ProtocolError):
        client.opener.open(sealed)  # the other direction has other keys


@given(st.binary(max_size=60))
def test_a_probe_reads_as_it_was_made_and_what_is_too_short_says_nothing(content: bytes) -> None:
    read = wire.read_probe(content)
    if read is None:
        assert len(content) < 2 + wire.PROOF_BYTES
    else:
        assert wire.probe(*read) == content[: 2 + wire.PROOF_BYTES]


def test_every_cut_and_every_flipped_bit_is_refused_and_moves_nothing() -> None:
    client, connector = ends()
    sealed = client.sealer.seal(PAYLOAD, FLOW, b"content")
    for length in range(len(sealed)):
        with pytest.raises(ProtocolError):
            connector.opener.open(sealed[:length])
    for bit in range(8, len(sealed) * 8):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ProtocolError):
            connector.opener.open(bytes(flipped))
    with pytest.raises(ProtocolError):
        connector.opener.open(sealed + b"\0")
    assert connector.opener.highest == -1
    assert connector.opener.open(sealed)[2] == b"content"


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    _, connector = ends()
    wire.receiver_of(data)
    with pytest.raises(ProtocolError):
        connector.opener.open(data)
    with pytest.raises(ProtocolError):
        connector.opener.open(bytes((wire.SEALED,)) + CONNECTOR + data)


@given(st.integers(0, 2**32))
def test_each_is_taken_once_in_whatever_order(seed: int) -> None:
    client, connector = ends()
    sealed = [client.sealer.seal(PAYLOAD, FLOW, bytes((number,))) for number in range(40)] * 2
    random.Random(seed).shuffle(sealed)
    taken = []
    for one in sealed:
        try:
            taken.append(connector.opener.open(one)[2])
        except ProtocolError:
            continue
    assert sorted(taken) == [bytes((number,)) for number in range(40)]


def test_one_older_than_the_window_is_refused() -> None:
    client, connector = ends()
    old = client.sealer.seal(PAYLOAD, FLOW, b"old")
    at(client.sealer, WINDOW)
    connector.opener.open(client.sealer.seal(PAYLOAD, FLOW, b"new"))
    with pytest.raises(ProtocolError, match="too old"):
        connector.opener.open(old)


def test_a_datagram_of_another_path_or_link_is_refused() -> None:
    _, connector = ends()
    other_path, _ = ends(salt=b"other")
    other_link, _ = ends(Link(LINK.handle, b"x" * 32, 1e12))
    other_handle, _ = ends(Link(b"h" * 16, LINK.secret, 1e12))
    for moved in (other_path, other_link, other_handle):
        with pytest.raises(ProtocolError, match="verify"):
            connector.opener.open(moved.sealer.seal(PAYLOAD, FLOW, b"moved"))
    assert connector.opener.forgeries == 3


def test_keys_change_with_the_counter_and_late_ones_of_the_former_key_still_open() -> None:
    client, connector = ends()
    at(client.sealer, wire.EPOCH_COUNTERS - 2)
    last = [client.sealer.seal(PAYLOAD, FLOW, bytes((number,))) for number in range(4)]
    connector.opener.open(client_first(connector))
    for one in (last[0], last[2], last[1], last[3]):
        connector.opener.open(one)
    at(client.sealer, wire.EPOCH_COUNTERS + WINDOW)
    connector.opener.open(client.sealer.seal(PAYLOAD, FLOW, b""))
    assert connector.opener._former is None, "no way back to a key whose datagrams are all too old"


def client_first(connector: DatagramKeys) -> bytes:
    """Return the very first datagram of the path: it is far below the others, and opens where it comes first."""
    client, _ = ends()
    return client.sealer.seal(PAYLOAD, FLOW, b"first")


def test_a_key_two_ahead_is_not_followed_and_forgeries_ahead_move_no_key() -> None:
    client, connector = ends()
    first = client.sealer.seal(PAYLOAD, FLOW, b"first")
    forged = bytes((wire.SEALED,)) + CONNECTOR + wire.EPOCH_COUNTERS.to_bytes(8, "big") + bytes(40)
    for _ in range(3):
        with pytest.raises(ProtocolError, match="verify"):
            connector.opener.open(forged)
    assert connector.opener.open(first)[2] == b"first"
    at(client.sealer, 2 * wire.EPOCH_COUNTERS)
    with pytest.raises(ProtocolError, match="not there yet"):
        connector.opener.open(client.sealer.seal(PAYLOAD, FLOW, b"far"))


def test_counters_that_are_used_up_seal_nothing() -> None:
    client, connector = ends()
    client.sealer._counter = wire.MAX_COUNTER + 1
    client.sealer._chain.epoch = client.sealer._counter >> wire.EPOCH_BITS
    with pytest.raises(ProtocolError):
        client.sealer.seal(PAYLOAD, FLOW, b"")
    beyond = bytes((wire.SEALED,)) + CONNECTOR + (wire.MAX_COUNTER + 1).to_bytes(8, "big") + bytes(40)
    with pytest.raises(ProtocolError):
        connector.opener.open(beyond)


def test_after_so_many_forgeries_nothing_opens() -> None:
    client, connector = ends()
    connector.opener.forgeries = wire.MAX_FORGERIES
    with pytest.raises(ProtocolError, match="over"):
        connector.opener.open(client.sealer.seal(PAYLOAD, FLOW, b""))


def test_forgotten_keys_neither_seal_nor_open() -> None:
    client, connector = ends()
    sealed = client.sealer.seal(PAYLOAD, FLOW, b"")
    client.sealer.forget()
    connector.opener.forget()
    with pytest.raises(ProtocolError):
        client.sealer.seal(PAYLOAD, FLOW, b"")
    with pytest.raises(ProtocolError):
        connector.opener.open(sealed)


def test_the_exact_bytes() -> None:
    given = {name: bytes.fromhex(value) for name, value in VECTORS["path"].items()}
    link = Link(given["handle"], given["link_secret"], 1e12)
    path = (given["client"], given["connector"], given["client_random"], given["connector_random"])
    client, connector = wire.client_keys(link, *path), wire.connector_keys(link, *path)
    for sender, opener, side in ((client, connector, "client"), (connector, client, "connector")):
        for one in VECTORS[side]:
            at(sender.sealer, one["counter"])
            sealed = sender.sealer.seal(DatagramKind[one["kind"]], bytes.fromhex(one["flow"]), bytes.fromhex(one["content"]))
            assert sealed.hex() == one["sealed"]
            assert opener.opener.open(sealed)[2].hex() == one["content"]


def test_the_exact_bytes_of_a_probe() -> None:
    for one in VECTORS["probes"]:
        assert wire.probe(one["found"], bytes.fromhex(one["proof"])).hex() == one["content"]
        assert wire.read_probe(bytes.fromhex(one["content"]) + bytes(10)) == (one["found"], bytes.fromhex(one["proof"]))


# ---- runs

Piece = st.tuples(
    st.integers(0, 11),  # which of those that were sealed; the order is the line's
    st.sampled_from(["as it is", "as it is", "as it is", "as it is", "flipped", "cut"]),
    st.integers(0, 8 * (wire.OVERHEAD_BYTES + 5) - 1),
)


@given(
    begin=st.sampled_from([0, 1, 7, wire.EPOCH_COUNTERS - 4, wire.EPOCH_COUNTERS, wire.EPOCH_COUNTERS + WINDOW - 6]),
    heard=st.booleans(),
    odd=st.sampled_from([None, (FLOW, DatagramKind.PROBE), (b"\x12" * 8, PAYLOAD)]),
    odd_at=st.integers(0, 11),
    pieces=st.lists(Piece, max_size=16),
    in_order=st.integers(0, 12),
)
def test_a_run_opens_what_would_have_opened_one_by_one(
    begin: int, heard: bool, odd: tuple[bytes, DatagramKind] | None, odd_at: int,
    pieces: list[tuple[int, str, int]], in_order: int,
) -> None:  # fmt: skip
    """Whatever was changed, repeated or put in another order: the same contents, and the same state afterwards."""
    client, first = ends()
    _, second = ends()
    at(client.sealer, begin)
    if heard:
        before = client.sealer.seal(PAYLOAD, FLOW, b"before")
        for one in (first, second):
            one.opener.open(before)
    sealed = []
    for number in range(12):
        flow, kind = odd if odd is not None and number == odd_at else (FLOW, PAYLOAD)
        sealed.append(client.sealer.seal(kind, flow, b"%05d" % number))
    size = wire.OVERHEAD_BYTES + 5
    batch = b"".join(sealed[:in_order])
    for which, change, bit in pieces:
        one = bytearray(sealed[which])
        if change == "flipped":
            one[bit // 8] ^= 1 << bit % 8
        batch += bytes(one)
        if change == "cut":
            batch = batch[: len(batch) - 1 - bit % (size - 1)]
            break
    view, plain = memoryview(batch), memoryview(bytearray(4_000))

    def one_by_one(opener: wire.DatagramOpener, start: int) -> list[tuple[int, bytes, bytes]]:
        opened = []
        for at_ in range(start, len(view), size):
            try:
                kind, flow, length = opener.open_into(view[at_ : at_ + size], plain)
            except ProtocolError:
                continue
            opened.append((kind, flow, bytes(plain[:length])))
        return opened

    count, flow = first.opener.open_run(view, size, plain)
    run = [(int(PAYLOAD), flow, bytes(plain[number * 5 : number * 5 + 5])) for number in range(count)]
    assert run + one_by_one(first.opener, count * size) == one_by_one(second.opener, 0)
    for name in ("forgeries", "replayed", "highest"):
        assert getattr(first.opener, name) == getattr(second.opener, name)
    assert first.opener._window._seen == second.opener._window._seen
    assert [first.opener._former is None, first.opener._next is None] == [
        second.opener._former is None, second.opener._next is None,
    ]  # fmt: skip


def test_a_path_that_is_over_opens_no_run() -> None:
    client, connector = ends()
    connector.opener.open(client.sealer.seal(PAYLOAD, FLOW, b"first"))
    batch = memoryview(client.sealer.seal(PAYLOAD, FLOW, b"x") + client.sealer.seal(PAYLOAD, FLOW, b"y"))
    plain = memoryview(bytearray(200))
    connector.opener.forgeries = wire.MAX_FORGERIES
    assert connector.opener.open_run(batch, len(batch) // 2, plain)[0] == 0
    connector.opener.forgeries = 0
    connector.opener.forget()
    assert connector.opener.open_run(batch, len(batch) // 2, plain)[0] == 0


@given(
    begin=st.sampled_from([0, 5, wire.EPOCH_COUNTERS - 3]),
    size=st.integers(0, 40),
    count=st.integers(0, 8),
    before=st.integers(0, 3),
)
def test_a_run_is_sealed_as_one_by_one(begin: int, size: int, count: int, before: int) -> None:
    (one, _), (two, _) = ends(), ends()
    for client in (one, two):
        at(client.sealer, begin)
        for _ in range(before):
            client.sealer.seal(PAYLOAD, FLOW, b"before")
    contents = [bytes((number,)) * size for number in range(count)]
    sealed = memoryview(bytearray(8 * (40 + wire.OVERHEAD_BYTES)))
    one.sealer.seal_run(FLOW, contents, size, memoryview(bytearray(100)), sealed)
    expected = b"".join(two.sealer.seal(PAYLOAD, FLOW, content) for content in contents)
    assert sealed[: len(expected)] == expected
    assert one.sealer._counter == two.sealer._counter


def test_a_run_beyond_the_last_counter_is_refused() -> None:
    client, _ = ends()
    client.sealer._counter = wire.MAX_COUNTER
    client.sealer._chain.epoch = wire.MAX_COUNTER >> wire.EPOCH_BITS
    with pytest.raises(ProtocolError, match="used up"):
        client.sealer.seal_run(FLOW, [b"last", b"over"], 4, memoryview(bytearray(100)), memoryview(bytearray(200)))
    client.sealer.forget()
    with pytest.raises(ProtocolError, match="forgotten"):
        client.sealer.seal_run(FLOW, [b"more"], 4, memoryview(bytearray(100)), memoryview(bytearray(200)))
