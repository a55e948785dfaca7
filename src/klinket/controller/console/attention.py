"""What an admin should look at first: what does not work, what soon will not, and what looks wrong."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from klinket.controller.app import connectors
from klinket.controller.app.cuts import PENDING
from klinket.controller.app.flow_totals import HOUR_MS
from klinket.controller.app.ports import Transaction
from klinket.controller.console.network.health import MIN_VERSION, health
from klinket.controller.console.words import duration_in_words
from klinket.domain.service_key import WARN_DAYS

DAY_MS = 24 * HOUR_MS
#: Days before its expiry from which on a key needs attention, as warnings are.
KEY_DAYS = max(WARN_DAYS)
#: Names said of one kind of thing.
MAX_NAMES = 3
#: Denials in a day that are worth a look, and by how much they must have grown since the day before.
MANY_DENIALS, GROWTH = 10, 1.5
#: Newest cuts whose receipts are looked at.
RECENT_CUTS = 50


@dataclass(frozen=True, slots=True)
class Attention:
    """`kind`: "bad" or "warn"; `path`: below the console's root."""

    kind: str
    title: str
    told: str
    path: str


def look(tx: Transaction, online: Container[int]) -> list[Attention]:
    """Return what needs attention, the worst first."""
    found = [*_connectors(tx, online), *_networks(tx, online), *_receipts(tx), *_sinks(tx), *_denials(tx), *_keys(tx)]
    return sorted(found, key=lambda one: one.kind != "bad")


def _named(names: list[str]) -> str:
    rest = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def _count(names: list[str], one: str, many: str) -> str:
    return f"1 {one}" if len(names) == 1 else f"{len(names)} {many}"


def _connectors(tx: Transaction, online: Container[int]) -> list[Attention]:
    rows = [(row, health(row, online, tx.now_ms)) for row in tx.connectors.find()]
    away = [row for row, state in rows if not state.is_online and row.last_heartbeat_ms is not None]
    old = [row for row, state in rows if state.is_too_old]
    wrong = [row for row, state in rows if state.has_wrong_clock]
    found = []
    if away:
        names = [row.name for row in away]
        path = f"/network/connectors/{away[0].id}" if len(away) == 1 else "/network/connectors"
        found.append(Attention("bad", _count(names, "connector is offline", "connectors are offline"), _named(names), path))
    if old:
        told = f"{_named([row.name for row in old])}: below {MIN_VERSION}, services get nothing new in their remote networks"
        title = _count([row.name for row in old], "connector is too old for services", "connectors are too old for services")
        found.append(Attention("warn", title, told, f"/network/connectors/{old[0].id}"))
    if wrong:
        told = f"{_named([row.name for row in wrong])}: more than {duration_in_words(connectors.MAX_CLOCK_OFFSET_MS)} off"
        title = _count([row.name for row in wrong], "connector has a wrong clock", "connectors have a wrong clock")
        found.append(Attention("warn", title, told, f"/network/connectors/{wrong[0].id}"))
    return found


def _networks(tx: Transaction, online: Container[int]) -> list[Attention]:
    served = {network for id, network in tx.connectors.pick(("id", "remote_network_id")) if id in online}
    used = {network for network, _ in tx.resources.totals(("remote_network_id",), is_active=True)}
    rows = [row for row in tx.remote_networks.find(id=used - served) if row.is_active]
    if not rows:
        return []
    names = [row.name for row in rows]
    title = _count(names, "remote network is out of reach", "remote networks are out of reach")
    path = f"/network/remote-networks/{rows[0].id}" if len(rows) == 1 else "/network/remote-networks"
    return [Attention("bad", title, f"{_named(names)}: no connector is online, no resource there is reached", path)]


def _receipts(tx: Transaction) -> list[Attention]:
    cuts = tx.cuts.newest(RECENT_CUTS)
    waiting = [
        row
        for row in tx.cut_receipts.find(cut_id={cut.id for cut in cuts}, state=PENDING)
        if row.grants_end_at_ms > tx.now_ms and tx.connectors.get(row.connector_id) is not None
    ]
    if not waiting:
        return []
    ends = duration_in_words(max(row.grants_end_at_ms for row in waiting) - tx.now_ms)
    names = sorted({row.connector_name for row in waiting})
    cut = max(row.cut_id for row in waiting)
    told = f"{_named(names)} has not answered yet; in {ends} at the latest nothing flows there any more"
    if len(names) > 1:
        told = told.replace(" has ", " have ", 1)
    count = len({row.cut_id for row in waiting})
    return [
        Attention(
            "warn", "1 cut is not confirmed" if count == 1 else f"{count} cuts are not confirmed", told, f"/activity/cuts/{cut}"
        )
    ]


def _sinks(tx: Transaction) -> list[Attention]:
    failing = [row for row in tx.sinks.find(is_enabled=True) if row.attempts]
    if not failing:
        return []
    names = [row.name for row in failing]
    told = f"{_named(names)}: {failing[0].last_error or 'the last delivery failed'}"
    return [Attention("bad", _count(names, "sink gets no events", "sinks get no events"), told[:300], "/settings/sinks")]


def _denials(tx: Transaction) -> list[Attention]:
    def denied(begin_ms: int, end_ms: int) -> int:
        least, below = {"hour_ms": begin_ms}, {"hour_ms": end_ms}
        found = tx.flow_hours.totals(("kind",), "flows", least=least, below=below, kind="denied")
        return int(found[0][1]) if found else 0

    end = tx.now_ms - tx.now_ms % HOUR_MS + HOUR_MS
    now, before = denied(end - DAY_MS, end), denied(end - 2 * DAY_MS, end - DAY_MS)
    if now < MANY_DENIALS or now < before * GROWTH:
        return []
    told = f"{now} in 24 hours, {before} in the 24 hours before"
    return [Attention("warn", "Denials are rising", told, "/activity/flows?result=denied")]


def _keys(tx: Transaction) -> list[Attention]:
    least, below = {"expires_at_ms": tx.now_ms + 1}, {"expires_at_ms": tx.now_ms + KEY_DAYS * DAY_MS}
    counted = tx.service_keys.totals((), least=least, below=below, revoked_at_ms=None)
    count = int(counted[0][0]) if counted else 0
    if not count:
        return []
    near = tx.service_keys.select("expires_at_ms", MAX_NAMES, least=least, below=below, revoked_at_ms=None)
    rest = f" and {count - len(near)} more" if count > len(near) else ""
    first = duration_in_words((near[0].expires_at_ms or 0) - tx.now_ms)
    told = f"{', '.join(row.name for row in near)}{rest}; the first in {first}"
    path = f"/team/services/{near[0].service_account_id}" if count == 1 else "/team/services/keys?show=expiring"
    return [Attention("warn", "1 key expires soon" if count == 1 else f"{count} keys expire soon", told, path)]
