"""Audit events (facts §6): who changed what, never a secret."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class ActorType(Enum):
    """Who did it: a person, an API token, or the controller itself (for example at an expiry)."""

    USER = "User"
    API = "API"
    SYSTEM = "System"


@dataclass(frozen=True, slots=True)
class RequestIds:
    """What a client said of its request (facts §7): an id of each try, one of the whole run, and its User-Agent."""

    request: str | None = None
    correlation: str | None = None
    user_agent: str | None = None

    def to_json(self) -> dict[str, str | None]:
        """Return JSON-ready values."""
        return {"id": self.request, "correlationId": self.correlation, "userAgent": self.user_agent}


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts. `name` of the token or person; `source` is the address the request came from."""

    type: ActorType
    id: str | None = None
    name: str | None = None
    source: str | None = None
    request: RequestIds | None = None


SYSTEM = Actor(ActorType.SYSTEM, name="controller")


class AuditAction(Enum):
    """What was done. The first three are the compatible ones; the rest is klinket's own."""

    CREATE = "create"
    EDIT = "edit"
    DELETE = "delete"
    REVOKE = "revoke"
    LOGIN = "login"
    LOGOUT = "logout"
    LOCK_OUT = "lockOut"
    REFUSE = "refuse"
    ENROL = "enrol"
    CUT = "cut"
    WARN = "warn"
    ALARM = "alarm"
    PRUNE = "prune"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One event. `targets`: objects as in facts §6, each with type, id and name; `detail`: before and after, no secrets."""

    action: AuditAction
    actor: Actor
    targets: tuple[dict[str, Any], ...]
    detail: dict[str, Any] = field(default_factory=dict)
