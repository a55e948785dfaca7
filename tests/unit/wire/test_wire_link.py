"""The exchange that makes a link: both ends get one secret, and any change gives them different ones (security.md 1-2)."""

from __future__ import annotations

import hashlib
import hmac
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.errors import ProtocolError
from klinket.wire import pipe
from klinket.wire.link import ANSWER_BYTES, OFFER_BYTES, Link, LinkOffer, answer_offer, derive_secret
from klinket.wire.pipe import FrameType, Purpose
from tests.unit.wire.conftest import MODERATE

CLIENT_LEAF, CONNECTOR_LEAF = b"client certificate", b"connector certificate"


def exchange() -> tuple[LinkOffer, bytes, Link]:
    """Return the client's half, the connector's answer, and the connector's link."""
    offer = LinkOffer(os.urandom)
    answer, link = answer_offer(offer.payload(), os.urandom, CLIENT_LEAF, CONNECTOR_LEAF, 50.0)
    return offer, answer, link


def finish(offer: LinkOffer, answer: bytes) -> Link:
    return offer.finish(answer, CLIENT_LEAF, CONNECTOR_LEAF, 60.0)


def frames_pass(one: Link, other: Link) -> bool:
    frame = pipe.client_keys(one, Purpose.FLOW, bytes(32), bytes(32)).sealer.seal(FrameType.DATA, b"hello")
    try:
        return pipe.connector_keys(other, Purpose.FLOW, bytes(32), bytes(32)).opener.open(frame)[1] == b"hello"
    except ProtocolError:
        return False


def test_both_ends_get_the_same_link() -> None:
    offer, answer, theirs = exchange()
    ours = finish(offer, answer)
    assert (len(offer.payload()), len(answer)) == (OFFER_BYTES, ANSWER_BYTES) == (32 + 1184, 32 + 1088 + 16)
    assert (ours.handle, ours.secret) == (theirs.handle, theirs.secret)
    assert (len(ours.handle), len(ours.secret)) == (16, 32)
    assert (ours.expires_at, theirs.expires_at) == (60.0, 50.0)
    assert frames_pass(ours, theirs)


def test_the_secret_is_the_one_of_the_format() -> None:
    """HKDF-Extract (RFC 5869) is one HMAC, keyed with the salt."""
    arguments = CLIENT_LEAF, CONNECTOR_LEAF, b"c" * 32, b"n" * 32, b"k" * 32
    salt = hashlib.sha256(CLIENT_LEAF + CONNECTOR_LEAF).digest()
    assert derive_secret(*arguments) == hmac.new(salt, b"c" * 32 + b"n" * 32 + b"k" * 32, hashlib.sha256).digest()


def test_no_two_links_are_alike_even_with_the_same_random_source() -> None:
    """The fresh ML-KEM key alone makes the difference."""
    links = []
    for _ in range(3):
        offer = LinkOffer(lambda size: b"r" * size)
        answer, _ = answer_offer(offer.payload(), lambda size: b"r" * size, CLIENT_LEAF, CONNECTOR_LEAF, 0)
        links.append(finish(offer, answer))
    assert len({link.secret for link in links}) == 3


@pytest.mark.parametrize(
    "leaves",
    [(CONNECTOR_LEAF, CLIENT_LEAF), (b"another", CONNECTOR_LEAF), (CLIENT_LEAF, b"another")],
    ids=["swapped", "client", "connector"],
)
def test_other_certificates_give_another_secret(leaves: tuple[bytes, bytes]) -> None:
    offer, answer, theirs = exchange()
    ours = offer.finish(answer, *leaves, 60.0)
    assert ours.secret != theirs.secret
    assert not frames_pass(ours, theirs)


@MODERATE
@given(st.integers(0, ANSWER_BYTES * 8 - 1))
def test_any_flipped_bit_of_the_answer_leaves_the_ends_apart(bit: int) -> None:
    offer, answer, theirs = exchange()
    damaged = bytearray(answer)
    damaged[bit // 8] ^= 1 << bit % 8
    ours = finish(offer, bytes(damaged))
    assert (ours.handle, ours.secret) != (theirs.handle, theirs.secret)
    assert not frames_pass(ours, theirs)


@MODERATE
@given(st.integers(0, OFFER_BYTES * 8 - 1))
def test_any_flipped_bit_of_the_offer_is_refused_or_leaves_the_ends_apart(bit: int) -> None:
    offer = LinkOffer(os.urandom)
    damaged = bytearray(offer.payload())
    damaged[bit // 8] ^= 1 << bit % 8
    try:
        answer, theirs = answer_offer(bytes(damaged), os.urandom, CLIENT_LEAF, CONNECTOR_LEAF, 50.0)
    except ProtocolError:
        return
    assert not frames_pass(finish(offer, answer), theirs)


def test_an_answer_to_another_offer_leaves_the_ends_apart() -> None:
    (first, first_answer, theirs), (second, _, _) = exchange(), exchange()
    assert not frames_pass(finish(second, first_answer), theirs)
    assert frames_pass(finish(first, first_answer), theirs)


@pytest.mark.parametrize("size", [0, 1, OFFER_BYTES - 1, OFFER_BYTES + 1])
def test_an_offer_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ProtocolError):
        answer_offer(bytes(size), os.urandom, CLIENT_LEAF, CONNECTOR_LEAF, 0)


@pytest.mark.parametrize("size", [0, 1, ANSWER_BYTES - 1, ANSWER_BYTES + 1])
def test_an_answer_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ProtocolError):
        finish(LinkOffer(os.urandom), bytes(size))


def test_a_key_that_is_none_is_refused() -> None:
    with pytest.raises(ProtocolError, match="ML-KEM"):
        answer_offer(bytes(32) + b"\xff" * 1184, os.urandom, CLIENT_LEAF, CONNECTOR_LEAF, 0)


@MODERATE
@given(st.binary(min_size=OFFER_BYTES, max_size=OFFER_BYTES) | st.binary(max_size=64))
def test_arbitrary_bytes_are_an_offer_or_refused(data: bytes) -> None:
    try:
        answer, link = answer_offer(data, os.urandom, CLIENT_LEAF, CONNECTOR_LEAF, 0)
    except ProtocolError:
        return
    assert len(answer) == ANSWER_BYTES
    assert answer.endswith(link.handle)


@MODERATE
@given(st.binary(min_size=ANSWER_BYTES, max_size=ANSWER_BYTES) | st.binary(max_size=64))
def test_arbitrary_bytes_never_make_a_link_with_the_connector(data: bytes) -> None:
    offer, _, theirs = exchange()
    try:
        ours = finish(offer, data)
    except ProtocolError:
        assert len(data) != ANSWER_BYTES
        return
    assert not frames_pass(ours, theirs)


def test_the_secret_is_not_shown() -> None:
    _, _, link = exchange()
    assert link.secret.hex()[:12] not in repr(link)
    assert repr(link.secret)[2:20] not in repr(link)
