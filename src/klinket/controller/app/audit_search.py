"""The audit as people look for it: who acted, what they did, to what, and when; the newest first."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from klinket.controller.app.ports import Position, Transaction
from klinket.controller.app.rows import AuditRow

#: Events one page looks through for those it shows.
MAX_LOOKED_AT = 20_000


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """None, or empty: any. `actor`: in who acted, by name, id or source; `object`: in what it was done to, by name or id."""

    actor: str = ""
    action: str | None = None
    object_type: str | None = None
    object: str = ""
    begin_ms: int | None = None
    end_ms: int | None = None

    @property
    def texts(self) -> dict[str, list[str]]:
        """Return the texts that must be in the columns of an event, as they are written there."""
        targets = [_written(self.object)] if self.object else []
        if self.object_type:
            targets.append(f'"type": {json.dumps(self.object_type)}')
        return {
            name: texts
            for name, texts in (("actor", [_written(self.actor)] if self.actor else []), ("targets", targets))
            if texts
        }


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Events, the newest first; `older`, `newer`: from where to go on, None: there are none. `is_partial`: as of FlowPage."""

    rows: list[AuditRow]
    older: Position | None
    newer: Position | None
    is_partial: bool = False


def events(
    tx: Transaction, wanted: AuditFilter, size: int, *, before: Position | None = None, after: Position | None = None
) -> AuditPage:
    """Return a page of events: the newest, those `before` a position (number, id), or those just `after` one."""
    least, below = _numbers(tx, wanted)
    rows, end = tx.audit.look_through(
        "number",
        size + 1,
        at_most=MAX_LOOKED_AT,
        narrowed={} if wanted.action is None else {"action": wanted.action},
        before=before,
        after=after,
        least=least,
        below=below,
        containing=wanted.texts,
    )
    more, rows = len(rows) > size, rows[:size]
    if after is not None:
        rows.reverse()
        newest = _position(rows[0]) if rows else after
        return AuditPage(rows, _position(rows[-1]) if rows else after, newest if more or end is not None else None)
    newer = before if before is None else (_position(rows[0]) if rows else before)
    if more:
        return AuditPage(rows, _position(rows[-1]), newer)
    return AuditPage(rows, end, newer, is_partial=end is not None)


def _numbers(tx: Transaction, wanted: AuditFilter) -> tuple[dict[str, int], dict[str, int]]:
    """Return a time range as numbers: times never go back along them."""
    least, below = {}, {}
    if wanted.begin_ms is not None:
        found = tx.audit.select("time_ms", 1, least={"time_ms": wanted.begin_ms})
        head = tx.audit_head.get(1)
        least["number"] = found[0].number if found else (0 if head is None else head.number) + 1
    if wanted.end_ms is not None:
        found = tx.audit.select("time_ms", 1, least={"time_ms": wanted.end_ms})
        if found:
            below["number"] = found[0].number
    return least, below


def _position(row: AuditRow) -> Position:
    return (row.number, row.id)


def _written(text: str) -> str:
    """Return a text as JSON in the store writes it."""
    return json.dumps(text)[1:-1]


# ---- what an event changed


@dataclass(frozen=True, slots=True)
class Difference:
    """One field before and after, as texts; None: it was not there. `changed`: whether they differ."""

    name: str
    before: str | None
    after: str | None

    @property
    def changed(self) -> bool:
        """Return whether the field is another now."""
        return self.before != self.after


def differences(row: AuditRow) -> list[Difference]:
    """Return the fields of the object that was edited, before and after; none where the event does not tell."""
    before = row.detail.get("before")
    if not isinstance(before, dict) or not row.targets:
        return []
    old, new = dict(fields_of(before)), dict(fields_of(row.targets[0]))
    return [Difference(name, old.get(name), new.get(name)) for name in dict.fromkeys([*old, *new])]


def fields_of(target: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Return what an event says of an object, as texts; a field of a field is called by both names."""
    found: list[tuple[str, str | None]] = []
    for name, value in target.items():
        if isinstance(value, dict) and not _is_ports(value):
            found += [(f"{name}.{part}", shown(inner)) for part, inner in value.items() if part != "version"]
        elif name != "version":
            found.append((name, shown(value)))
    return found


def shown(value: Any) -> str | None:
    """Return a value of an event as people read it; None for null."""
    match value:
        case None:
            return None
        case bool():
            return "yes" if value else "no"
        case str():
            return value
        case dict() if _is_ports(value):
            ports = ", ".join(_ports(port) for port in value["ports"] if isinstance(port, dict))
            return "all ports" if value["policy"] == "ALLOW_ALL" else ports or "no ports"
        case _:
            return json.dumps(value, ensure_ascii=False)


def _is_ports(value: Mapping[str, Any]) -> bool:
    return set(value) == {"policy", "ports"}


def _ports(port: dict[str, Any]) -> str:
    start, end = port.get("start"), port.get("end")
    return str(start) if start == end else f"{start}–{end}"
