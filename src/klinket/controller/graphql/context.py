"""What a request carries: who asks, in which transaction, and what new key files say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.refused_logins import RefusedLogins
from klinket.controller.app.retention import DEFAULT_DAYS
from klinket.controller.graphql import deadline
from klinket.controller.graphql.paging import connection
from klinket.controller.graphql.siblings import Siblings
from klinket.domain.account_limits import DEFAULTS, AccountLimits


@dataclass(frozen=True)
class KeyFileFacts:
    """What a new key file says besides the key: the controller's host (and port), and its private authority (PEM)."""

    network: str
    controller_ca: str | None


@dataclass(frozen=True)
class ApiServices:
    """What resolvers need besides the store.

    `seal(secret, what)` encrypts what has to rest in the database; `attached_*` tell who has a live channel right now,
    connectors with the relays each is at. `account_defaults`: limits of accounts for which nothing else is set.
    `audit_days`: for which the audit is kept.
    """

    facts: KeyFileFacts
    entropy: Callable[[int], bytes]
    seal: Callable[[bytes, str], bytes]
    attached_sessions: Callable[[], frozenset[str]]
    attached_connectors: Callable[[], Mapping[int, tuple[int, ...]]]
    attached_relays: Callable[[], frozenset[int]]
    own_relays: frozenset[str]
    listening_connectors: Callable[[], Mapping[int, tuple[str, ...]]]
    account_defaults: AccountLimits = DEFAULTS
    audit_days: int = DEFAULT_DAYS
    refused_logins: RefusedLogins = field(default_factory=RefusedLogins)


@dataclass(frozen=True)
class ApiCaller:
    """Who asks: `actor` for the audit, and the scopes of the token: read, write, provision. `token`: its row's id."""

    actor: Actor
    scopes: frozenset[str]
    token: int


@dataclass
class RequestContext:
    """What resolvers work with: `info.context`."""

    tx: Transaction
    caller: ApiCaller
    services: ApiServices
    siblings: Siblings = field(default_factory=Siblings)

    def connection(
        self,
        nodes: Sequence[Any],
        arguments: dict[str, Any],
        edge: Callable[[Any], dict[str, Any]] = lambda node: {"node": node},
    ) -> dict[str, Any]:
        """Return a page of rows as a connection; what hangs on its rows will be read for all of them at once."""
        deadline.check()
        return connection(nodes, arguments, edge, self.siblings.saw)
