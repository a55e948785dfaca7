"""Cuts: the end of access, and the floors they leave (security.md 13).

A cut sets a floor for its scope: of a grant whose snapshot is older, the entries in that scope do not count any more. Floors are
kept until the longest grant that could be older has ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from klinket.domain.flow import Destination, FlowFailure
from klinket.domain.grant import Principal
from klinket.domain.identifiers import ConnectorId, CutId, Kid, ResourceId, ServiceAccountUuid, SessionId
from klinket.domain.resource import Resource

#: (epoch, revision) of the snapshot a grant was made from.
Stamp = tuple[int, int]
#: (epoch, revision, id): which cut it is. The id alone does not say: a controller restored from a backup gives ids once more.
CutKey = tuple[int, int, CutId]


class ScopeKind(Enum):
    """What a cut can be about."""

    ACCOUNT = "account"
    KEY = "key"
    SESSION = "session"
    RESOURCE = "resource"
    ACCESS = "access"
    CONNECTOR = "connector"


@dataclass(frozen=True, slots=True)
class CutScope:
    """`account` is set for ACCOUNT and ACCESS, `resource` for RESOURCE and ACCESS, the others for their kind."""

    kind: ScopeKind
    account: ServiceAccountUuid | None = None
    key: Kid | None = None
    session: SessionId | None = None
    resource: ResourceId | None = None
    connector: ConnectorId | None = None

    @classmethod
    def of_account(cls, account: ServiceAccountUuid) -> CutScope:
        """Everything of a service account."""
        return cls(ScopeKind.ACCOUNT, account=account)

    @classmethod
    def of_key(cls, key: Kid) -> CutScope:
        """Everything reached with a service key."""
        return cls(ScopeKind.KEY, key=key)

    @classmethod
    def of_session(cls, session: SessionId) -> CutScope:
        """Everything of one session."""
        return cls(ScopeKind.SESSION, session=session)

    @classmethod
    def of_resource(cls, resource: ResourceId) -> CutScope:
        """A resource, for everybody."""
        return cls(ScopeKind.RESOURCE, resource=resource)

    @classmethod
    def of_access(cls, account: ServiceAccountUuid, resource: ResourceId) -> CutScope:
        """A resource, for one service account."""
        return cls(ScopeKind.ACCESS, account=account, resource=resource)

    @classmethod
    def of_connector(cls, connector: ConnectorId) -> CutScope:
        """Everything one connector carries; such a cut goes to that connector alone."""
        return cls(ScopeKind.CONNECTOR, connector=connector)

    def covers(self, principal: Principal, resource: ResourceId) -> bool:
        """Return whether a flow of this principal to this resource is in the scope."""
        match self.kind:
            case ScopeKind.ACCOUNT:
                return principal.account == self.account
            case ScopeKind.KEY:
                return principal.key == self.key
            case ScopeKind.SESSION:
                return principal.session == self.session
            case ScopeKind.RESOURCE:
                return resource == self.resource
            case ScopeKind.ACCESS:
                return principal.account == self.account and resource == self.resource
            case ScopeKind.CONNECTOR:
                return self.connector is not None

    @property
    def ends_sessions(self) -> bool:
        """Return whether whoever is in the scope is over: keys, accounts and sessions that ended never come back."""
        return self.kind in (ScopeKind.ACCOUNT, ScopeKind.KEY, ScopeKind.SESSION)

    def holds(self, principal: Principal) -> bool:
        """Return whether everything of this principal is in the scope."""
        return self.ends_sessions and self.covers(principal, ResourceId(0))

    def __str__(self) -> str:
        parts = [str(part) for part in (self.account, self.key, self.session, self.resource, self.connector) if part is not None]
        return " ".join([self.kind.value, *parts])


@dataclass(frozen=True, slots=True)
class Cut:
    """The end of access in `scope` for grants older than `stamp`. `narrowed`: what of the resource remains, or None.

    `issued_at` in seconds since the epoch at the controller.
    """

    id: CutId
    scope: CutScope
    epoch: int
    revision: int
    reason: FlowFailure
    issued_at: float
    narrowed: Resource | None = None

    @property
    def stamp(self) -> Stamp:
        """Return the floor this cut sets."""
        return (self.epoch, self.revision)

    @property
    def key(self) -> CutKey:
        """Return what tells this cut from all others."""
        return (self.epoch, self.revision, self.id)

    def strikes(self, principal: Principal, resource: ResourceId, granted_at: Stamp) -> bool:
        """Return whether an entry of a grant of that stamp is struck, or (with `narrowed`) limited, by this cut.

        Revisions of two epochs do not compare: after a backup was restored, what either life has cut stays cut.
        """
        older = granted_at[0] != self.epoch or granted_at[1] < self.revision
        return older and self.scope.covers(principal, resource)

    def leaves(self, destination: Destination) -> bool:
        """Return whether flows in the scope to this destination stay, since what was narrowed still allows them."""
        rest = self.narrowed
        return (
            rest is not None and rest.serves(destination.host) and rest.protocols.allows(destination.protocol, destination.port)
        )


#: The kind of a scope with what it names.
_Key = tuple[str, object, object]
#: Of a connector's own end: whatever it carries.
_EVERYTHING: _Key = ("connector", None, None)


def _key(scope: CutScope) -> _Key:
    match scope.kind:
        case ScopeKind.ACCOUNT:
            return (scope.kind.value, scope.account, None)
        case ScopeKind.KEY:
            return (scope.kind.value, scope.key, None)
        case ScopeKind.SESSION:
            return (scope.kind.value, scope.session, None)
        case ScopeKind.RESOURCE:
            return (scope.kind.value, scope.resource, None)
        case ScopeKind.ACCESS:
            return (scope.kind.value, scope.account, scope.resource)
        case ScopeKind.CONNECTOR:
            return _EVERYTHING


def _about(principal: Principal) -> tuple[_Key, ...]:
    return (("key", principal.key, None), ("account", principal.account, None), ("session", principal.session, None))


class Floors:
    """The cuts in force at an edge, found by scope: a decision costs the same with one cut as with ten thousand."""

    def __init__(self, cuts: Iterable[Cut] = ()) -> None:
        self._cuts: dict[CutKey, Cut] = {}
        self._found: dict[_Key, list[Cut]] = {}
        #: The newest of those that were dropped.
        self.dropped: Cut | None = None
        for cut in cuts:
            self.add(cut)

    def add(self, cut: Cut) -> bool:
        """Keep a cut; returns whether it was new."""
        if cut.key in self._cuts:
            return False
        self._cuts[cut.key] = cut
        self._found.setdefault(_key(cut.scope), []).append(cut)
        return True

    def striking(self, principal: Principal, resource: ResourceId, granted_at: Stamp) -> list[Cut]:
        """Return the cuts that bear on this entry, the newest first."""
        found: list[Cut] = []
        if not self._cuts:
            return found
        keys = (*_about(principal), ("resource", resource, None), ("access", principal.account, resource), _EVERYTHING)
        for key in keys:
            found += [cut for cut in self._found.get(key, ()) if cut.strikes(principal, resource, granted_at)]
        return sorted(found, key=lambda cut: cut.stamp, reverse=True) if len(found) > 1 else found

    def ending(self, principal: Principal) -> Cut | None:
        """Return the cut that ended this principal's session, key or account for good, or None."""
        if not self._cuts:
            return None
        return next((cuts[-1] for key in _about(principal) if (cuts := self._found.get(key))), None)

    def forget(self, issued_before: float) -> None:
        """Drop cuts issued before a time from which on no older grant can be alive; outlived() tells those that seem to be."""
        for cut in [cut for cut in self._cuts.values() if cut.issued_at < issued_before]:
            last = self.dropped
            if last is None or (cut.revision > last.revision if cut.epoch == last.epoch else cut.issued_at >= last.issued_at):
                self.dropped = cut
            del self._cuts[cut.key]
            left = self._found[_key(cut.scope)]
            left.remove(cut)
            if not left:
                del self._found[_key(cut.scope)]

    def outlived(self, granted_at: Stamp) -> bool:
        """Return whether a grant is older than a cut that was dropped: one of a time when the controller's clock was ahead."""
        last = self.dropped
        return last is not None and granted_at[0] == last.epoch and granted_at[1] < last.revision

    def __len__(self) -> int:
        return len(self._cuts)

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(list(self._cuts.values()))
