"""Resources: addresses with ports in remote networks. What takes access away orders a cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from klinket.controller.app import access, cuts
from klinket.controller.app.audit import resource_target
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import ResourceRow
from klinket.domain.address import AddressKind, ResourceAddress, parse_alias
from klinket.domain.audit import AuditAction, AuditEvent
from klinket.domain.connector import check_services_allowed
from klinket.domain.cut import CutScope
from klinket.domain.errors import InvalidInput, NotFound
from klinket.domain.flow import FlowFailure
from klinket.domain.identifiers import RemoteNetworkId, ResourceId
from klinket.domain.names import parse_name
from klinket.domain.ports import ALL_PROTOCOLS, PortPolicy, PortRange, PortRule, Protocols, narrows
from klinket.domain.resource import Resource

KIND = "Resource"
BYPASS = "BYPASS_TWINGATE"
MAX_TAGS = 64
MAX_TAG_KEY_CHARS, MAX_TAG_VALUE_CHARS = 128, 256


def get(tx: Transaction, id: int | None, shown_id: object) -> ResourceRow:
    """Return the resource; raises NotFound with the id as the caller wrote it."""
    row = tx.resources.get(id) if id is not None else None
    if row is None:
        raise NotFound(KIND, shown_id)
    return row


def to_domain(row: ResourceRow) -> Resource:
    """Return what the row means."""
    return Resource(
        ResourceId(row.id),
        row.name,
        ResourceAddress.parse(row.address),
        RemoteNetworkId(row.remote_network_id),
        row.alias,
        protocols_of(row.protocols),
        row.is_visible,
    )


def protocols_of(given: Mapping[str, Any] | None) -> Protocols:
    """Return the protocols of the API's shape; null and absent parts mean everything. Raises InvalidInput."""
    given = given or {}
    icmp = given.get("allowIcmp")
    return Protocols(_rule(given.get("tcp")), _rule(given.get("udp")), True if icmp is None else bool(icmp))


def _rule(given: Mapping[str, Any] | None) -> PortRule:
    if given is None:
        return PortRule()
    ports = tuple(PortRange(int(span["start"]), int(span["end"])) for span in given.get("ports") or ())
    return PortRule(PortPolicy(given["policy"]), ports)


def stored_protocols(protocols: Protocols) -> dict[str, Any]:
    """Return protocols in the API's shape, complete, ports in the order in which they were given."""

    def rule(one: PortRule) -> dict[str, Any]:
        return {"policy": one.policy.value, "ports": [{"start": span.first, "end": span.last} for span in one.ports]}

    return {"allowIcmp": protocols.allow_icmp, "tcp": rule(protocols.tcp), "udp": rule(protocols.udp)}


def parse_tags(given: list[dict[str, str]] | None) -> list[dict[str, str]]:
    """Return checked tags (facts §4); raises InvalidInput("tags")."""
    tags = [{"key": tag["key"].strip(), "value": tag["value"].strip()} for tag in given or ()]
    if len(tags) > MAX_TAGS:
        raise InvalidInput("tags", f"{len(tags)} tags, the limit is {MAX_TAGS}")
    for tag in tags:
        if not 1 <= len(tag["key"]) <= MAX_TAG_KEY_CHARS or not 1 <= len(tag["value"]) <= MAX_TAG_VALUE_CHARS:
            raise InvalidInput("tags", f"tag {tag['key'][:40]!r}: keys have 1 to 128 characters, values 1 to 256")
        if tag["key"].startswith("tg"):
            raise InvalidInput("tags", f"tag {tag['key']!r}: keys may not start with 'tg'")
    if len({tag["key"] for tag in tags}) != len(tags):
        raise InvalidInput("tags", "tag keys must be unique")
    return tags


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    """Raise InvalidInput for values that contradict each other; returns them."""
    address = ResourceAddress.parse(values["address"])
    wide = address.kind in (AddressKind.CIDR, AddressKind.WILDCARD)
    if values["is_browser_shortcut_enabled"] and wide:
        raise InvalidInput(
            "isBrowserShortcutEnabled", "Resources with a CIDR range or wildcard address cannot have a browser shortcut"
        )
    if values["alias"] is not None and wide:
        raise InvalidInput("alias", "an alias needs a single address: not a CIDR range or wildcard")
    if values["routing_mode"] == BYPASS:
        if wide:
            raise InvalidInput("routingMode", "a bypassed resource needs a plain name or IP")
        if protocols_of(values["protocols"]) != ALL_PROTOCOLS:
            raise InvalidInput("routingMode", "a bypassed resource cannot restrict ports: its traffic does not pass a connector")
    return values


def create(
    tx: Transaction,
    actor: Actor,
    *,
    name: str,
    address: str,
    remote_network_id: int,
    protocols: Mapping[str, Any] | None = None,
    alias: str | None = None,
    is_visible: bool = True,
    is_browser_shortcut_enabled: bool = False,
    routing_mode: str = "THROUGH_TWINGATE",
    tags: list[dict[str, str]] | None = None,
    approval_mode: str = "MANUAL",
    access_mode: str = "MANUAL",
    access_duration_seconds: int | None = None,
    security_policy_id: int | None = None,
) -> ResourceRow:
    """Create a resource; raises InvalidInput, Conflict."""
    values = _checked(
        {
            "name": parse_name(name),
            "address": ResourceAddress.parse(address).text,
            "alias": None if alias is None else parse_alias(alias),
            "remote_network_id": remote_network_id,
            "protocols": stored_protocols(protocols_of(protocols)),
            "is_active": True,
            "is_visible": is_visible,
            "is_browser_shortcut_enabled": is_browser_shortcut_enabled,
            "routing_mode": routing_mode,
            "tags": parse_tags(tags),
            "approval_mode": approval_mode,
            "access_mode": access_mode,
            "access_duration_seconds": access_duration_seconds,
            "security_policy_id": security_policy_id,
        }
    )
    row = tx.resources.add(**values)
    tx.bump()
    tx.record(AuditEvent(AuditAction.CREATE, actor, (resource_target(row),)))
    return row


def update(tx: Transaction, actor: Actor, row: ResourceRow, changes: Mapping[str, Any]) -> ResourceRow:
    """Change the given columns (as in `create`, and is_active); raises InvalidInput, Conflict, ConnectorTooOld.

    Flows that the new definition does not allow end at once; others are not touched.
    """
    values: dict[str, Any] = dict(changes)
    if "name" in values:
        values["name"] = parse_name(values["name"])
    if "address" in values:
        values["address"] = ResourceAddress.parse(values["address"]).text
    if values.get("alias") is not None:
        values["alias"] = parse_alias(values["alias"])
    if "protocols" in values:
        values["protocols"] = stored_protocols(protocols_of(values["protocols"]))
    if "tags" in values:
        values["tags"] = parse_tags(values["tags"])
    current = {name: getattr(row, name) for name in row.__slots__}
    _checked({**current, **values})
    if values.get("remote_network_id", row.remote_network_id) != row.remote_network_id and tx.access.find(resource_id=row.id):
        check_services_allowed(access.versions_of(tx, values["remote_network_id"]))
    changed = tx.resources.change(row.id, **values)
    tx.bump()
    tx.record(AuditEvent(AuditAction.EDIT, actor, (resource_target(changed),), {"before": resource_target(row)}))
    _cut_what_was_lost(tx, actor, row, changed)
    return changed


def _cut_what_was_lost(tx: Transaction, actor: Actor, before: ResourceRow, after: ResourceRow) -> None:
    if not before.is_active or before.routing_mode == BYPASS:
        return  # nobody reached it through a connector
    old, new = to_domain(before), to_domain(after)
    scope = CutScope.of_resource(old.id)
    moved = before.remote_network_id != after.remote_network_id or not _covers(new.address, old.address)
    if not after.is_active or after.routing_mode == BYPASS or moved:
        cuts.order(tx, scope, FlowFailure.CUT, actor, remote_networks=[before.remote_network_id])
    elif narrows(old.protocols, new.protocols) or (old.alias is not None and old.alias != new.alias):
        cuts.order(tx, scope, FlowFailure.CUT, actor, remote_networks=[before.remote_network_id], narrowed=new)


def _covers(new: ResourceAddress, old: ResourceAddress) -> bool:
    """Return whether every host of the old address is surely one of the new: widening an address disturbs no flow."""
    if old.network is not None:
        return new.network is not None and new.matches(str(old.network[0])) and new.matches(str(old.network[-1]))
    return new.canonical == old.canonical or (old.kind is AddressKind.NAME and new.matches(old.canonical))


def delete(tx: Transaction, actor: Actor, row: ResourceRow) -> None:
    """Delete a resource with all access to it; its flows end at once."""
    tx.access.remove(resource_id=row.id)
    tx.group_access.remove(resource_id=row.id)
    tx.resources.remove(id=row.id)
    tx.record(AuditEvent(AuditAction.DELETE, actor, (resource_target(row),)))
    cuts.order(tx, CutScope.of_resource(ResourceId(row.id)), FlowFailure.CUT, actor, remote_networks=[row.remote_network_id])
