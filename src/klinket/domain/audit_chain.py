"""The audit as a hash chain: each event's digest covers the event as exported and the digest before it.

An event as exported is a JSON object: the members of facts §6 (version, time, actor, action, targets), and klinket's own: number
(from 1, without gaps), source, request, detail, previous (the digest before it).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from klinket.domain.audit import AuditEvent
from klinket.domain.moments import iso

VERSION = "1"
#: What the first event names as the digest before it.
BEGINNING = "0" * 64


@dataclass(frozen=True, slots=True)
class SignedBlock:
    """What the controller signs as it goes: the digest of each event from number `first` on. `time`: seconds, of signing.

    Each digest is in it, not only the last one: whoever alters an event and computes all digests after it anew is told which
    event it was.
    """

    network: str
    first: int
    previous: str
    digests: tuple[str, ...]
    time: int

    @property
    def last(self) -> int:
        """Return the number of the last event in it."""
        return self.first + len(self.digests) - 1


@dataclass(frozen=True, slots=True)
class SignedRange:
    """What the controller signs under an export: which events are in it, so that neither end can be cut off.

    `previous`: the digest before the first event; `digest`: of the last one. `begin_ms` (in it) and `end_ms` (not in it): the
    time range that was asked for, None where it is open. An empty export has `last` = `first` - 1.
    """

    network: str
    first: int
    last: int
    previous: str
    digest: str
    begin_ms: int | None
    end_ms: int | None
    time: int


@dataclass(frozen=True, slots=True)
class SignedAnchor:
    """What the controller signs in place of events that its retention removed: all up to event `number`, the last of them.

    `digest`: of that event, which the next one names; `until_ms`: its time; `time`: seconds, of the removal.
    """

    network: str
    number: int
    digest: str
    until_ms: int
    time: int


def exported(event: AuditEvent, *, number: int, time_ms: int, previous: str) -> dict[str, Any]:
    """Return the event as exported, without its digest."""
    actor = event.actor
    return {
        "version": VERSION,
        "number": number,
        "time": iso(time_ms),
        "actor": {"type": actor.type.value, "id": actor.id, "info": {"name": actor.name} if actor.name else None},
        "action": event.action.value,
        "targets": list(event.targets),
        "source": actor.source,
        "request": actor.request.to_json() if actor.request is not None else None,
        "detail": event.detail,
        "previous": previous,
    }


def digest_of(event: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hex, of an event as exported; a member `digest` does not count."""
    covered = {name: value for name, value in event.items() if name != "digest"}
    canonical = json.dumps(covered, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
