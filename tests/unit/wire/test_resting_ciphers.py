"""Of many pipes most rest: their ciphers are made when they are needed, under the same keys and the next nonces."""

from __future__ import annotations

import os

import pytest

from klinket.domain.errors import ProtocolError
from klinket.wire import pipe as wire
from klinket.wire.pipe import FrameType, Opener, Sealer


def test_a_direction_goes_on_after_many_others_were_used() -> None:
    chains = [os.urandom(32) for _ in range(wire.MAX_READY + 100)]
    pairs = [(Sealer(chain), Opener(chain)) for chain in chains]
    for content in (b"one", b"two"):
        for sealer, opener in pairs:
            assert opener.open(sealer.seal(FrameType.DATA, content)) == (FrameType.DATA, content)
    assert sum(side._aead is not None for pair in pairs for side in pair) <= wire.MAX_READY


def test_a_direction_that_was_forgotten_stays_so_when_others_are_used() -> None:
    sealer, opener = Sealer(bytes(32)), Opener(bytes(32))
    frame = sealer.seal(FrameType.DATA, b"x")
    for side in (sealer, opener):
        side.forget()
    for _ in range(wire.MAX_READY + 1):
        Sealer(os.urandom(32)).seal(FrameType.DATA)
    with pytest.raises(ConnectionResetError):
        sealer.seal(FrameType.DATA, b"y")
    with pytest.raises(ProtocolError):
        opener.open(frame)


def test_a_state_goes_on_with_the_next_nonce_and_leaves_nothing_behind() -> None:
    sealer, opener = Sealer(bytes(32)), Opener(bytes(32))
    opener.open(sealer.seal(FrameType.DATA, b"one"))
    resumed = Sealer.resumed(sealer.hand_over())
    assert opener.open(resumed.seal(FrameType.OPENED)) == (FrameType.OPENED, b"")  # ratchets
    resumed, opener = Sealer.resumed(resumed.hand_over()), Opener.resumed(opener.hand_over())
    assert opener.open(resumed.seal(FrameType.DATA, b"two")) == (FrameType.DATA, b"two")
    with pytest.raises(ConnectionResetError):
        sealer.hand_over()
    with pytest.raises(ConnectionResetError):
        sealer.seal(FrameType.DATA)
