"""Targets of audit events in the shape of facts §6."""

from __future__ import annotations

from typing import Any

from klinket.controller.app.ports import Actor
from klinket.controller.app.rows import (
    ApiTokenRow,
    ConnectorRow,
    DeviceRow,
    GroupRow,
    RemoteNetworkRow,
    ResourceRow,
    SecurityPolicyRow,
    SerialNumberRow,
    ServiceAccountRow,
    ServiceKeyRow,
    SessionRow,
    SigningKeyRow,
    UserRow,
)
from klinket.domain.address import ResourceAddress
from klinket.domain.api_token import permission_of

TARGET_VERSION = "1"


def actor_detail(actor: Actor) -> dict[str, Any]:
    """Return who acts as JSON-ready values."""
    return {"type": actor.type.value, "id": actor.id, "info": {"name": actor.name} if actor.name else None}


def _target(type: str, id: int, name: str, **more: Any) -> dict[str, Any]:
    return {"version": TARGET_VERSION, "type": type, "id": str(id), "name": name, **more}


def network_target(row: RemoteNetworkRow) -> dict[str, Any]:
    """Return a remote network as target."""
    return _target("remoteNetwork", row.id, row.name, location=row.location, isActive=row.is_active)


def connector_target(row: ConnectorRow, network: RemoteNetworkRow) -> dict[str, Any]:
    """Return a connector as target."""
    return _target("connector", row.id, row.name, remoteNetwork={"id": str(network.id), "name": network.name})


def resource_target(row: ResourceRow) -> dict[str, Any]:
    """Return a resource as target."""
    address = {"type": ResourceAddress.parse(row.address).api_type, "value": row.address}
    return _target("resource", row.id, row.name, address=address, protocols=row.protocols, isActive=row.is_active)


def account_target(row: ServiceAccountRow) -> dict[str, Any]:
    """Return a service account as target."""
    return _target("serviceAccount", row.id, row.name)


def key_target(row: ServiceKeyRow, account: ServiceAccountRow, now_ms: int, *, deleted: bool = False) -> dict[str, Any]:
    """Return a service key as target, with its state and its whole account; never the key text."""
    word = "deleted" if deleted else row.state(now_ms).value.lower()
    return _target("serviceAccountKey", row.id, row.name, state=word, serviceAccount=account_target(account))


def session_target(row: SessionRow) -> dict[str, Any]:
    """Return a session as target; its name is the host's it runs on."""
    return {"version": TARGET_VERSION, "type": "session", "id": row.id, "name": row.hostname}


def policy_target(row: SecurityPolicyRow) -> dict[str, Any]:
    """Return a security policy as target."""
    return _target("securityPolicy", row.id, row.name)


def group_target(row: GroupRow) -> dict[str, Any]:
    """Return a group as target."""
    return _target("group", row.id, row.name)


def controller_target(name: str) -> dict[str, Any]:
    """Return what belongs to the controller itself, and has no row, as target."""
    return _target("controller", 1, name)


def user_target(row: UserRow) -> dict[str, Any]:
    """Return a user as target."""
    name = " ".join(part for part in (row.first_name, row.last_name) if part) or row.email
    return _target("user", row.id, name, email=row.email, isAdmin=row.role == "ADMIN", isActive=row.state == "ACTIVE")


def device_target(row: DeviceRow) -> dict[str, Any]:
    """Return a device as target."""
    return _target(
        "device", row.id, row.name, platform=row.facts.get("platform"), osName=row.os_name,
        serialNumber=row.serial_number, isTrusted=row.is_trusted, clientVersion=row.facts.get("clientVersion"),
        displayName=row.name, activeState=row.active_state,
    )  # fmt: skip


def serial_number_target(row: SerialNumberRow) -> dict[str, Any]:
    """Return a serial number as target."""
    return _target("serialNumber", row.id, row.serial_number)


def api_token_target(row: ApiTokenRow) -> dict[str, Any]:
    """Return an API token as target; never its text. `allowedIpRange` is null where any address will do."""
    ranges = ", ".join(row.allowed_ranges) or None
    return _target("publicAPIKey", row.id, row.name, permission=permission_of(row.scopes), allowedIpRange=ranges)


def signing_key_target(row: SigningKeyRow) -> dict[str, Any]:
    """Return a signing key as target; its name is what it signs."""
    return {"version": TARGET_VERSION, "type": "signingKey", "id": row.kid, "name": row.purpose}
