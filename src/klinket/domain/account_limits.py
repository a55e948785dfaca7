"""Limits of a service account, all its keys together, and the seats of a key (security.md 20).

An account has the defaults but for what is set for it. A limit keeps one system from taking what others need; it permits nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any

from klinket.domain.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class AccountLimits:
    """`*_burst`: so many at once, and `*_per_second` after that. Flows and bytes are counted at each connector.

    `bytes_per_second`: content of all flows together, in each direction by itself; None: no limit.
    """

    login_burst: int = 60
    logins_per_second: float = 2.0
    max_sessions: int = 1_000
    new_flows_burst: int = 2_000
    new_flows_per_second: float = 500.0
    max_flows: int = 10_000
    bytes_per_second: int | None = None


#: What an account has for which nothing is set.
DEFAULTS = AccountLimits()
#: Seconds of new flows that an account may open at once, where only the rate is said.
BURST_SECONDS = 4
#: The least and the most of each limit.
BOUNDS: Mapping[str, tuple[float, float]] = {
    "login_burst": (1, 10_000),
    "logins_per_second": (0.01, 1_000),
    "max_sessions": (1, 10_000),
    "new_flows_burst": (1, 4_000_000),
    "new_flows_per_second": (0.1, 1_000_000),
    "max_flows": (1, 50_000),
    "bytes_per_second": (10_000, 2_000_000_000),
}
#: What connectors enforce; the rest is the controller's.
AT_CONNECTORS = ("new_flows_burst", "new_flows_per_second", "max_flows", "bytes_per_second")
_WHOLE = frozenset(field.name for field in fields(AccountLimits) if field.type in {"int", "int | None"})
#: Sessions at a time that one key can be given seats for.
MAX_SEATS = 10_000


def defaults_with(new_flows_per_second: float) -> AccountLimits:
    """Return the defaults of a network whose accounts may open so many new flows a second, BURST_SECONDS of them at once."""
    burst = int(BURST_SECONDS * new_flows_per_second)
    return replace(DEFAULTS, new_flows_per_second=float(new_flows_per_second), new_flows_burst=burst)


def limits_of(own: Mapping[str, float], defaults: AccountLimits = DEFAULTS) -> AccountLimits:
    """Return the defaults with what is set for one account."""
    values: dict[str, Any] = dict(own)
    return replace(defaults, **values)


def check_limit(name: str, value: float, field: str) -> float:
    """Return the value of a limit as it is stored; raises InvalidInput that names `field`."""
    least, most = BOUNDS[name]
    whole = name in _WHOLE
    if not math.isfinite(value) or not least <= value <= most or (whole and value != int(value)):
        kind = "a whole number " if whole else ""
        raise InvalidInput(field, f"{field} must be {kind}from {least:,g} to {most:,.0f}")
    return int(value) if whole else float(value)


class SeatsExceeded(Enum):
    """What happens when a key with seats is used by more sessions than it has seats for."""

    ALERT = "alert"
    REFUSE = "refuse"


def check_seats(seats: int | None, field: str = "seats") -> int | None:
    """Return how many sessions a key may have at a time, None: as many as its account; raises InvalidInput."""
    if seats is not None and not 1 <= seats <= MAX_SEATS:
        raise InvalidInput(field, f"{field} must be a whole number from 1 to {MAX_SEATS:,}")
    return seats
