"""Access policies of resources and of groups' access (facts §4): they concern users, never services."""

from __future__ import annotations

from klinket.domain.errors import InvalidInput

MANUAL = "MANUAL"
AUTO_LOCK = "AUTO_LOCK"
SECONDS_PER_DAY = 86_400
#: How long access may stay unused before it locks, or last once it was asked for, in seconds.
MIN_DURATION_SECONDS, MAX_DURATION_SECONDS = 3_600, 366 * SECONDS_PER_DAY
#: The same in the older spelling, in whole days.
MAX_AUTOLOCK_DAYS = 366


def check_duration(mode: str, seconds: int | None) -> int | None:
    """Return the duration that goes with the mode, in seconds; None for MANUAL. Raises InvalidInput("durationSeconds")."""
    if mode == MANUAL:
        return None
    if seconds is None:
        if mode == AUTO_LOCK:
            raise InvalidInput("durationSeconds", "AUTO_LOCK needs durationSeconds: after how long access locks")
        return None
    if not MIN_DURATION_SECONDS <= seconds <= MAX_DURATION_SECONDS:
        raise InvalidInput("durationSeconds", f"durationSeconds is {MIN_DURATION_SECONDS} to {MAX_DURATION_SECONDS}")
    return seconds


def seconds_of_days(days: int) -> int:
    """Return usageBasedAutolockDurationDays in seconds; raises InvalidInput."""
    if not 1 <= days <= MAX_AUTOLOCK_DAYS:
        raise InvalidInput("usageBasedAutolockDurationDays", f"usageBasedAutolockDurationDays is 1 to {MAX_AUTOLOCK_DAYS}")
    return days * SECONDS_PER_DAY
