"""Audit events in people's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from klinket.controller.app.audit_search import shown
from klinket.controller.app.rows import AuditRow
from klinket.domain.audit import AuditAction

_ACTIONS = {
    AuditAction.CREATE: "Created",
    AuditAction.EDIT: "Changed",
    AuditAction.DELETE: "Deleted",
    AuditAction.REVOKE: "Revoked",
    AuditAction.LOGIN: "Logged in",
    AuditAction.REFUSE: "Refused",
    AuditAction.ENROL: "Enrolled",
    AuditAction.CUT: "Cut",
    AuditAction.WARN: "Warned",
    AuditAction.ALARM: "Alarm",
    AuditAction.LOGOUT: "Logged out",
    AuditAction.LOCK_OUT: "Locked out",
    AuditAction.PRUNE: "Pruned",
}
#: Types of objects in audit events, as people call them.
OBJECTS = {
    "serviceAccount": "Service",
    "serviceAccountKey": "Service key",
    "resource": "Resource",
    "remoteNetwork": "Remote network",
    "connector": "Connector",
    "relay": "Relay",
    "group": "Group",
    "user": "User",
    "device": "Device",
    "serialNumber": "Serial number",
    "securityPolicy": "Security policy",
    "publicAPIKey": "API token",
    "session": "Session",
    "sink": "Sink",
    "cut": "Cut",
    "controller": "Controller",
    "signingKey": "Signing key",
    "audit": "Audit",
}
#: Where the page of an object is.
_PLACES = {
    "serviceAccount": "/team/services/",
    "resource": "/network/resources/",
    "remoteNetwork": "/network/remote-networks/",
    "connector": "/network/connectors/",
    "group": "/team/groups/",
    "user": "/team/users/",
    "cut": "/activity/cuts/",
    "relay": "/settings/relays/",
    "sink": "/settings/sinks/",
    "securityPolicy": "/policies/",
    "publicAPIKey": "/settings/api-tokens/",
}


def action_in_words(word: str) -> str:
    """Return what was done."""
    try:
        return _ACTIONS.get(AuditAction(word), word)
    except ValueError:
        return word


def did(row: AuditRow) -> str:
    """Return what an event did, in a word or two."""
    granted = {"granted": "Granted", "removed": "Took away"}.get(str(row.detail.get("access")))
    ended = "Ended" if row.detail.get("session") == "ended" else None
    return granted or ended or action_in_words(row.action)


def object_link(target: Mapping[str, Any]) -> str | None:
    """Return the page of an object, below the console's root; None where it has none, or was deleted."""
    type, id = str(target.get("type")), str(target.get("id"))
    if type == "serviceAccountKey":
        owner = target.get("serviceAccount")
        type, id = "serviceAccount", str(owner.get("id")) if isinstance(owner, dict) else ""
    return _PLACES[type] + id if type in _PLACES and id.isascii() and id.isdigit() else None


def detail_of(row: AuditRow) -> list[tuple[str, str]]:
    """Return what an event says beside before and after."""
    return [(name, shown(value) or "–") for name, value in row.detail.items() if name != "before"]
