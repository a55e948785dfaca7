"""Readiness says what is missing, in the order of the conditions."""

from __future__ import annotations

from klinket.domain.readiness import readiness


def test_nothing_missing_is_ready() -> None:
    found = readiness((True, "a", "A"), (True, "b", "B"))
    assert found.is_ready
    assert found.document() == {"status": "ready"}


def test_what_is_missing_is_named() -> None:
    found = readiness((True, "a", "A"), (False, "b", "B"), (False, "c", "C"))
    assert not found.is_ready
    assert found.document() == {
        "status": "not-ready",
        "reasons": [{"code": "b", "text": "B"}, {"code": "c", "text": "C"}],
    }
