"""What a client decides, without sockets: which resource serves a host, which connectors to try, what is trusted how long."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from klinket.domain.address import canonical_host, parse_ip
from klinket.domain.connector_choice import ConnectorChoice
from klinket.domain.errors import FlowRefused, InvalidInput
from klinket.domain.flow import HINTS, Destination, FlowFailure, TransportProtocol
from klinket.domain.grant import Denied, decide
from klinket.domain.identifiers import ResourceId
from klinket.domain.resource import Resource, ResourceIndex, choose
from klinket.wire.control import ClientConfiguration
from klinket.wire.inventory import ConnectorEntry, Grant, RelayEntry, resource_of

#: Addresses and aliases remembered after they are not granted any more; the oldest are forgotten first.
MAX_FORMER = 10_000
#: Granted resources that a hint names.
MAX_NAMED = 5


@dataclass(frozen=True, slots=True)
class Route:
    """A connector and the relays it can be met at, the one to try first in front; none where it is met directly only."""

    connector: ConnectorEntry
    relays: tuple[RelayEntry, ...]


class ClientCore:
    """The newest configuration and what follows from it. `now`: the controller's time in seconds since the epoch."""

    def __init__(self, only: Sequence[str] = ()) -> None:
        """`only`: what of the granted resources is used, by name, alias, address or a host they serve; () for all."""
        self._only = tuple(only)
        self._chosen: frozenset[ResourceId] = frozenset()
        self._configuration: ClientConfiguration | None = None
        self._index = ResourceIndex(())
        self._relays: dict[int, RelayEntry] = {}
        #: The connectors of each remote network.
        self._connectors: dict[int, dict[int, ConnectorEntry]] = {}
        self._ever: dict[tuple[str, str | None], Resource] = {}
        self._ever_index = ResourceIndex(())
        #: What is known of connectors, for choosing among them.
        self.choice = ConnectorChoice()

    @property
    def configured(self) -> bool:
        """Return whether a configuration has come."""
        return self._configuration is not None

    @property
    def configuration(self) -> ClientConfiguration:
        """Return the newest configuration."""
        assert self._configuration is not None, "not configured yet"
        return self._configuration

    @property
    def resources(self) -> tuple[Resource, ...]:
        """Return what was granted, and chosen where there is a choice."""
        return tuple(one for one in self._index.resources if self._is_chosen(one))

    def _is_chosen(self, resource: Resource) -> bool:
        return not self._only or resource.id in self._chosen

    def configure(self, configuration: ClientConfiguration) -> None:
        """Take over a configuration; raises ProtocolError when it is not understood."""
        index = ResourceIndex(resource_of(entry) for entry in configuration.resources)
        met_before = (
            {one.id for one in self._configuration.connectors if one.relays} if self._configuration is not None else set()
        )
        for one in configuration.connectors:
            if one.relays and one.id not in met_before:
                self.choice.works(one.id)  # it is back: what was seen of it before counts no more
        self._configuration, self._index = configuration, index
        self._chosen = choose(index, self._only)
        self._relays = {relay.id: relay for relay in configuration.relays}
        self._connectors = {}
        for connector in configuration.connectors:
            self._connectors.setdefault(connector.remote_network, {})[connector.id] = connector
        self.choice.keep(connector.id for connector in configuration.connectors)
        self._remember(index.resources)

    def _remember(self, resources: tuple[Resource, ...]) -> None:
        now = {(resource.address.canonical, resource.alias): resource for resource in resources}
        changed = not now.keys() <= self._ever.keys()
        for key, resource in now.items():
            self._ever.pop(key, None)
            self._ever[key] = resource  # at the end: what is granted now is forgotten last
        for key in list(self._ever)[: max(0, len(self._ever) - len(now) - MAX_FORMER)]:
            del self._ever[key]
            changed = True
        if changed:
            self._ever_index = ResourceIndex(self._ever.values())

    def inherit(self, former: ClientCore) -> None:
        """Remember what was granted to a client that this one takes over from."""
        self._ever = {**former._ever, **self._ever}
        self._ever_index = ResourceIndex(self._ever.values())

    def resource_for(self, host: str) -> Resource | None:
        """Return the chosen resource that serves a canonical host; raises FlowRefused before the first configuration.

        Until it has come nobody knows what is klinket's business, so nothing may go past it.
        """
        if self._configuration is None:
            raise _not_online()
        found = self._index.lookup(host)
        return found if found is not None and self._is_chosen(found) else None

    def claims(self, host: str) -> bool:
        """Return whether a canonical host is, or once was, granted: nothing may dial it past klinket. Raises like resource_for.

        A grant that ended does not open the way to a look-alike host on this machine's own networks (security.md 22).
        """
        self.resource_for(host)
        return self._index.lookup(host) is not None or self._ever_index.lookup(host) is not None

    def longest_wait(self, now: float) -> float:
        """Return how many seconds a try to reach the controller may be put off: half of what is left of the grants.

        Whose grants end soon goes first, and has several tries. Without grants there are no live flows, and no bound.
        """
        if self._configuration is None or self._configuration.valid_until_ms / 1000 <= now:
            return math.inf
        return (self._configuration.valid_until_ms / 1000 - now) / 2

    def decide(self, destination: Destination, now: float) -> Resource:
        """Return the resource of an allowed flow; raises FlowRefused. The client checks every flow, as the connector does."""
        configuration = self._configuration
        if configuration is None:
            raise _not_online()
        expires_at = configuration.valid_until_ms / 1000
        decision = decide(self._index, destination, now=now, expires_at=expires_at)
        if isinstance(decision, Denied):
            text = decision.text
            if self._index.lookup(destination.host) is None and self.claims(destination.host):
                text = f"{destination.host} is not granted any more, and what was is never dialled past klinket"
            raise FlowRefused(decision.failure, text, hint=HINTS.get(decision.failure))
        if not self._is_chosen(decision.resource):
            raise FlowRefused(
                FlowFailure.NOT_GRANTED,
                f"resource {decision.resource.name!r} is granted, but only {', '.join(self._only)} may be used here",
                hint=f"name it as well: --only {decision.resource.alias or decision.resource.address.text}",
            )
        return decision.resource

    def routes(
        self, resource: Resource, now: float, linked: Mapping[int, Sequence[int]] = MappingProxyType({}), host: str = ""
    ) -> list[Route]:
        """Return the ways to a resource (to this host of it), best first; raises FlowRefused when there is none.

        `linked`: connectors with a live link, and the relays it goes through. They are reached there also while the controller
        does not know where they are: after its restart clients may be back before connectors.
        Flows spread over the connectors as ConnectorChoice says.
        """
        relays, here = self._relays, self._connectors.get(resource.remote_network, {})
        routes = []
        for id in self.choice.order(self.configuration.session, resource.id, host, here, now):
            connector = here[id]
            met_at = [relays[one] for one in connector.relays or linked.get(id, ()) if one in relays]
            if len(met_at) > 1:
                met_at.sort(key=lambda relay: self._score(-relay.id))
            if met_at or connector.direct or id in linked:
                routes.append(Route(connector, tuple(met_at)))
        if not routes:
            detail = "none is connected" if here else "it has none"
            raise FlowRefused(
                FlowFailure.NO_CONNECTOR,
                f"no connector of the remote network of {resource.name!r} can be reached: {detail}",
                hint=HINTS[FlowFailure.NO_CONNECTOR],
            )
        return routes

    def _score(self, id: int) -> bytes:
        return hashlib.sha256(f"{self.configuration.session} {id}".encode()).digest()

    def grant_for(self, remote_network: int) -> Grant:
        """Return the newest grant of a remote network; raises FlowRefused."""
        for grant in self.configuration.grants:
            if grant.remote_network == remote_network:
                return grant
        raise FlowRefused(FlowFailure.NOT_GRANTED, "nothing in this remote network is granted any more")

    def ticket_for(self, relay: int) -> str:
        """Return the newest ticket for a relay, or "" when there is none."""
        return next((ticket.token for ticket in self.configuration.tickets if ticket.relay == relay), "")

    def find(self, wanted: str) -> Resource:
        """Return the resource people mean by a name, address or alias (with or without :port); raises FlowRefused."""
        for resource in self.resources:
            if wanted in (resource.name, resource.address.text, resource.alias):
                return resource
        host, port = split_port(wanted)
        try:
            found = self.resource_for(canonical_host(host))
        except InvalidInput:
            found = None
        if found is None and port is not None:
            found = next((one for one in self.resources if host in (one.name, one.address.text)), None)
        if found is None:
            granted = self._index.resources
            names = ", ".join(repr(one.name) for one in granted[:MAX_NAMED]) or "nothing"
            raise FlowRefused(
                FlowFailure.NOT_GRANTED,
                f"no granted resource is called {wanted!r} or serves it",
                hint=f"granted: {names}{', ...' if len(granted) > MAX_NAMED else ''}",
            )
        return found

    def host_of(self, resource: Resource, host: str) -> str:
        """Return the host to dial for a resource that was asked for as `host`: its address where that is its name.

        Raises FlowRefused where the resource is of many hosts.
        """
        if host != resource.name or self._serves(resource, host):
            return host
        if (resource.address.network is None or resource.address.network.num_addresses == 1) and resource.address.pattern is None:
            return resource.address.text
        raise FlowRefused(
            FlowFailure.NOT_GRANTED,
            f"the resource {resource.name!r} is of many hosts: {resource.address.text}",
            hint="name one of them: HOST:PORT",
        )

    def destination(self, wanted: str) -> Destination:
        """Return where RESOURCE[:PORT] leads over TCP, without a port to the only one. Raises FlowRefused, InvalidInput."""
        resource = self.find(wanted)
        host, port = split_port(wanted)
        if port is None or wanted in (resource.name, resource.address.text):
            host, port = wanted, _only_port(resource)
        return Destination(canonical_host(self.host_of(resource, host)), port, TransportProtocol.TCP)

    def _serves(self, resource: Resource, host: str) -> bool:
        try:
            return self.resource_for(canonical_host(host)) == resource
        except InvalidInput:
            return False


def _not_online() -> FlowRefused:
    return FlowRefused(FlowFailure.CONTROLLER_UNREACHABLE, "not online yet: the controller has not answered")


def split_port(text: str) -> tuple[str, int | None]:
    """Return host and port of HOST[:PORT], an IPv6 address with or without brackets; nothing is checked."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or parse_ip(text) is not None:
        host, port = text, ""
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return host, int(port[:6]) if port else None


def _only_port(resource: Resource) -> int:
    spans = resource.protocols.tcp.spans()
    if len(spans) == 1 and spans[0].first == spans[0].last:
        return spans[0].first
    opened = ", ".join(map(str, spans)) or "none over TCP"
    raise InvalidInput("RESOURCE", f"which port of {resource.name!r}? It opens {opened}", hint="write RESOURCE:PORT")
