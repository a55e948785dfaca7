"""The reference model: who may reach what, told by the admin's acknowledged changes alone. It knows nothing of klinket's ways.

States are kept with the moment from which each counts. Narrowing counts from the acknowledgement, widening from the request:
between the two either answer is right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from klinket.controller.app import resources
from klinket.controller.app.ports import Transaction
from klinket.domain.flow import Destination
from klinket.domain.grant import Principal
from klinket.domain.resource import Resource

NEVER = float("-inf")
FOREVER = float("inf")


@dataclass(frozen=True)
class KeyFacts:
    """A service key."""

    account: str
    is_revoked: bool
    expires_at: float


@dataclass(frozen=True)
class State:
    """Everything that decides. `access`: when it ends by (account, resource); `connectors`: the hash of the tokens each has.

    `resources`: the active ones, each as it is, or as both of what it was and becomes. `ended`: sessions an admin has ended.
    """

    keys: dict[str, KeyFacts] = field(default_factory=dict)
    access: dict[tuple[str, int], float] = field(default_factory=dict)
    resources: dict[int, tuple[Resource, ...]] = field(default_factory=dict)
    connectors: dict[int, str] = field(default_factory=dict)
    ended: frozenset[str] = frozenset()

    def until(self, principal: Principal, destination: Destination, connector: int | None, token_hash: str) -> float:
        """Return until when the state lets a flow pass, NEVER when it does not. `connector`: None: whichever."""
        key = self.keys.get(principal.key)
        if key is None or key.is_revoked or key.account != principal.account or principal.session in self.ended:
            return NEVER
        if connector is not None and self.connectors.get(connector) != token_hash:
            return NEVER
        ends = [
            end
            for (account, id), end in self.access.items()
            if account == principal.account and any(allows(one, destination) for one in self.resources.get(id, ()))
        ]
        return min(key.expires_at, max(ends)) if ends else NEVER


def allows(resource: Resource, destination: Destination) -> bool:
    """Return whether a resource is of this host, and opens this port."""
    return resource.serves(destination.host) and resource.protocols.allows(destination.protocol, destination.port)


def read(tx: Transaction, ended: Iterable[str]) -> State:
    """Return the state that is stored; which sessions were ended by an admin is not asked for."""
    accounts = {row.id: row.uuid for row in tx.service_accounts.find()}
    return State(
        keys={
            row.kid: KeyFacts(
                accounts[row.service_account_id],
                row.revoked_at_ms is not None,
                FOREVER if row.expires_at_ms is None else row.expires_at_ms / 1000,
            )
            for row in tx.service_keys.find()
        },
        access={
            (accounts[row.service_account_id], row.resource_id): FOREVER
            if row.expires_at_ms is None
            else row.expires_at_ms / 1000
            for row in tx.access.find()
        },
        resources={row.id: (resources.to_domain(row),) for row in tx.resources.find() if row.is_active},
        connectors={row.id: row.access_token_hash or "" for row in tx.connectors.find()},
        ended=frozenset(ended),
    )


class Model:
    """All states since the beginning, in order."""

    def __init__(self, state: State, now: float) -> None:
        self._states = [(now, state)]

    @property
    def state(self) -> State:
        """Return the present state."""
        return self._states[-1][1]

    def becomes(self, state: State, now: float) -> None:
        """Note a new state."""
        self._states.append((now, state))

    def widens(self, wider: State, now: float) -> None:
        """Note that what `wider` allows more than the present state may be allowed from now on."""
        present = self.state
        self.becomes(
            replace(
                present,
                keys={**wider.keys, **present.keys},
                access={**present.access, **{key: max(end, present.access.get(key, NEVER)) for key, end in wider.access.items()}},
                resources={
                    id: tuple({*present.resources.get(id, ()), *wider.resources.get(id, ())})
                    for id in {**present.resources, **wider.resources}
                },
                connectors={**wider.connectors, **present.connectors},
            ),
            now,
        )

    def last_allowed(
        self, principal: Principal, destination: Destination, connector: int | None, token_hash: str, now: float
    ) -> float:
        """Return the last moment up to now at which a flow was allowed; NEVER if there was none."""
        until = now
        for since, state in reversed(self._states):
            end = min(until, state.until(principal, destination, connector, token_hash))
            if end >= since:
                return end
            until = since
        return NEVER
