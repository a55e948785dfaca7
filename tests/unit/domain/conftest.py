"""What the tests of the domain share: a pace for property tests, and short ways to make resources."""

from __future__ import annotations

from hypothesis import settings

from klinket.domain.address import ResourceAddress
from klinket.domain.identifiers import RemoteNetworkId, ResourceId
from klinket.domain.ports import ALL_PROTOCOLS, Protocols
from klinket.domain.resource import Resource

MODERATE = settings(max_examples=80, deadline=None)


def resource(id: int, address: str, alias: str | None = None, protocols: Protocols = ALL_PROTOCOLS) -> Resource:
    """Return a resource of remote network 1."""
    return Resource(ResourceId(id), f"resource {id}", ResourceAddress.parse(address), RemoteNetworkId(1), alias, protocols)
