"""The lifecycle of a service key (facts §1): every legal move is a row, any other pair is an error.

`python -m klinket.domain.service_key` prints the diagram of docs/reference/service-key-lifecycle.md.
"""

from __future__ import annotations

from enum import Enum

from klinket.domain.errors import InvalidInput, LifecycleError

MIN_DAYS, MAX_DAYS = 0, 365
#: Days `klinket admin` offers; the API itself has no default.
DEFAULT_DAYS = 365
SECONDS_PER_DAY = 86_400
#: Days before a key's expiry at which admins are warned, the farthest first.
WARN_DAYS = (30, 7, 1)
#: Days without a login after which an active key counts as idle.
IDLE_DAYS = 30
INVALID_EXPIRATION = "Invalid key expiration time. A value from 0-365 is required."


class KeyState(Enum):
    """What a key is at a moment; derived on each read, no job has to run first."""

    ACTIVE = "ACTIVE"
    REVOKED = "REVOKED"
    EXPIRED = "EXPIRED"
    DELETED = "DELETED"


class KeyEvent(Enum):
    """What can happen to a key."""

    RENAME = "rename"
    REVOKE = "revoke"
    EXPIRE = "expire"
    DELETE = "delete"


MOVES: dict[tuple[KeyState, KeyEvent], KeyState] = {
    (KeyState.ACTIVE, KeyEvent.RENAME): KeyState.ACTIVE,
    (KeyState.ACTIVE, KeyEvent.REVOKE): KeyState.REVOKED,
    (KeyState.ACTIVE, KeyEvent.EXPIRE): KeyState.EXPIRED,  # derived from time alone
    (KeyState.REVOKED, KeyEvent.DELETE): KeyState.DELETED,  # never from ACTIVE: the revocation must be on record
    (KeyState.EXPIRED, KeyEvent.DELETE): KeyState.DELETED,  # the only move an expired key has
}

_HINTS: dict[tuple[KeyState, KeyEvent], str] = {
    (KeyState.ACTIVE, KeyEvent.DELETE): "revoke it first",
    (KeyState.REVOKED, KeyEvent.RENAME): "only an active key can be renamed",
    (KeyState.EXPIRED, KeyEvent.RENAME): "only an active key can be renamed",
    (KeyState.EXPIRED, KeyEvent.REVOKE): "an expired key opens nothing; it can be deleted",
    (KeyState.REVOKED, KeyEvent.REVOKE): "it opens nothing any more; it can be deleted",
}


def state_of(*, revoked_at: float | None, expires_at: float | None, now: float) -> KeyState:
    """Return the state of a key that is not deleted. Times in seconds since the epoch; `expires_at` None: never."""
    if revoked_at is not None:
        return KeyState.REVOKED
    if expires_at is not None and expires_at <= now:
        return KeyState.EXPIRED
    return KeyState.ACTIVE


def apply(state: KeyState, event: KeyEvent) -> KeyState:
    """Return the state after `event`; raises LifecycleError for a move that is not in MOVES."""
    try:
        return MOVES[state, event]
    except KeyError:
        raise LifecycleError(
            f"Service account key in {state.value} state cannot be {_PARTICIPLES[event]}",
            hint=_HINTS.get((state, event), ""),
        ) from None


_PARTICIPLES = {
    KeyEvent.RENAME: "renamed",
    KeyEvent.REVOKE: "revoked",
    KeyEvent.EXPIRE: "expired",
    KeyEvent.DELETE: "deleted",
}


def expiry_from_days(days: int, now: float) -> float | None:
    """Return when a key made at `now` expires, in seconds since the epoch; None for 0 days: never.

    Raises InvalidInput("expirationTime") outside 0 to 365, with the text that API clients know.
    """
    if not MIN_DAYS <= days <= MAX_DAYS:
        raise InvalidInput("expirationTime", INVALID_EXPIRATION)
    return None if days == 0 else now + days * SECONDS_PER_DAY


def due_warning(expires_at: float | None, warned_days: int | None, now: float) -> int | None:
    """Return the member of WARN_DAYS a warning is due for at `now`, or None; `warned_days`: the last one that was given.

    Times in seconds since the epoch. A key that has expired is not warned of any more.
    """
    if expires_at is None or expires_at <= now:
        return None
    reached = [days for days in WARN_DAYS if expires_at - now <= days * SECONDS_PER_DAY]
    if not reached or (warned_days is not None and warned_days <= min(reached)):
        return None
    return min(reached)


def warned_at_creation(days: int) -> int | None:
    """Return the member of WARN_DAYS that counts as given for a key that lives `days`: its end is no news then."""
    return min((one for one in WARN_DAYS if 0 < days <= one), default=None)


def is_idle(created_at: float, last_used_at: float | None, now: float) -> bool:
    """Return whether nobody has logged in with an active key for IDLE_DAYS. Times in seconds since the epoch."""
    return now - (created_at if last_used_at is None else last_used_at) > IDLE_DAYS * SECONDS_PER_DAY


def diagram() -> str:
    """Return the lifecycle as a Mermaid state diagram, drawn from MOVES."""
    lines = ["stateDiagram-v2", "    [*] --> ACTIVE: create"]
    for (state, event), after in MOVES.items():
        target = "[*]" if after is KeyState.DELETED else after.value
        lines.append(f"    {state.value} --> {target}: {event.value}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(diagram())  # noqa: T201
