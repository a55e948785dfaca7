"""A connector core with its controller's signing key: grants, cuts, links and opens of one remote network."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from klinket.connector.core import ConnectorCore, LinkRecord
from klinket.domain.address import ResourceAddress
from klinket.domain.cut import Cut, CutScope, Stamp
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.domain.grant import Principal
from klinket.domain.identifiers import (
    CutId,
    FlowId,
    Kid,
    RemoteNetworkId,
    ResourceId,
    ServiceAccountUuid,
    SessionId,
    Thumbprint,
)
from klinket.domain.ports import PortPolicy, PortRange, PortRule, Protocols
from klinket.domain.resource import Resource
from klinket.wire.control import AccountLimits
from klinket.wire.grant_token import sign_grant
from klinket.wire.link import Link
from klinket.wire.pipe_messages import OpenRequest
from klinket.wire.signing import KeySet, SigningKey

NOW = 1_800_000_000.0
NETWORK = "acme"
REMOTE = RemoteNetworkId(3)
ACCOUNT = ServiceAccountUuid("11111111-2222-4333-8444-555555555555")
OTHER_ACCOUNT = ServiceAccountUuid("99999999-2222-4333-8444-555555555555")
KEY = SigningKey.generate("grants-1")
LIMITS = AccountLimits(new_flows_per_second=1000.0, new_flows_burst=1000, max_flows=1000)


def rule(*spans: tuple[int, int]) -> PortRule:
    """Return the rule that opens these ports only."""
    return PortRule(PortPolicy.RESTRICTED, tuple(PortRange(first, last) for first, last in spans))


def resource(
    id: int,
    address: str,
    *,
    tcp: PortRule | None = None,
    udp: PortRule | None = None,
    alias: str | None = None,
    remote: RemoteNetworkId = REMOTE,
) -> Resource:
    """Return a resource; without a rule a protocol is open."""
    protocols = Protocols(tcp or PortRule(), udp or PortRule(), False)
    return Resource(ResourceId(id), f"resource {id}", ResourceAddress.parse(address), remote, alias, protocols)


DATABASE = resource(1, "db.internal", tcp=rule((5432, 5432)), udp=rule())
WEB = resource(2, "web.internal", tcp=rule((80, 80), (8000, 8999)), udp=rule((53, 53)), alias="www.acme.example")


def tcp(host: str, port: int) -> Destination:
    """Return a TCP destination."""
    return Destination(host, port, TransportProtocol.TCP)


def principal(session: str = "a" * 22, key: str = "key-1", account: ServiceAccountUuid = ACCOUNT) -> Principal:
    """Return who holds a grant."""
    return Principal(account, Kid(key), SessionId(session))


def record(who: Principal | None = None, jkt: str = "thumb", expires_at: float = NOW + 3600) -> LinkRecord:
    """Return a link whose client has proved who it is."""
    return LinkRecord(Link(os.urandom(16), os.urandom(32), expires_at), who or principal(), Thumbprint(jkt))


def request(destination: Destination) -> OpenRequest:
    """Return an OPEN with a fresh flow id."""
    return OpenRequest(destination, ResourceId(0), FlowId(os.urandom(16).hex()))


@dataclass
class World:
    """A configured core and what its controller would sign."""

    core: ConnectorCore = field(default_factory=ConnectorCore)
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def grant(
        self,
        link: LinkRecord,
        *resources: Resource,
        stamp: Stamp = (1, 10),
        now: float = NOW,
        lifetime: float = 300.0,
        network: str = NETWORK,
        remote: RemoteNetworkId = REMOTE,
        who: Principal | None = None,
        jkt: str | None = None,
        key: SigningKey = KEY,
    ) -> str:
        """Return a signed grant for the link's session."""
        return sign_grant(
            key,
            network=network,
            remote_network=remote,
            principal=who or link.principal,
            jkt=Thumbprint(jkt or link.jkt),
            stamp=stamp,
            resources=resources,
            now=now,
            lifetime=lifetime,
        )

    def granted(self, *resources: Resource, who: Principal | None = None, stamp: Stamp = (1, 10)) -> LinkRecord:
        """Return a link that has presented a grant of these resources."""
        link = record(who)
        self.core.add_link(link, NOW)
        self.core.present_grant(link, self.grant(link, *resources, stamp=stamp), NOW)
        return link

    def cut(
        self,
        scope: CutScope,
        *,
        stamp: Stamp = (1, 20),
        reason: FlowFailure = FlowFailure.CUT,
        narrowed: Resource | None = None,
        issued_at: float = NOW,
    ) -> Cut:
        """Return a cut with the next id."""
        return Cut(CutId(next(self._ids)), scope, stamp[0], stamp[1], reason, issued_at, narrowed)


@pytest.fixture
def world() -> World:
    """A core that knows its network and the key that signs grants."""
    made = World()
    made.core.configure(NETWORK, REMOTE, KeySet({KEY.kid: KEY.public_key}), LIMITS)
    return made


@pytest.fixture
async def target() -> AsyncIterator[Destination]:
    """A UDP service that sends back what it gets."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setblocking(False)
    loop = asyncio.get_running_loop()

    def answer() -> None:
        data, where = sock.recvfrom(65_535)
        sock.sendto(data, where)

    loop.add_reader(sock, answer)
    yield Destination("127.0.0.1", sock.getsockname()[1], TransportProtocol.UDP)
    loop.remove_reader(sock)
    sock.close()
