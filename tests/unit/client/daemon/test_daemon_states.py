"""The word a status says: the first thing that is missing, in the order in which it is needed."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import text

from klinket.client.capture.machine import CaptureState
from klinket.client.daemon.protocol import NetworkRow
from klinket.client.daemon.states import FINAL, Facts, State, guarded, judge
from klinket.domain.errors import (
    AssertionStale,
    CaptureImpossible,
    ControllerUnreachable,
    ServiceKeyExpired,
    ServiceKeyRevoked,
    ServiceKeyUnknown,
    SessionOver,
    Throttled,
)

REACHED = NetworkRow(resource="db", reached=True)
MISSING = NetworkRow(resource="db", reached=False, problem="none is connected")
GOOD = Facts(has_key=True, configured=True, capture=CaptureState(rules=True, dns=True), networks=[REACHED])
DOCUMENT = Path(__file__).resolve().parents[4] / "docs" / "reference" / "status-words.md"


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        (GOOD, State.ONLINE),
        (replace(GOOD, networks=[]), State.ONLINE),
        (replace(GOOD, capture_wanted=False, capture=None), State.ONLINE),
        (replace(GOOD, stopping=True), State.STOPPING),
        (replace(GOOD, networks=None), State.CONNECTING),
        (replace(GOOD, networks=[REACHED, MISSING]), State.NO_CONNECTOR),
        (replace(GOOD, capture=None), State.CONNECTING),
        (replace(GOOD, capture=CaptureState(rules=False, dns=True)), State.RULES_MISSING),
        (replace(GOOD, capture=CaptureState(rules=True, dns=False)), State.DNS_MISSING),
        (replace(GOOD, capture=None, capture_failed=CaptureImpossible("no nft")), State.CAPTURE_IMPOSSIBLE),
        (replace(GOOD, configured=False), State.AUTHENTICATING),
        (Facts(has_key=False), State.UNINITIALIZED),
        # What was told last counts while the controller is away, and not longer.
        (replace(GOOD, trouble=ControllerUnreachable("away")), State.ONLINE),
        (replace(GOOD, configured=False, trouble=ControllerUnreachable("away")), State.OFFLINE),
        (replace(GOOD, configured=False, trouble=Throttled("too many")), State.THROTTLED),
        (replace(GOOD, configured=False, trouble=AssertionStale("off by 9 s")), State.CLOCK_WRONG),
        (replace(GOOD, configured=False, trouble=ServiceKeyRevoked("revoked")), State.KEY_REVOKED),
        (replace(GOOD, configured=False, trouble=ServiceKeyExpired("expired")), State.KEY_EXPIRED),
        (replace(GOOD, configured=False, trouble=ServiceKeyUnknown("unknown")), State.KEY_REFUSED),
        (replace(GOOD, configured=False, trouble=SessionOver("ended")), State.KEY_REFUSED),
    ],
)
def test_the_first_thing_that_is_missing_is_said(facts: Facts, state: State) -> None:
    verdict = judge(facts)
    assert verdict.state is state
    assert bool(verdict.reason) is bool(verdict.next_step) is (state is not State.ONLINE)


def test_only_online_says_online() -> None:
    assert [state.value for state in State if "online" in state.value] == ["online"]
    assert State.ONLINE not in FINAL


@given(text())
def test_no_sentence_beside_another_word_says_online(sentence: str) -> None:
    assert "online" not in guarded(sentence + "ONLINE" + sentence).lower()
    assert "\n" not in guarded(sentence)


def test_every_word_is_in_the_reference() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|", DOCUMENT.read_text().partition("\n## ")[0], re.MULTILINE)
    assert sorted(rows) == sorted(state.value for state in State)
