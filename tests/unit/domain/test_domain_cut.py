"""Cuts and floors: only what is older and in scope is struck (security.md 13)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.cut import Cut, CutScope, Floors, ScopeKind, Stamp
from klinket.domain.flow import FlowFailure
from klinket.domain.grant import Principal
from klinket.domain.identifiers import ConnectorId, CutId, Kid, ResourceId, ServiceAccountUuid, SessionId
from tests.unit.domain.conftest import MODERATE

ACCOUNT, OTHER_ACCOUNT = ServiceAccountUuid("account-1"), ServiceAccountUuid("account-2")
KEY, OTHER_KEY = Kid("key-1"), Kid("key-2")
SESSION, OTHER_SESSION = SessionId("session-1"), SessionId("session-2")
RESOURCE, OTHER_RESOURCE = ResourceId(1), ResourceId(2)
PRINCIPAL = Principal(ACCOUNT, KEY, SESSION)

SCOPES = {
    ScopeKind.ACCOUNT: CutScope.of_account(ACCOUNT),
    ScopeKind.KEY: CutScope.of_key(KEY),
    ScopeKind.SESSION: CutScope.of_session(SESSION),
    ScopeKind.RESOURCE: CutScope.of_resource(RESOURCE),
    ScopeKind.ACCESS: CutScope.of_access(ACCOUNT, RESOURCE),
    ScopeKind.CONNECTOR: CutScope.of_connector(ConnectorId(7)),
}
#: What each kind of scope looks at.
LOOKS_AT = {
    ScopeKind.ACCOUNT: {"account"},
    ScopeKind.KEY: {"key"},
    ScopeKind.SESSION: {"session"},
    ScopeKind.RESOURCE: {"resource"},
    ScopeKind.ACCESS: {"account", "resource"},
    ScopeKind.CONNECTOR: set(),  # it goes to that connector alone
}


def cut(id: int, scope: CutScope, stamp: Stamp = (1, 10), issued_at: float = 100) -> Cut:
    return Cut(CutId(id), scope, *stamp, FlowFailure.CUT, issued_at)


def test_every_kind_of_scope_is_tested() -> None:
    assert set(SCOPES) == set(LOOKS_AT) == set(ScopeKind)


@pytest.mark.parametrize("kind", ScopeKind)
@pytest.mark.parametrize("changed", [set(), {"account"}, {"key"}, {"session"}, {"resource"}, {"account", "resource"}])
def test_a_scope_covers_by_what_it_looks_at_and_nothing_else(kind: ScopeKind, changed: set[str]) -> None:
    principal = Principal(
        OTHER_ACCOUNT if "account" in changed else ACCOUNT,
        OTHER_KEY if "key" in changed else KEY,
        OTHER_SESSION if "session" in changed else SESSION,
    )
    resource = OTHER_RESOURCE if "resource" in changed else RESOURCE
    assert SCOPES[kind].covers(principal, resource) is not bool(LOOKS_AT[kind] & changed)


@pytest.mark.parametrize("kind", ScopeKind)
def test_an_empty_scope_covers_nobody(kind: ScopeKind) -> None:
    assert not CutScope(kind).covers(PRINCIPAL, RESOURCE)


@pytest.mark.parametrize(
    ("granted_at", "struck"),
    [((1, 9), True), ((1, 10), False), ((1, 11), False), ((0, 99), True), ((2, 1), True)],
)
def test_older_grants_are_struck_and_those_of_another_epoch(granted_at: Stamp, struck: bool) -> None:
    assert cut(1, CutScope.of_key(KEY), (1, 10)).strikes(PRINCIPAL, RESOURCE, granted_at) is struck


def test_a_cut_is_kept_once() -> None:
    floors = Floors([cut(1, CutScope.of_key(KEY))])
    assert not floors.add(cut(1, CutScope.of_key(KEY)))
    assert floors.add(cut(2, CutScope.of_key(KEY)))
    assert len(floors) == 2
    assert {one.id for one in floors} == {1, 2}


def test_an_id_given_once_more_after_a_restore_is_another_cut() -> None:
    # The database went back to revision 4 and gave number 7 again: both cuts are in force.
    floors = Floors([cut(7, CutScope.of_key(KEY), (1, 9))])
    assert floors.add(cut(7, CutScope.of_account(OTHER_ACCOUNT), (1, 5)))
    assert floors.add(cut(7, CutScope.of_account(ACCOUNT), (2, 9)))
    assert len(floors) == 3
    assert [one.stamp for one in floors.striking(PRINCIPAL, RESOURCE, (1, 1))] == [(2, 9), (1, 9)]


def test_the_newest_cut_comes_first() -> None:
    floors = Floors([cut(1, CutScope.of_key(KEY), (1, 5)), cut(2, CutScope.of_account(ACCOUNT), (2, 1))])
    floors.add(cut(3, CutScope.of_session(SESSION), (1, 8)))
    floors.add(cut(4, CutScope.of_session(OTHER_SESSION), (3, 1)))
    assert [one.id for one in floors.striking(PRINCIPAL, RESOURCE, (1, 1))] == [2, 3, 1]


def test_old_cuts_are_forgotten() -> None:
    floors = Floors([cut(1, CutScope.of_key(KEY), issued_at=100), cut(2, CutScope.of_key(KEY), issued_at=200)])
    floors.forget(200)
    assert [one.id for one in floors] == [2]
    assert floors.add(cut(1, CutScope.of_key(KEY), issued_at=300))


def test_floors_can_change_while_they_are_looked_through() -> None:
    floors = Floors(cut(id, CutScope.of_key(KEY), issued_at=id) for id in range(5))
    for one in floors:
        floors.forget(one.issued_at + 1)
    assert len(floors) == 0


SCOPE = st.sampled_from([*SCOPES.values(), CutScope.of_account(OTHER_ACCOUNT), CutScope.of_resource(OTHER_RESOURCE)])
STAMP = st.tuples(st.integers(1, 3), st.integers(0, 5))


@MODERATE
@given(st.lists(st.tuples(SCOPE, STAMP), max_size=8), STAMP, st.sampled_from([RESOURCE, OTHER_RESOURCE]))
def test_floors_find_exactly_the_cuts_that_strike(cuts: list[tuple[CutScope, Stamp]], at: Stamp, resource: ResourceId) -> None:
    floors = Floors(cut(id, scope, stamp) for id, (scope, stamp) in enumerate(cuts))
    found = floors.striking(PRINCIPAL, resource, at)
    expected = {
        id
        for id, (scope, stamp) in enumerate(cuts)
        if (at[0] != stamp[0] or at[1] < stamp[1]) and scope.covers(PRINCIPAL, resource)
    }
    assert {one.id for one in found} == expected
    assert [one.stamp for one in found] == sorted((one.stamp for one in found), reverse=True)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (ScopeKind.ACCOUNT, "account account-1"),
        (ScopeKind.KEY, "key key-1"),
        (ScopeKind.SESSION, "session session-1"),
        (ScopeKind.RESOURCE, "resource 1"),
        (ScopeKind.ACCESS, "access account-1 1"),
    ],
)
def test_a_scope_tells_what_it_is_about(kind: ScopeKind, text: str) -> None:
    assert str(SCOPES[kind]) == text


@pytest.mark.parametrize("kind", ScopeKind)
def test_keys_accounts_and_sessions_that_were_cut_are_over(kind: ScopeKind) -> None:
    over = kind in (ScopeKind.ACCOUNT, ScopeKind.KEY, ScopeKind.SESSION)
    made = cut(1, SCOPES[kind])
    floors = Floors([made])
    assert floors.ending(PRINCIPAL) == (made if over else None)
    assert floors.ending(Principal(OTHER_ACCOUNT, OTHER_KEY, OTHER_SESSION)) is None
    assert SCOPES[kind].holds(PRINCIPAL) is SCOPES[kind].ends_sessions is over
    floors.forget(101)
    assert floors.ending(PRINCIPAL) is None
    assert floors.striking(PRINCIPAL, RESOURCE, (0, 0)) == []


def test_a_decision_looks_at_no_cut_of_anybody_else() -> None:
    class Counted(Cut):
        asked = 0

        def strikes(self, *arguments: object) -> bool:
            Counted.asked += 1
            return super().strikes(*arguments)  # type: ignore[arg-type]

    others = [Counted(CutId(n), CutScope.of_key(Kid(f"k{n}")), 1, n, FlowFailure.CUT, 100) for n in range(5000)]
    floors = Floors([*others, Counted(CutId(6000), SCOPES[ScopeKind.ACCESS], 1, 6000, FlowFailure.CUT, 100)])
    assert [one.id for one in floors.striking(PRINCIPAL, RESOURCE, (1, 1))] == [6000]
    assert Counted.asked == 1
