"""Resources, and which of several serves a host (facts §4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from klinket.domain.address import AddressKind, ResourceAddress, canonical_host, parse_ip
from klinket.domain.errors import InvalidInput
from klinket.domain.identifiers import RemoteNetworkId, ResourceId
from klinket.domain.ports import ALL_PROTOCOLS, Protocols


@dataclass(frozen=True, slots=True)
class Resource:
    """An address and its ports in one remote network. `alias` is canonical or None."""

    id: ResourceId
    name: str
    address: ResourceAddress
    remote_network: RemoteNetworkId
    alias: str | None = None
    protocols: Protocols = ALL_PROTOCOLS
    is_visible: bool = True

    def serves(self, host: str) -> bool:
        """Return whether a canonical host is this resource's alias, or matches its address."""
        return host == self.alias or self.address.matches(host)

    def host_to_dial(self, host: str) -> str:
        """Return what a connector dials for `host`: the alias stands for the address, anything else for itself."""
        if host == self.alias and self.address.kind in (AddressKind.IP, AddressKind.NAME):
            return self.address.canonical
        return host


class ResourceIndex:
    """Finds the resource that serves a host, among up to tens of thousands.

    Precedence: exact alias, plain name or single IP, then the most specific range or wildcard; equal ones by lowest id.
    """

    def __init__(self, resources: Iterable[Resource]) -> None:
        self.resources = tuple(sorted(resources, key=lambda resource: resource.id))
        self._by_id = {resource.id: resource for resource in self.resources}
        self._aliases: dict[str, Resource] = {}
        self._exact: dict[str, Resource] = {}
        ranges, wildcards = [], []
        for resource in self.resources:
            if resource.alias is not None:
                self._aliases.setdefault(resource.alias, resource)
            if resource.address.kind in (AddressKind.IP, AddressKind.NAME):
                self._exact.setdefault(resource.address.canonical, resource)
            elif resource.address.kind is AddressKind.CIDR:
                ranges.append(resource)
            else:
                wildcards.append(resource)
        self._ranges = sorted(ranges, key=lambda resource: resource.address.specificity)
        self._wildcards = sorted(wildcards, key=lambda resource: resource.address.specificity)

    def get(self, id: ResourceId) -> Resource | None:
        """Return the resource with this id, or None."""
        return self._by_id.get(id)

    def lookup(self, host: str) -> Resource | None:
        """Return the resource that serves a canonical host, or None."""
        found = self._aliases.get(host) or self._exact.get(host)
        if found is not None:
            return found
        candidates = self._ranges if parse_ip(host) is not None else self._wildcards
        return next((resource for resource in candidates if resource.address.matches(host)), None)

    def serving(self, host: str) -> tuple[Resource, ...]:
        """Return every resource that serves a canonical host, by precedence: the first is what `lookup` finds."""

        def order(resource: Resource) -> tuple[bool, tuple[int, int], int]:
            alias = host == resource.alias
            return not alias, (0, 0) if alias else resource.address.specificity, resource.id

        return tuple(sorted((one for one in self.resources if one.serves(host)), key=order))


def choose(index: ResourceIndex, wanted: Sequence[str]) -> frozenset[ResourceId]:
    """Return the resources that people mean: each by its name, alias or address, else the one that serves the host."""
    chosen: set[ResourceId] = set()
    left = set(wanted)
    for resource in index.resources:
        if words := {resource.name, resource.alias, resource.address.text}.intersection(wanted):
            chosen.add(resource.id)
            left -= words
    for text in left:
        try:
            found = index.lookup(canonical_host(text))
        except InvalidInput:
            continue
        if found is not None:
            chosen.add(found.id)
    return frozenset(chosen)
