"""What an API token may do: three scopes, each of which brings those below it (facts §7)."""

from __future__ import annotations

from collections.abc import Iterable

from klinket.domain.errors import InvalidInput

READ, WRITE, PROVISION = "read", "write", "provision"
#: From the least to the most; a scope brings all before it.
ALL_SCOPES = (READ, WRITE, PROVISION)
#: What audit events call a token by its highest scope (facts §6).
_PERMISSIONS = {READ: "read only", WRITE: "read write", PROVISION: "provision"}
#: Days of a token; 0: it never expires.
MIN_DAYS, MAX_DAYS = 0, 365
MS_PER_DAY = 86_400_000


def parse_scopes(given: Iterable[str]) -> list[str]:
    """Return the scopes with all they bring, from the least to the most; raises InvalidInput("scopes")."""
    wanted = set(given)
    unknown = sorted(wanted - set(ALL_SCOPES))
    if unknown:
        raise InvalidInput("scopes", f"scopes holds {unknown[0]!r}", hint=f"there are {', '.join(ALL_SCOPES)}")
    if not wanted:
        raise InvalidInput("scopes", "scopes must not be empty", hint=f"give one of {', '.join(ALL_SCOPES)}")
    return list(ALL_SCOPES[: max(ALL_SCOPES.index(scope) for scope in wanted) + 1])


def permission_of(scopes: Iterable[str]) -> str:
    """Return the audit's word for a set of scopes: "read only", "read write" or "provision"."""
    return _PERMISSIONS[parse_scopes(scopes)[-1]]


def expiry_from_days(days: int, now_ms: int) -> int | None:
    """Return when a token made at `now_ms` expires, in milliseconds since the epoch; None for 0 days: never.

    Raises InvalidInput("expirationTime") outside 0 to 365.
    """
    if not MIN_DAYS <= days <= MAX_DAYS:
        raise InvalidInput("expirationTime", f"expirationTime is {days} days, {MIN_DAYS} (never) to {MAX_DAYS} are possible")
    return None if days == 0 else now_ms + days * MS_PER_DAY
