"""Scopes of API tokens, what the audit calls them, and expiries."""

from __future__ import annotations

import pytest

from klinket.domain.api_token import ALL_SCOPES, MS_PER_DAY, expiry_from_days, parse_scopes, permission_of
from klinket.domain.errors import InvalidInput


@pytest.mark.parametrize(
    ("given", "scopes", "permission"),
    [
        (["read"], ["read"], "read only"),
        (["write"], ["read", "write"], "read write"),
        (["write", "read", "write"], ["read", "write"], "read write"),
        (["provision"], ["read", "write", "provision"], "provision"),
        (["provision", "read"], ["read", "write", "provision"], "provision"),
    ],
)
def test_a_scope_brings_those_below_it(given: list[str], scopes: list[str], permission: str) -> None:
    assert parse_scopes(given) == scopes
    assert permission_of(given) == permission
    assert set(scopes) <= set(ALL_SCOPES)


@pytest.mark.parametrize("given", [[], ["READ"], ["read", "admin"], [""], ["read "]])
def test_other_scopes_are_refused_by_field(given: list[str]) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_scopes(given)
    assert refused.value.field == "scopes"
    assert "read, write, provision" in refused.value.hint


@pytest.mark.parametrize(("days", "expires"), [(0, None), (1, MS_PER_DAY + 5), (365, 365 * MS_PER_DAY + 5)])
def test_days_end_at_a_moment_and_none_never(days: int, expires: int | None) -> None:
    assert expiry_from_days(days, 5) == expires


@pytest.mark.parametrize("days", [-1, 366, 2**31])
def test_other_days_are_refused_by_field(days: int) -> None:
    with pytest.raises(InvalidInput) as refused:
        expiry_from_days(days, 5)
    assert refused.value.field == "expirationTime"
