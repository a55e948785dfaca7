"""Every mutation of the contract leaves audit events in the shape that others read (facts §6), and no secret in them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import pytest

from klinket.controller.app import audit_log, security_policies
from klinket.controller.app.rows import AuditRow
from klinket.controller.graphql.global_id import to_global_id
from klinket.controller.graphql.schema import load_schema
from klinket.domain.audit import SYSTEM, AuditAction
from klinket.domain.audit_chain import digest_of
from tests.unit.controller.running import SOURCE, Running


class Shape(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Every member must be there, and no other."""


class Info(Shape):
    name: str


class ActorShape(Shape):
    type: Literal["User", "API", "System"]
    id: str | None
    info: Info | None


class Named(Shape):
    id: str
    name: str


class Ports(Shape):
    start: int
    end: int


class Protocol(Shape):
    policy: Literal["ALLOW_ALL", "RESTRICTED"]
    ports: list[Ports]


class Protocols(Shape):
    allowIcmp: bool  # noqa: N815 - names on the wire
    tcp: Protocol
    udp: Protocol


class Address(Shape):
    type: Literal["DNS", "IP"]
    value: str


class Target(Shape, tag_field="type"):
    version: Literal["1"]
    id: str
    name: str


class RemoteNetwork(Target, tag="remoteNetwork"):
    location: Literal["AWS", "AZURE", "GOOGLE_CLOUD", "ON_PREMISE", "OTHER"]
    isActive: bool  # noqa: N815


class Connector(Target, tag="connector"):
    remoteNetwork: Named  # noqa: N815


class Resource(Target, tag="resource"):
    address: Address
    protocols: Protocols
    isActive: bool  # noqa: N815


class Group(Target, tag="group"):
    pass


class User(Target, tag="user"):
    email: str
    isAdmin: bool  # noqa: N815
    isActive: bool  # noqa: N815


class Device(Target, tag="device"):
    platform: str | None
    osName: str | None  # noqa: N815
    serialNumber: str | None  # noqa: N815
    isTrusted: bool  # noqa: N815
    clientVersion: str | None  # noqa: N815
    displayName: str | None  # noqa: N815
    activeState: Literal["ACTIVE", "ARCHIVED", "BLOCKED"]  # noqa: N815 - klinket's own


class ServiceAccount(Target, tag="serviceAccount"):
    pass


class ServiceAccountKey(Target, tag="serviceAccountKey"):
    state: Literal["active", "expired", "revoked", "deleted"]
    serviceAccount: ServiceAccount  # noqa: N815


class SecurityPolicy(Target, tag="securityPolicy"):
    pass


class SerialNumber(Target, tag="serialNumber"):
    pass


class Cut(Target, tag="cut"):
    pass


AnyTarget = (
    RemoteNetwork | Connector | Resource | Group | User | Device | ServiceAccount | ServiceAccountKey | SecurityPolicy
    | SerialNumber | Cut
)  # fmt: skip


class Request(Shape):
    id: str | None
    correlationId: str | None  # noqa: N815
    userAgent: str | None  # noqa: N815


class Event(Shape):
    """The members of facts §6, and after them klinket's own."""

    version: Literal["1"]
    time: str
    actor: ActorShape
    action: str
    targets: list[AnyTarget]
    number: int
    source: str | None
    request: Request | None
    detail: dict[str, Any]
    previous: str
    digest: str


#: A mutation: its field, its arguments (`{name}` stands for the id of what was made before), and the name for what it makes.
Step = tuple[str, str, str]
STEPS: list[Step] = [
    ("remoteNetworkCreate", 'name: "office"', "network"),
    ("remoteNetworkUpdate", 'id: "{network}", name: "hq"', ""),
    ("connectorCreate", 'remoteNetworkId: "{network}", name: "one"', "connector"),
    ("connectorUpdate", 'id: "{connector}", name: "two"', ""),
    ("connectorGenerateTokens", 'connectorId: "{connector}"', ""),
    ("resourceCreate", 'name: "DB", address: "db.internal", remoteNetworkId: "{network}"', "resource"),
    (
        "resourceUpdate",
        'id: "{resource}", protocols: {{allowIcmp: false, tcp: {{policy: RESTRICTED, ports: [{{start: 1, end: 2}}]}}, '
        "udp: {{policy: ALLOW_ALL, ports: []}}}}",
        "",
    ),
    ("groupCreate", 'name: "devs"', "group"),
    ("userCreate", 'email: "ada@example.com", firstName: "Ada", shouldSendInvite: false', "user"),
    ("groupUpdate", 'id: "{group}", addedUserIds: ["{user}"]', ""),
    ("userDetailsUpdate", 'id: "{user}", lastName: "Lovelace"', ""),
    ("userRoleUpdate", 'id: "{user}", role: DEVOPS', ""),
    ("userResetMfa", 'id: "{user}"', ""),
    ("securityPolicyUpdate", 'id: "{policy}", addedGroupIds: ["{group}"]', ""),
    ("serviceAccountCreate", 'name: "ci", resourceIds: ["{resource}"]', "account"),
    ("serviceAccountUpdate", 'id: "{account}", name: "runner"', ""),
    ("serviceAccountKeyCreate", 'serviceAccountId: "{account}", expirationTime: 1, name: "first"', "key"),
    ("serviceAccountKeyUpdate", 'id: "{key}", name: "second"', ""),
    ("resourceAccessAdd", 'resourceId: "{resource}", access: [{{principalId: "{group}"}}]', ""),
    ("resourceAccessSet", 'resourceId: "{resource}", access: [{{principalId: "{account}"}}]', ""),
    ("resourceAccessRemove", 'resourceId: "{resource}", principalIds: ["{account}"]', ""),
    ("serviceAccountKeyRevoke", 'id: "{key}"', ""),
    ("serviceAccountKeyDelete", 'id: "{key}"', ""),
    ("serviceAccountDelete", 'id: "{account}"', ""),
    ("deviceUpdate", 'id: "{device}", isTrusted: true', ""),
    ("deviceArchive", 'id: "{device}"', ""),
    ("deviceUnarchive", 'id: "{device}"', ""),
    ("deviceBlock", 'id: "{device}"', ""),
    ("deviceUnblock", 'id: "{device}"', ""),
    ("serialNumbersCreate", 'serialNumbers: ["C02XK"]', ""),
    ("serialNumbersDelete", 'serialNumbers: ["C02XK"]', ""),
    ("resourceDelete", 'id: "{resource}"', ""),
    ("groupDelete", 'id: "{group}"', ""),
    ("userDelete", 'id: "{user}"', ""),
    ("connectorDelete", 'id: "{connector}"', ""),
    ("remoteNetworkDelete", 'id: "{network}"', ""),
]
_SECRET_FIELDS = {"connectorGenerateTokens": "connectorTokens {{ accessToken refreshToken }}", "serviceAccountKeyCreate": "token"}


def mutations() -> set[str]:
    schema = load_schema()
    assert schema.mutation_type is not None
    return set(schema.mutation_type.fields)


def test_every_mutation_of_the_contract_is_driven() -> None:
    assert {field for field, _, _ in STEPS} == mutations()


async def driven(controller: Running, each: Callable[[str, list[AuditRow]], None]) -> list[str]:
    """Do every mutation once; `each` gets the events it has left. Returns every secret that was given out."""

    def prepare(tx: Any) -> tuple[int, int]:
        policy = security_policies.create(tx, SYSTEM, name="Strict")
        device = tx.devices.add(
            name="laptop", user_id=None, is_trusted=False, active_state="ACTIVE", os_name="macOS", serial_number="C02XK",
            facts={"platform": "MACOS", "clientVersion": "1"},
        )  # fmt: skip
        return policy.id, device.id

    policy, device = await controller.write(prepare)
    ids = {"policy": to_global_id("SecurityPolicy", policy), "device": to_global_id("Device", device)}
    secrets = list(controller.tokens.values())
    for field, arguments, makes in STEPS:
        before = len(await controller.audit())
        entity = "entity {{ id }} " if makes else ""
        document = f"mutation {{{{ {field}({arguments}) {{{{ ok error {entity}{_SECRET_FIELDS.get(field, '')} }}}} }}}}"
        payload = await controller.change(document.format(**ids))
        if makes:
            ids[makes] = payload["entity"]["id"]
        secrets += list((payload.get("connectorTokens") or {}).values())
        if "token" in payload:
            key_file = json.loads(payload["token"])
            secrets += [line for line in key_file["private_key"].splitlines() if len(line) > 40]
        each(field, (await controller.audit())[before:])
    return secrets


async def test_each_mutation_leaves_events_in_the_shape_of_the_facts(controller: Running) -> None:
    numbers: list[int] = []

    def check(field: str, rows: list[AuditRow]) -> None:
        assert rows, f"{field} left no event"
        verb = re.search(r"(Create|Delete)$", field)
        for row in rows:
            exported = audit_log.exported_event(row, "0" * 64)
            event = msgspec.convert(json.loads(json.dumps(exported)), Event, strict=True)
            assert event.actor == ActorShape(type="API", id=event.actor.id, info=Info(name="read and write and provision")), field
            assert event.source == SOURCE
            assert event.request is not None
            assert event.action in {action.value for action in AuditAction}
            assert event.time.endswith("+00:00")
            assert event.targets
            numbers.append(event.number)
        wanted = {"Create": "create", "Delete": "delete"}[verb[1]] if verb else "edit"
        if field not in ("resourceDelete",):
            assert wanted in {row.action for row in rows}, field

    await driven(controller, check)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


async def test_no_event_holds_a_secret(controller: Running) -> None:
    secrets = await driven(controller, lambda _, __: None)
    assert len(secrets) > 6
    everything = json.dumps([audit_log.exported_event(row, "") for row in await controller.audit()])
    assert [secret for secret in secrets if secret in everything] == []
    assert not re.search(r"PRIVATE KEY|kl_(api|conn|refresh)_|eyJ", everything)


async def test_every_event_leads_to_the_next(controller: Running) -> None:
    await driven(controller, lambda _, __: None)
    previous = "0" * 64
    for number, row in enumerate(await controller.audit(), 1):
        assert row.number == number
        assert digest_of(audit_log.exported_event(row, previous)) == row.digest
        previous = row.digest


@pytest.mark.parametrize("change", [{"targets": [{"type": "group"}]}, {"version": "2"}, {"more": 1}])
def test_the_shape_refuses_what_is_not_of_it(change: dict[str, Any]) -> None:
    good = {
        "version": "1", "time": "", "actor": {"type": "API", "id": None, "info": None}, "action": "edit", "targets": [],
        "number": 1, "source": None, "request": None, "detail": {}, "previous": "", "digest": "",
    }  # fmt: skip
    msgspec.convert(good, Event)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**good, **change}, Event)
