"""How a connector is, in words: the Admin API's state, whether it is attached now, and what stands in its way."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from klinket.controller.app import connectors
from klinket.controller.app.rows import ConnectorRow
from klinket.controller.console.words import duration_in_words
from klinket.domain.connector import MIN_VERSION_FOR_SERVICES, check_services_allowed
from klinket.domain.errors import ConnectorTooOld

#: Milliseconds of difference below which two clocks are said to agree: the way of a report takes some of it.
IN_STEP_MS = 1_000


@dataclass(frozen=True, slots=True)
class Health:
    """`kind`: of a pill; `state`: the ConnectorState of the Admin API; `is_online`: it has a live channel."""

    kind: str
    label: str
    told: str
    state: str
    is_online: bool
    is_too_old: bool
    has_wrong_clock: bool
    clock: str


def health(row: ConnectorRow, online: Container[int], now_ms: int) -> Health:
    """Return the health of a connector. `online`: those with a live channel."""
    state = connectors.state(row, now_ms)
    is_online = row.id in online
    offset = row.clock_offset_ms
    has_wrong_clock = is_online and offset is not None and abs(offset) > connectors.MAX_CLOCK_OFFSET_MS
    if is_online:
        kind, label, told = "ok", "Online", "It is attached and takes flows."
    elif row.last_heartbeat_ms is None:
        kind, label, told = "idle", "Never connected", "It has never reported. Start it with its tokens."
    elif row.left_ms is not None:
        kind, label, told = "idle", "Stopped", "It was stopped in order. Start it again to reach its remote network through it."
    elif state == "ALIVE":
        kind, label, told = "warn", "Connection lost", "Its channel has just ended; it comes back by itself if it still runs."
    else:
        kind, label, told = "bad", "Offline", "It does not report. Look at its host, its log and its way to the controller."
    if has_wrong_clock:
        kind, told = "warn", "Its clock is wrong: logins and grants fail there now and then. Let its host keep time with NTP."
    return Health(kind, label, told, state, is_online, too_old(row), has_wrong_clock, _clock_in_words(offset))


def too_old(row: ConnectorRow) -> bool:
    """Return whether this connector keeps services from the resources of its remote network."""
    try:
        check_services_allowed([(row.name, row.version)])
    except ConnectorTooOld:
        return True
    return False


def _clock_in_words(offset_ms: int | None) -> str:
    if offset_ms is None:
        return "not told yet"
    if abs(offset_ms) < IN_STEP_MS:
        return "in step with the controller"
    return f"{duration_in_words(abs(offset_ms))} {'ahead of' if offset_ms > 0 else 'behind'} the controller"


MIN_VERSION = str(MIN_VERSION_FOR_SERVICES)
