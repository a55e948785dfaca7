"""Receipts that are asked for again, also when the controller's clock was ahead in between."""

from __future__ import annotations

import time

import pytest

from klinket.connector.receipts import Receipts
from klinket.domain.cut import Cut, CutScope
from klinket.domain.errors import InvalidToken
from klinket.domain.flow import FlowFailure
from klinket.domain.identifiers import ConnectorId, CutId, Kid
from klinket.wire import signing
from klinket.wire.control import CutFlow
from klinket.wire.identity import ConnectorIdentity
from klinket.wire.receipt_token import verify_receipt

NOW = 1_900_000_000.0
KEY = signing.generate_private_key()
OFFICE = ConnectorIdentity("acme", ConnectorId(3))
CUT, OTHER = (Cut(CutId(id), CutScope.of_key(Kid("key-1")), 2, 7, FlowFailure.SERVICE_KEY_REVOKED, NOW) for id in (5, 6))
FLOW = CutFlow(
    flow="f" * 32, session="s" * 22, service_account="a", key="key-1", resource=1, host="h.internal", port=22, protocol="tcp",
    stopped_after_ms=0.5,
)  # fmt: skip


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def verified(token: str, now: float) -> int:
    """Return when it says that bytes stopped, in ms; raises InvalidToken."""
    return verify_receipt(token, OFFICE, jkt=signing.thumbprint(KEY.public_key()), now=now).stopped_at_ms


def test_a_cut_that_comes_again_has_the_same_answer() -> None:
    clock = Clock()
    receipts = Receipts(KEY, clock)
    assert receipts.given(CUT, OFFICE) is None
    first = receipts.give(CUT, OFFICE, [FLOW], time.monotonic())
    clock.now += 60
    assert receipts.given(CUT, OFFICE) is first
    assert receipts.given(OTHER, OFFICE) is None


def test_one_of_a_time_when_the_clock_was_ahead_is_signed_anew_with_its_flows() -> None:
    clock = Clock()
    clock.now = NOW + 3600
    receipts = Receipts(KEY, clock)
    first = receipts.give(CUT, OFFICE, [FLOW], time.monotonic())
    with pytest.raises(InvalidToken, match="future"):
        verified(first.token, NOW)
    clock.now = NOW
    again = receipts.given(CUT, OFFICE)
    assert again is not None
    assert verified(again.token, NOW) == again.stopped_at_ms == round(NOW * 1000)
    assert (again.flows, again.took_ms) == ([FLOW], first.took_ms)
    assert receipts.given(CUT, OFFICE) is again


def test_receipts_of_other_cuts_are_forgotten() -> None:
    receipts = Receipts(KEY, Clock())
    for cut in (CUT, OTHER):
        receipts.give(cut, OFFICE, [], time.monotonic())
    receipts.keep({CUT.key})
    assert receipts.given(CUT, OFFICE) is not None
    assert receipts.given(OTHER, OFFICE) is None
