"""What a request carries: who asks, in which transaction, and what new key files say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from klinket.controller.app.ports import Actor, Transaction


@dataclass(frozen=True)
class KeyFileFacts:
    """What a new key file says besides the key: the controller's host (and port), and its private authority (PEM)."""

    network: str
    controller_ca: str | None


@dataclass(frozen=True)
class ApiCaller:
    """Who asks: `actor` for the audit, and the scopes of the token: read, write, provision."""

    actor: Actor
    scopes: frozenset[str]


@dataclass
class RequestContext:
    """What resolvers work with: `info.context`."""

    tx: Transaction
    caller: ApiCaller
    facts: KeyFileFacts
    entropy: Callable[[int], bytes]
