"""The lifecycle of service keys: the whole table of facts §1, and a random life beside a tiny model."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from klinket.domain.errors import InvalidInput, LifecycleError
from klinket.domain.service_key import KeyEvent, KeyState, apply, diagram, expiry_from_days, state_of
from tests.unit.domain.conftest import MODERATE

A, R, E, D = KeyState.ACTIVE, KeyState.REVOKED, KeyState.EXPIRED, KeyState.DELETED
RENAME, REVOKE, EXPIRE, DELETE = KeyEvent.RENAME, KeyEvent.REVOKE, KeyEvent.EXPIRE, KeyEvent.DELETE
DAY = 86_400

#: Facts §1, one row per pair; None: refused.
TABLE = [
    (A, RENAME, A),
    (A, REVOKE, R),
    (A, EXPIRE, E),
    (A, DELETE, None),
    (R, RENAME, None),
    (R, REVOKE, None),
    (R, EXPIRE, None),
    (R, DELETE, D),
    (E, RENAME, None),
    (E, REVOKE, None),
    (E, EXPIRE, None),
    (E, DELETE, D),
    (D, RENAME, None),
    (D, REVOKE, None),
    (D, EXPIRE, None),
    (D, DELETE, None),
]


def test_the_table_names_every_pair() -> None:
    assert {(state, event) for state, event, _ in TABLE} == {(state, event) for state in KeyState for event in KeyEvent}


@pytest.mark.parametrize(("state", "event", "after"), TABLE)
def test_every_move(state: KeyState, event: KeyEvent, after: KeyState | None) -> None:
    if after is not None:
        assert apply(state, event) is after
        return
    with pytest.raises(LifecycleError) as refused:
        apply(state, event)
    assert refused.value.code == "service-key-state"
    assert state.value in refused.value.message


def test_the_refusal_to_delete_an_active_key_says_what_to_do() -> None:
    with pytest.raises(LifecycleError) as refused:
        apply(A, DELETE)
    assert "revoke it first" in str(refused.value)


@pytest.mark.parametrize(
    ("revoked_at", "expires_at", "state"),
    [
        (None, None, A),
        (None, 100.5, A),
        (None, 100, E),  # at the very moment
        (None, 99, E),
        (50, None, R),
        (50, 200, R),
        (50, 99, R),  # a revoked key stays revoked when its time comes
    ],
)
def test_the_state_is_derived_from_times(revoked_at: float | None, expires_at: float | None, state: KeyState) -> None:
    assert state_of(revoked_at=revoked_at, expires_at=expires_at, now=100) is state


@pytest.mark.parametrize(("days", "expires"), [(0, None), (1, 1000 + DAY), (365, 1000 + 365 * DAY)])
def test_days_of_life(days: int, expires: float | None) -> None:
    assert expiry_from_days(days, 1000) == expires


@pytest.mark.parametrize("days", [-1, 366, 10**9])
def test_other_days_are_refused_in_the_words_clients_know(days: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        expiry_from_days(days, 1000)
    assert refused.value.message == "Invalid key expiration time. A value from 0-365 is required."


@MODERATE
@given(st.integers(0, 365), st.floats(0, 1e6), st.floats(0, 4e7))
def test_a_key_works_until_its_days_are_over(days: int, now: float, later: float) -> None:
    state = state_of(revoked_at=None, expires_at=expiry_from_days(days, now), now=now + later)
    assert state is (E if days and now + later >= now + days * DAY else A)


def test_the_diagram_draws_the_table_and_nothing_else() -> None:
    drawn = {line.strip() for line in diagram().splitlines()[2:]}
    moves = {f"{s.value} --> {'[*]' if after is D else after.value}: {e.value}" for s, e, after in TABLE if after is not None}
    assert drawn == moves


class Key:
    """A stored key, as the controller keeps it: two times and a mark."""

    def __init__(self, expires_at: float | None) -> None:
        self.expires_at = expires_at
        self.revoked_at: float | None = None
        self.deleted = False

    def state(self, now: float) -> KeyState:
        return D if self.deleted else state_of(revoked_at=self.revoked_at, expires_at=self.expires_at, now=now)


class KeyLife(RuleBasedStateMachine):
    """A key beside a model that knows three sentences: it is gone, it was revoked while it worked, its time is over."""

    @initialize(days=st.sampled_from([0, 1, 2, 365]))
    def create(self, days: int) -> None:
        self.now = 0.0
        self.key = Key(expiry_from_days(days, self.now))
        self.days = days
        self.revoked = self.gone = False

    @property
    def over(self) -> bool:
        return self.days != 0 and self.now >= self.days * DAY

    def attempt(self, event: KeyEvent, allowed: bool) -> bool:
        before = self.key.state(self.now)
        try:
            after = apply(before, event)
        except LifecycleError:
            assert not allowed
            return False
        assert allowed
        assert after is not before or event is RENAME
        return True

    @rule(hours=st.integers(1, 50))
    def wait(self, hours: int) -> None:
        self.now += hours * 3600

    @precondition(lambda self: self.days == 365)
    @rule()
    def wait_a_year(self) -> None:
        self.now += 365 * DAY

    @rule()
    def rename(self) -> None:
        self.attempt(RENAME, not (self.gone or self.revoked or self.over))

    @rule()
    def revoke(self) -> None:
        if self.attempt(REVOKE, not (self.gone or self.revoked or self.over)):
            self.key.revoked_at, self.revoked = self.now, True

    @rule()
    def delete(self) -> None:
        if self.attempt(DELETE, not self.gone and (self.revoked or self.over)):
            self.key.deleted = self.gone = True

    @invariant()
    def agrees(self) -> None:
        expected = D if self.gone else R if self.revoked else E if self.over else A
        assert self.key.state(self.now) is expected


TestKeyLife = KeyLife.TestCase
TestKeyLife.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
