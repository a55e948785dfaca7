"""Resources whose connects are accepted at once: by setting, told by name, address or alias."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from klinket.client.capture import synthetic
from klinket.client.capture.host.addresses import capturable, maximal
from klinket.client.capture.host.settings import ALL_FAST
from klinket.domain.resource import Resource, ResourceIndex

_FAST_NAMES = (synthetic.FAST_RANGE, synthetic.fast_twins())


class FastResources:
    """Says of names and addresses whether they are of such a resource, by the resource that serves them."""

    def __init__(self, wanted: frozenset[str]) -> None:
        self._wanted = wanted
        self._index = ResourceIndex(())

    def _is_wanted(self, resource: Resource | None) -> bool:
        if not self._wanted or resource is None:
            return False
        return ALL_FAST in self._wanted or not self._wanted.isdisjoint(
            (resource.name, resource.address.text, resource.address.canonical, resource.alias)
        )

    def follow(self, resources: Sequence[Resource]) -> None:
        """Take over what is granted now."""
        if self._wanted:
            self._index = ResourceIndex(resources)

    def captured(self, resources: Sequence[Resource]) -> frozenset[str]:
        """Return the networks of such resources and of such names, without overlap."""
        networks = {str(one): one for one in _FAST_NAMES}
        for resource in resources if self._wanted else ():
            network = resource.address.network
            if network is not None and capturable(network) and self._is_wanted(resource):
                networks[resource.address.canonical] = network
        return maximal(networks)

    def is_fast_name(self, name: str) -> bool:
        """Return whether a canonical name is of such a resource."""
        return bool(self._wanted) and self._is_wanted(self._index.lookup(name))

    def is_fast_address(self, address: str) -> bool:
        """Return whether a destination is: an address that stands for a name, or one of a resource."""
        parsed = ipaddress.ip_address(address)
        if any(parsed in network for network in _FAST_NAMES):
            return True
        return bool(self._wanted) and self._is_wanted(self._index.lookup(address))
