"""What the API should hold, as plain dictionaries: the small model beside which test_graphql_stateful drives the real one.

Every change says what is wrong with it (texts, one of which the API must name) or makes it; times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

DAY, HOUR = 86_400, 3_600
MISSING = "does not exist"
NAME_TAKEN, ALIAS_TAKEN = "with this name exists already", "another resource has this alias"
BAD_DAYS = "Invalid key expiration time. A value from 0-365 is required."
BAD_EXPIRY = "expiresAt must be 1 hour to 1 year ahead"

#: What an argument that is not given is: unlike None, which is null.
ABSENT = object()


@dataclass
class Key:
    name: str
    account: str
    expires: float | None
    revoked: float | None = None

    def status(self, now: float) -> str:
        if self.revoked is not None:
            return "REVOKED"
        return "EXPIRED" if self.expires is not None and self.expires <= now else "ACTIVE"


@dataclass
class Resource:
    name: str
    alias: str | None = None


@dataclass
class Group:
    name: str
    kind: str = "MANUAL"
    users: set[str] = field(default_factory=set)


@dataclass
class Edge:
    """Access of a group or service account to a resource; `policy`: of a group alone."""

    expires: float | None = None
    policy: str | None = None


@dataclass
class Sets:
    """Ids that replace a set, are added to it and removed from it; None: not given."""

    replace: list[str] | None = None
    added: list[str] | None = None
    removed: list[str] | None = None

    @property
    def named(self) -> set[str]:
        return {*(self.replace or ()), *(self.added or ()), *(self.removed or ())}

    def applied(self, before: Iterable[str]) -> set[str]:
        """Return the set after the change: replaced, then added to, then removed from."""
        base = set(before) if self.replace is None else set(self.replace)
        return (base | set(self.added or ())) - set(self.removed or ())


@dataclass
class Model:
    """`users`: ids that are there from the beginning; `edges`: by (resource, principal)."""

    now: float
    users: list[str]
    policies: list[str]
    accounts: dict[str, str] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)
    resources: dict[str, Resource] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    edges: dict[tuple[str, str], Edge] = field(default_factory=dict)

    # ---- what is wrong

    def missing(self, ids: Iterable[str], known: Iterable[str]) -> list[str]:
        return [MISSING] if set(ids) - set(known) else []

    def name_taken(self, name: str | None, names: Iterable[tuple[str, str]], own: str = "") -> list[str]:
        """`names`: (id, name) of the objects of this type."""
        if name is not None and not name.strip():
            return ["must not be empty"]
        return [NAME_TAKEN] if any(taken == name and id != own for id, taken in names) else []

    def alias_taken(self, alias: object, own: str = "") -> list[str]:
        if alias is None or alias is ABSENT:
            return []
        if "." not in str(alias):
            return ["Alias must be a valid DNS"]
        return [ALIAS_TAKEN] if any(row.alias == alias and id != own for id, row in self.resources.items()) else []

    def expiry_wrong(self, resource: str, principal: str, edge: Edge) -> list[str]:
        """The end that access has already may be said again, however near it is."""
        held = self.edges.get((resource, principal), Edge())
        if edge.expires is None or edge.expires == held.expires:
            return []
        return [] if HOUR <= edge.expires - self.now <= 366 * DAY else [BAD_EXPIRY]

    # ---- access

    @property
    def principals(self) -> set[str]:
        return {*self.accounts, *self.groups}

    def held_by(self, resource: str, principals: Iterable[str]) -> set[str]:
        return {one for held, one in self.edges if held == resource and one in principals}

    def resources_of(self, principal: str) -> set[str]:
        return {resource for resource, one in self.edges if one == principal}

    def put(self, resource: str, principal: str, edge: Edge) -> None:
        """Give access, or change its settings; a policy counts for groups alone."""
        self.edges[resource, principal] = edge if principal in self.groups else Edge(edge.expires)

    def change_principals(self, resource: str, wanted: set[str], among: Iterable[str]) -> None:
        before = self.held_by(resource, among)
        for one in before - wanted:
            del self.edges[resource, one]
        for one in wanted - before:
            self.put(resource, one, Edge())

    def change_resources(self, principal: str, wanted: set[str]) -> None:
        before = self.resources_of(principal)
        for resource in before - wanted:
            del self.edges[resource, principal]
        for resource in wanted - before:
            self.put(resource, principal, Edge())

    def forget(self, id: str) -> None:
        """Delete an object of whatever type, with what hangs on it."""
        for table in (self.accounts, self.keys, self.resources, self.groups):
            table.pop(id, None)
        self.keys = {key: row for key, row in self.keys.items() if row.account != id}
        self.edges = {pair: edge for pair, edge in self.edges.items() if id not in pair}

    def advance(self, seconds: float) -> None:
        """Let time pass: access that is over is gone."""
        self.now += seconds
        self.edges = {pair: edge for pair, edge in self.edges.items() if edge.expires is None or edge.expires > self.now}
