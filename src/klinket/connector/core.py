"""What a connector decides, without sockets: links, grants, floors, flows (security.md 12, 13).

Every OPEN is checked against the grant current at that moment and entered in the flow table before anything is dialled;
`recheck` looks again before OPENED. `now` is the controller's time in seconds since the epoch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from klinket.connector import limits
from klinket.domain.cut import Cut, Floors
from klinket.domain.errors import FlowRefused, InvalidToken, ProtocolError
from klinket.domain.flow import Destination, FlowFailure
from klinket.domain.grant import Denied, Principal, decide
from klinket.domain.identifiers import FlowId, RemoteNetworkId, ResourceId, ServiceAccountUuid, SessionId, Thumbprint
from klinket.domain.resource import Resource, ResourceIndex
from klinket.domain.shares import FairShares
from klinket.domain.token_buckets import TokenBuckets
from klinket.wire import signing
from klinket.wire.control import AccountLimits, LimitsOfAccount
from klinket.wire.grant_token import MAX_GRANT_CHARS, MAX_LIFETIME_SECONDS, GrantClaims, verify_grant
from klinket.wire.link import Link
from klinket.wire.pipe_messages import OpenRequest
from klinket.wire.signing import LEEWAY_SECONDS, KeySet


@dataclass(slots=True)
class _Grant:
    claims: GrantClaims
    index: ResourceIndex
    #: Of the key that signed it.
    kid: str


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """A link with the identity its client has proved."""

    link: Link
    principal: Principal
    jkt: Thumbprint


@dataclass(slots=True, eq=False)
class Flow:
    """A live flow, or one that is being dialled. Compared as itself: ids are the client's and may come again.

    `resource`: what the session's present grant decides it by. `opened_as`: what decided it when it was opened, and `dialled`:
    the host that was dialled for it then, which is another than its destination's where that is an alias.
    """

    id: FlowId
    principal: Principal
    resource: Resource
    destination: Destination
    opened_at: float
    opened_as: ResourceId
    dialled: str


@dataclass(frozen=True, slots=True)
class EndedFlow:
    """A flow that must end now, and why."""

    flow: Flow
    failure: FlowFailure
    text: str


class ConnectorCore:
    """All state that decides about flows."""

    def __init__(self) -> None:
        self._network = ""
        self._remote_network = RemoteNetworkId(0)
        self._grant_keys = KeySet()
        self._limits = AccountLimits(new_flows_per_second=1.0, new_flows_burst=1, max_flows=1)
        self._links: dict[bytes, LinkRecord] = {}
        self._link_shares: FairShares[ServiceAccountUuid] = FairShares(limits.MAX_LINKS)
        self._grants: dict[SessionId, _Grant] = {}
        #: Sessions whose grant lost its signing key, and until when their live flows wait for a fresh one.
        self._ungranted: dict[SessionId, float] = {}
        self._flows: dict[FlowId, Flow] = {}
        self._per_account: Counter[str] = Counter()
        self._own_limits: Mapping[str, AccountLimits] = {}
        self._buckets = TokenBuckets(1, 1.0, limits.MAX_BUCKETS)  # each is as large as its account's limits say
        self.floors = Floors()
        self.draining = False

    def configure(
        self,
        network: str,
        remote_network: RemoteNetworkId,
        grant_keys: KeySet,
        account_limits: AccountLimits,
        own_limits: Sequence[LimitsOfAccount] = (),
    ) -> None:
        """Take over what the controller says of this connector. `own_limits`: of accounts that have not those of all."""
        self._network, self._remote_network = network, remote_network
        self._grant_keys, self._limits = grant_keys, account_limits
        self._own_limits = {one.service_account: one.limits for one in own_limits}

    def limits_of(self, account: str) -> AccountLimits:
        """Return what an account may take here."""
        return self._own_limits.get(account, self._limits)

    def drop_withdrawn(self, now: float) -> int:
        """Forget grants whose signing key is not among the keys any more; returns how many.

        Nothing is opened with them from here on. Live flows have REGRANT_SECONDS for a fresh grant of their session.
        """
        return self._ungrant([session for session, grant in self._grants.items() if grant.kid not in self._grant_keys], now)

    def clock_set(self, now: float, step: float) -> None:
        """The controller's clock was set by so many seconds, to `now`.

        Ahead: what it had signed ends as if that time had gone by; live flows of grants that are over by it, and were not before,
        have REGRANT_SECONDS for a fresh one. Back: so have those of grants that are of a time to come now; nobody has longer.
        """
        if step > 0:
            ends = {session: grant.claims.expires_at + LEEWAY_SECONDS for session, grant in self._grants.items()}
            self._ungrant([session for session, end in ends.items() if now - step < end <= now], now)
        else:
            latest = now + LEEWAY_SECONDS
            self._ungrant([session for session, grant in self._grants.items() if grant.claims.issued_at > latest], now)
            most = now + limits.REGRANT_SECONDS
            self._ungranted = {session: min(until, most) for session, until in self._ungranted.items()}

    def _ungrant(self, sessions: Sequence[SessionId], now: float) -> int:
        """Open nothing more with these sessions' grants, and have their live flows wait for fresh ones; returns how many."""
        for session in sessions:
            del self._grants[session]
            self._ungranted[session] = now + limits.REGRANT_SECONDS
        return len(sessions)

    @property
    def flows(self) -> int:
        """Return how many flows are live."""
        return len(self._flows)

    @property
    def links(self) -> int:
        """Return how many links clients hold."""
        return len(self._links)

    # ---- links and grants

    def add_link(self, record: LinkRecord, now: float) -> LinkRecord | None:
        """Keep a new link; returns the session's oldest where that has to give way for it.

        Raises FlowRefused when the session is over, or the account has its share of links.
        """
        self._forget(now)
        self._check_not_over(record.principal)
        session, account = record.principal.session, record.principal.account
        own = [handle for handle, one in self._links.items() if one.principal.session == session]
        oldest = self.drop_link(own[0]) if len(own) >= limits.MAX_LINKS_PER_SESSION else None
        if not self._link_shares.take(account):
            raise FlowRefused(
                FlowFailure.THROTTLED,
                f"the service account has its share of this connector's {limits.MAX_LINKS} links",
                retry_after=1,
            )
        self._links[record.link.handle] = record
        return oldest

    def link(self, handle: bytes, now: float) -> LinkRecord | None:
        """Return a link that is still alive."""
        record = self._links.get(handle)
        if record is None or record.link.expires_at <= now or self.floors.ending(record.principal) is not None:
            return None
        return record

    def drop_link(self, handle: bytes) -> LinkRecord | None:
        """Forget a link, and its secret; returns what it was."""
        record = self._links.pop(handle, None)
        if record is not None:
            self._link_shares.give_back(record.principal.account)
        return record

    def _check_not_over(self, principal: Principal) -> None:
        cut = self.floors.ending(principal)
        if cut is not None:
            raise FlowRefused(cut.reason, f"access was ended by cut {cut.id}")

    def present_grant(self, record: LinkRecord, token: str, now: float) -> tuple[GrantClaims, list[EndedFlow]]:
        """Take a grant that a link's client presents; returns it, and flows it does not allow any more.

        Raises InvalidToken for a grant of another session, key, network, or one older than the present one, and FlowRefused
        when the session is over.
        """
        self._check_not_over(record.principal)
        claims = verify_grant(token, self._grant_keys, network=self._network, remote_network=self._remote_network, now=now)
        if claims.principal != record.principal or claims.jkt != record.jkt:
            raise InvalidToken("the grant is of another session")
        present = self._grants.get(record.principal.session)
        if present is not None and claims.stamp < present.claims.stamp and claims.stamp[0] == present.claims.stamp[0]:
            raise InvalidToken("the grant is older than the one in force")
        if self.floors.outlived(claims.stamp):
            raise InvalidToken("the grant is older than a cut that no older grant can have outlived")
        kid = str(signing.unverified_header(token, MAX_GRANT_CHARS)["kid"])  # verified above
        self._grants[record.principal.session] = _Grant(claims, ResourceIndex(claims.resources), kid)
        self._ungranted.pop(record.principal.session, None)
        return claims, self._no_longer_allowed((flow for flow in self._flows.values() if flow.principal == record.principal), now)

    # ---- flows

    def open(self, record: LinkRecord, request: OpenRequest, now: float) -> Flow:
        """Enter a flow in the table; raises FlowRefused, ProtocolError for a flow id in use or a link that is over."""
        if request.flow in self._flows:
            raise ProtocolError("a flow with this id is open already")
        if self.draining:
            raise FlowRefused(FlowFailure.DRAINING, "this connector is being stopped")
        resource = self._decide(record.principal, request.destination, now)
        if record.link.expires_at <= now or self._links.get(record.link.handle) is not record:
            raise ProtocolError("a pipe opens no flow after the end of its link")
        self._throttle(record.principal.account, now)
        dialled = resource.host_to_dial(request.destination.host)
        flow = Flow(request.flow, record.principal, resource, request.destination, now, resource.id, dialled)
        self._flows[flow.id] = flow
        self._per_account[flow.principal.account] += 1
        return flow

    def recheck(self, flow: Flow, now: float) -> None:
        """Raise FlowRefused when the flow was cut, or is not allowed any more."""
        if self._flows.get(flow.id) is not flow:
            raise FlowRefused(FlowFailure.CUT, "access ended while the flow was opened")
        self._decide_again(flow, now)

    def close(self, flow: Flow) -> None:
        """Take a flow out of the table."""
        if self._flows.get(flow.id) is flow:
            del self._flows[flow.id]
            self._per_account[flow.principal.account] -= 1
            if not self._per_account[flow.principal.account]:
                del self._per_account[flow.principal.account]

    def _decide(self, principal: Principal, destination: Destination, now: float) -> Resource:
        self._check_not_over(principal)
        grant = self._grants.get(principal.session)
        if grant is None:
            raise FlowRefused(FlowFailure.NOT_GRANTED, "the session has presented no grant")
        decision = decide(grant.index, destination, now=now, expires_at=grant.claims.expires_at + LEEWAY_SECONDS)
        if isinstance(decision, Denied):
            raise FlowRefused(decision.failure, decision.text)
        resource = decision.resource
        for cut in self.floors.striking(principal, resource.id, grant.claims.stamp):
            remaining = cut.narrowed
            if remaining is None:
                raise FlowRefused(cut.reason, f"access was ended by cut {cut.id}")
            # Under the same alias another address may remain: the one that this grant would have dialled is not allowed.
            same = remaining.host_to_dial(destination.host) == resource.host_to_dial(destination.host)
            if not same or not cut.leaves(destination):
                raise FlowRefused(FlowFailure.NOT_GRANTED, f"resource {remaining.name!r} was narrowed by cut {cut.id}")
        return resource

    def _decide_again(self, flow: Flow, now: float) -> None:
        """Decide a live flow by the present grant; raises FlowRefused also where its alias stands for another address now."""
        resource = self._decide(flow.principal, flow.destination, now)
        if resource.host_to_dial(flow.destination.host) != flow.dialled:
            raise FlowRefused(FlowFailure.CUT, f"{flow.destination.host} stands for another address since the flow was opened")
        flow.resource = resource

    def decide_name(self, principal: Principal, name: str, now: float) -> Resource:
        """Return the resource that a name belongs to, whatever its ports; raises FlowRefused where no grant serves it."""
        self._check_not_over(principal)
        grant = self._grants.get(principal.session)
        if grant is None:
            raise FlowRefused(FlowFailure.NOT_GRANTED, "the session has presented no grant")
        if now >= grant.claims.expires_at + LEEWAY_SECONDS:
            raise FlowRefused(FlowFailure.GRANT_EXPIRED, "the grant has expired")
        resource = grant.index.lookup(name)
        if resource is None:
            raise FlowRefused(FlowFailure.NOT_GRANTED, f"no granted resource serves {name}")
        for cut in self.floors.striking(principal, resource.id, grant.claims.stamp):
            if cut.narrowed is None:
                raise FlowRefused(cut.reason, f"access was ended by cut {cut.id}")
            if not cut.narrowed.serves(name):
                raise FlowRefused(FlowFailure.NOT_GRANTED, f"resource {cut.narrowed.name!r} was narrowed by cut {cut.id}")
        return resource

    def _throttle(self, account: str, now: float) -> None:
        if len(self._flows) >= limits.MAX_FLOWS:
            raise FlowRefused(FlowFailure.THROTTLED, f"this connector has {limits.MAX_FLOWS} flows, the limit", retry_after=1)
        allowed = self.limits_of(account)
        if self._per_account[account] >= allowed.max_flows:
            raise FlowRefused(
                FlowFailure.THROTTLED,
                f"the service account has {allowed.max_flows} flows, the limit for all its keys together; again when one ends",
                retry_after=1,
            )
        wait = self._buckets.take(account, now, size=(allowed.new_flows_burst, allowed.new_flows_per_second))
        if wait:
            raise FlowRefused(
                FlowFailure.THROTTLED,
                f"the service account opens more than {allowed.new_flows_per_second:g} flows a second, "
                f"the limit for all its keys together; again in {wait:.2g} s",
                retry_after=wait,
            )

    # ---- the end of access

    def apply_cut(self, cut: Cut, now: float) -> list[EndedFlow]:
        """Keep a cut's floor and return the flows it ends, out of the table already.

        One that ends a key, an account or a session also drops the grants and links of all it covers: their secrets are gone.
        """
        self.floors.add(cut)
        before = self.floors.dropped
        self.floors.forget(now - MAX_LIFETIME_SECONDS - 2 * LEEWAY_SECONDS)
        if self.floors.dropped is not before:
            self._ungrant([session for session, grant in self._grants.items() if self.floors.outlived(grant.claims.stamp)], now)
        ended = self._no_longer_allowed(
            # Struck is by the resource that decides the flow now; the one it was opened by is looked at again as well.
            (flow for flow in self._flows.values() if any(cut.scope.covers(flow.principal, id) for id in _ids(flow))),
            now,
        )
        if cut.scope.ends_sessions:
            for session in [id for id, grant in self._grants.items() if cut.scope.holds(grant.claims.principal)]:
                del self._grants[session]
            for handle in [handle for handle, record in self._links.items() if cut.scope.holds(record.principal)]:
                self.drop_link(handle)
        return ended

    def end_all(self, text: str = "the connector was deleted, or has new tokens") -> list[EndedFlow]:
        """Forget all links and grants: nobody may reach anything here. Returns the flows that were live, out of the table."""
        for handle in list(self._links):
            self.drop_link(handle)
        self._grants.clear()
        self._ungranted.clear()
        ended = [EndedFlow(flow, FlowFailure.CUT, text) for flow in self._flows.values()]
        for one in ended:
            self.close(one.flow)
        return ended

    def deadline_reached(self, now: float) -> list[EndedFlow]:
        """Return the flows whose grant has ended, out of the table already; forgets what is over."""
        over = {session for session, grant in self._grants.items() if grant.claims.expires_at + LEEWAY_SECONDS <= now}
        over |= {session for session, until in self._ungranted.items() if until <= now}
        ended = self._no_longer_allowed((flow for flow in self._flows.values() if flow.principal.session in over), now)
        for session in over:
            self._grants.pop(session, None)
            self._ungranted.pop(session, None)
        self._forget(now)
        return ended

    def next_deadline(self) -> float | None:
        """Return when the next grant ends."""
        ends = [grant.claims.expires_at + LEEWAY_SECONDS for grant in self._grants.values()]
        return min([*ends, *self._ungranted.values()], default=None)

    def _no_longer_allowed(self, flows: Iterable[Flow], now: float) -> list[EndedFlow]:
        ended = []
        for flow in list(flows):
            try:
                self._decide_again(flow, now)
            except FlowRefused as error:
                failure = error.failure
                assert isinstance(failure, FlowFailure)
                # A live flow is cut; that a new one would be "not granted" is for new ones.
                told = FlowFailure.CUT if failure is FlowFailure.NOT_GRANTED else failure
                ended.append(EndedFlow(flow, told, error.message))
                self.close(flow)
        return ended

    def _forget(self, now: float) -> None:
        for handle in [handle for handle, record in self._links.items() if record.link.expires_at <= now]:
            self.drop_link(handle)


def _ids(flow: Flow) -> tuple[ResourceId, ResourceId]:
    return flow.resource.id, flow.opened_as
