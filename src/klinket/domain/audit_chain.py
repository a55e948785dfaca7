"""The audit as a hash chain: each event's digest covers the event as exported and the digest before it.

An event as exported is a JSON object: the members of facts §6 (version, time, actor, action, targets), and klinket's own: number
(from 1, without gaps), source, request, detail, previous (the digest before it).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from klinket.domain.audit import AuditEvent

VERSION = "1"
#: What the first event names as the digest before it.
BEGINNING = "0" * 64


def exported(event: AuditEvent, *, number: int, time_ms: int, previous: str) -> dict[str, Any]:
    """Return the event as exported, without its digest."""
    actor = event.actor
    return {
        "version": VERSION,
        "number": number,
        "time": datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(),
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
