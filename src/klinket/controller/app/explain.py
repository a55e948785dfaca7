"""Why a service account reaches an address, or why not: the same decisions that controller and connectors make."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from klinket.controller.app import resources
from klinket.controller.app.access import versions_of
from klinket.controller.app.ports import Transaction
from klinket.controller.app.resources import BYPASS
from klinket.controller.app.rows import ResourceRow, ServiceAccountRow
from klinket.domain.address import canonical_host, parse_ip
from klinket.domain.connector import check_services_allowed
from klinket.domain.errors import ConnectorTooOld
from klinket.domain.flow import Destination
from klinket.domain.resource import Resource, ResourceIndex
from klinket.domain.service_key import KeyState

#: Resources looked at for the one that would serve a host.
MAX_CANDIDATES = 20_000


@dataclass(frozen=True, slots=True)
class Step:
    """One condition. `hint`: what to do where it is not met."""

    ok: bool
    text: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """`resource`: the one that decides, granted or not; None when none serves the host."""

    resource: ResourceRow | None
    steps: tuple[Step, ...]

    @property
    def allowed(self) -> bool:
        """Return whether every condition is met."""
        return all(step.ok for step in self.steps)


def explain(tx: Transaction, account: ServiceAccountRow, destination: Destination, attached: Collection[int]) -> Explanation:
    """Return the conditions in the order in which they count. `attached`: connectors online now.

    Raises InvalidInput for a host that is none.
    """
    host = canonical_host(destination.host)
    key_step = _key_step(tx, account)
    links = tx.access.find(service_account_id=account.id)
    ids = [one.resource_id for one in links if one.expires_at_ms is None or one.expires_at_ms > tx.now_ms]
    rows = {row.id: row for row in tx.resources.find(id=ids)}
    networks = {row.id: row for row in tx.remote_networks.find(id={row.remote_network_id for row in rows.values()})}
    live = [
        row for row in rows.values() if row.is_active and row.routing_mode != BYPASS and networks[row.remote_network_id].is_active
    ]
    granted = ResourceIndex(resources.to_domain(row) for row in live).lookup(host)
    if granted is None:
        nearest = _nearest(tx, host, rows)
        is_granted = nearest is not None and nearest.id in rows
        return Explanation(nearest, (key_step, _why_not(account, host, nearest, granted=is_granted)))
    row = rows[granted.id]
    found = Step(True, f"resource {row.name!r} ({row.address}) serves {host} and is granted to {account.name!r}")
    return Explanation(row, (key_step, found, _port_step(granted, destination), *_connector_steps(tx, row, attached)))


def _key_step(tx: Transaction, account: ServiceAccountRow) -> Step:
    states = [row.state(tx.now_ms) for row in tx.service_keys.find(service_account_id=account.id)]
    active = states.count(KeyState.ACTIVE)
    if active:
        return Step(True, f"{account.name!r} has {active} active of {len(states)} keys")
    return Step(False, f"{account.name!r} has no active key", "generate one: klinket admin service key generate")


def _nearest(tx: Transaction, host: str, granted: Mapping[int, ResourceRow]) -> ResourceRow | None:
    """Return the resource that would serve the host were it granted and active; what is granted already comes first."""
    found = ResourceIndex(resources.to_domain(row) for row in granted.values()).lookup(host)
    if found is not None:
        return granted[found.id]
    rows = _candidates(tx, host)
    found = ResourceIndex(resources.to_domain(row) for row in rows.values()).lookup(host)
    return None if found is None else rows[found.id]


def _candidates(tx: Transaction, host: str) -> dict[int, ResourceRow]:
    """Return the resources whose address can serve a host: those that have it in their text, and ranges or wildcards.

    Without reading all of them: most resources of a large network have a plain name.
    """
    if "xn--" in host:  # a name with letters beyond ASCII, which may be written in many ways
        return {row.id: row for row in tx.resources.find()}
    ip = parse_ip(host)
    texts = ("*", "?") if ip is None else ("/",) if ip.version == 4 else ("/", ":")
    found = {row.id: row for row in tx.resources.search(("address", "alias"), host, MAX_CANDIDATES)}
    for text in texts:
        found |= {row.id: row for row in tx.resources.search(("address",), text, MAX_CANDIDATES)}
    return found


def _why_not(account: ServiceAccountRow, host: str, row: ResourceRow | None, *, granted: bool) -> Step:
    if row is None:
        return Step(False, f"no resource serves {host}", "create one: klinket admin resource create")
    if not granted:
        hint = f"grant it: klinket admin service grant {account.name} {row.name!r}"
        return Step(False, f"resource {row.name!r} serves {host}, but is not granted to {account.name!r}", hint)
    if not row.is_active:
        return Step(False, f"resource {row.name!r} is disabled", f"klinket admin resource enable {row.name!r}")
    if row.routing_mode == BYPASS:
        return Step(False, f"resource {row.name!r} bypasses klinket: the client leaves its address to the system")
    return Step(False, f"the remote network of {row.name!r} is not active", "make the remote network active again")


def _port_step(resource: Resource, destination: Destination) -> Step:
    wanted = f"{destination.protocol.value} port {destination.port}"
    if resource.protocols.allows(destination.protocol, destination.port):
        return Step(True, f"{resource.name!r} opens {wanted}")
    return Step(False, f"{resource.name!r} does not open {wanted}", f"klinket admin resource update {resource.name!r}")


def _connector_steps(tx: Transaction, row: ResourceRow, attached: Collection[int]) -> list[Step]:
    connectors = tx.connectors.find(remote_network_id=row.remote_network_id)
    steps = []
    try:
        check_services_allowed(versions_of(tx, row.remote_network_id))
    except ConnectorTooOld as error:
        steps.append(Step(False, error.message, error.hint))
    online = [one.name for one in connectors if one.id in attached]
    if online:
        names = ", ".join(online)
        steps.append(Step(True, f"{len(online)} of {len(connectors)} connectors of its remote network are online: {names}"))
    else:
        text = "no connector of its remote network is online" if connectors else "its remote network has no connector"
        steps.append(Step(False, text, "klinket admin connector list; look at the connector's log"))
    return steps
