"""Terraform manages every type of object and notices nothing: no drift, no inconsistent results, nothing planned twice."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from klinket.controller.app import security_policies
from klinket.controller.graphql.global_id import from_global_id, to_global_id
from tests.unit.controller.graphql.inventory import one_of_everything
from tests.unit.controller.graphql.terraform import Api, ApplyFailed, Attributes, Terraform
from tests.unit.controller.graphql.terraform_kinds import kinds
from tests.unit.controller.graphql.terraform_resource import access
from tests.unit.controller.running import Running

Ids = dict[str, str]
#: Attributes from the ids of what is there already.
From = Callable[[Ids], Attributes]
ALL_PORTS = {"policy": "ALLOW_ALL", "ports": []}
EVERYTHING = {"allowIcmp": True, "tcp": ALL_PORTS, "udp": ALL_PORTS}
SOON = datetime(datetime.now(UTC).year + 1, 1, 1, tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
PLAIN = {
    "name": "Database",
    "address": "DB-1.Internal",
    "protocols": EVERYTHING,
    "isActive": True,
    "isVisible": True,
    "isBrowserShortcutEnabled": False,
    "alias": None,
    "securityPolicyId": None,
    "routingMode": "THROUGH_TWINGATE",
    "tags": [],
    "approvalMode": "MANUAL",
    "accessPolicy": {"mode": "MANUAL", "durationSeconds": None},
    "access": [],
}
RESTRICTED = {
    "allowIcmp": False,
    "tcp": {"policy": "RESTRICTED", "ports": [{"start": 8000, "end": 8999}, {"start": 22, "end": 22}]},
    "udp": {"policy": "RESTRICTED", "ports": []},
}


def resource(**changed: Any) -> From:
    return lambda ids: {**PLAIN, "remoteNetworkId": ids["RemoteNetwork"], **changed}


def edges(ids: Ids) -> Attributes:
    given = [
        access(ids["Group"], securityPolicyId=ids["SecurityPolicy"], approvalMode="AUTOMATIC", expiresAt=SOON),
        access(ids["ServiceAccount"], expiresAt=SOON),
    ]
    return {**resource()(ids), "access": sorted(given, key=lambda one: str(one["principalId"]))}


@dataclass(frozen=True)
class Example:
    """An object, and what it becomes: (what Terraform does about it, the attributes that differ from the first ones)."""

    kind: str
    first: From
    then: list[tuple[str, From]] = field(default_factory=list)
    #: Whether a delete leaves nothing behind that could be read.
    ends: bool = True

    @property
    def steps(self) -> list[tuple[str, From]]:
        return [("create", self.first), *self.then]


EXAMPLES = [
    Example(
        "RemoteNetwork",
        lambda _: {"name": "office", "location": "OTHER", "type": "REGULAR"},
        [
            ("update", lambda _: {"name": "head office", "location": "AWS", "type": "REGULAR"}),
            ("replace", lambda _: {"name": "head office", "location": "AWS", "type": "EXIT"}),
        ],
    ),
    Example(
        "Connector",
        lambda ids: {"network": ids["RemoteNetwork"], "notify": True},
        [
            ("update", lambda ids: {"network": ids["RemoteNetwork"], "notify": False}),
            ("update", lambda ids: {"network": ids["RemoteNetwork"], "notify": True, "name": "office-1"}),
        ],
    ),
    Example("ConnectorTokens", lambda ids: {"connector": ids["Connector"]}),
    Example(
        "Resource",
        resource(),
        [
            ("update", resource(protocols=RESTRICTED, alias="db.acme.internal", isVisible=False, isBrowserShortcutEnabled=True)),
            ("update", resource(tags=[{"key": "team", "value": "b"}, {"key": "env", "value": "Prod"}], approvalMode="AUTOMATIC")),
            ("update", resource(accessPolicy={"mode": "AUTO_LOCK", "durationSeconds": 172_800}, isActive=False)),
            ("update", resource(accessPolicy={"mode": "ACCESS_REQUEST", "durationSeconds": None}, address="10.0.0.0/8")),
            ("update", resource(routingMode="BYPASS_TWINGATE", name="Renamed")),
            ("update", lambda ids: {**resource()(ids), "securityPolicyId": ids["SecurityPolicy"]}),
            ("update", edges),
            ("update", lambda ids: {**resource()(ids), "access": [access(ids["Group"])]}),
            ("update", resource()),
        ],
    ),
    Example("Resource", edges, [("update", resource(isActive=False))]),
    Example(
        "Group",
        lambda ids: {"name": "ops", "users": [], "policy": ids["SecurityPolicy"]},
        [("update", lambda ids: {"name": "operators", "users": [ids["User"]], "policy": ids["SecurityPolicy"]})],
    ),
    Example("Group", lambda ids: {"name": "ops", "users": [ids["User"]], "policy": None}),
    Example(
        "User",
        lambda _: {"email": "ada@example.com", "first": "Ada", "last": "Lovelace", "role": "MEMBER"},
        [
            ("update", lambda _: {"email": "ada@example.com", "first": "A", "last": "Lovelace", "role": "MEMBER"}),
            ("update", lambda _: {"email": "ada@example.com", "first": "A", "last": "King", "role": "DEVOPS"}),
            ("replace", lambda _: {"email": "king@example.com", "first": None, "last": None, "role": "ADMIN"}),
        ],
    ),
    Example(
        "PolicyGroups",
        lambda ids: {"policy": ids["SecurityPolicy"], "groups": [ids["Group"]]},
        [("update", lambda ids: {"policy": ids["SecurityPolicy"], "groups": []})],
        ends=False,
    ),
    Example("ServiceAccount", lambda _: {"name": "ci"}, [("update", lambda _: {"name": "builds"})]),
    Example(
        "ServiceKey",
        lambda ids: {"account": ids["ServiceAccount"], "days": 0, "active": True},
        [
            ("update", lambda ids: {"account": ids["ServiceAccount"], "days": 0, "active": True, "name": "runner"}),
            ("replace", lambda ids: {"account": ids["ServiceAccount"], "days": 365, "active": True, "name": "runner"}),
        ],
    ),
    Example(
        "DeviceTrust",
        lambda ids: {"serial": ids["serial"], "trusted": True},
        [("update", lambda ids: {"serial": ids["serial"], "trusted": False})],
        ends=False,
    ),
    Example("SerialNumber", lambda _: {"number": "C02XK"}, [("replace", lambda _: {"number": "C02XL"})]),
]
NAMES = [f"{example.kind} {number}" for number, example in enumerate(EXAMPLES)]
DELETIONS = {
    "RemoteNetwork": "remoteNetworkDelete",
    "Connector": "connectorDelete",
    "ConnectorTokens": "connectorGenerateTokens(connectorId: $id) { ok error }",
    "Resource": "resourceDelete",
    "Group": "groupDelete",
    "User": "userDelete",
    "ServiceAccount": "serviceAccountDelete",
    "ServiceKey": "serviceAccountKeyRevoke(id: $id) { ok error } then: serviceAccountKeyDelete",
}


@dataclass
class World:
    """A controller with something of everything that Terraform does not manage, and Terraform itself."""

    controller: Running
    api: Api
    terraform: Terraform
    ids: Ids

    def restart(self) -> None:
        """The same state in another run of Terraform."""
        self.terraform = Terraform(kinds(self.api), copy.deepcopy(self.terraform.state))

    async def apply(self, kind: str, attributes: Attributes) -> dict[str, str]:
        return await self.terraform.apply({"it": (kind, attributes)})

    def plan(self, kind: str, attributes: Attributes) -> dict[str, str]:
        return self.terraform.plan({"it": (kind, attributes)})

    @property
    def id(self) -> str:
        return self.terraform.state["it"].id

    async def behind(self, mutation: str) -> None:
        """Somebody else changes the object that is managed."""
        await self.controller.change(f"mutation ($id: ID!) {{ {mutation} }}", id=self.id)


@pytest.fixture
async def world(controller: Running) -> AsyncIterator[World]:
    ids = await one_of_everything(controller)
    parsed = from_global_id(ids["Device"])
    assert parsed is not None
    device = await controller.read(lambda tx: tx.devices.get(parsed[1]))
    assert device is not None
    assert device.serial_number is not None
    async with controller.http() as http:
        api = Api(http, controller.tokens["read", "write", "provision"])
        await api.configure()
        yield World(controller, api, Terraform(kinds(api)), {**ids, "serial": device.serial_number})


def test_every_type_has_an_example() -> None:
    assert {example.kind for example in EXAMPLES} == set(kinds(None))  # type: ignore[arg-type]


@pytest.mark.parametrize("example", EXAMPLES, ids=NAMES)
async def test_what_was_applied_reads_back_and_a_second_plan_is_empty(world: World, example: Example) -> None:
    for action, attributes in example.steps:
        wanted = attributes(world.ids)
        assert await world.apply(example.kind, wanted) == {"it": action}
        world.restart()
        assert await world.terraform.refresh() == []
        assert world.plan(example.kind, wanted) == {}
        events = len(await world.controller.audit())
        assert await world.apply(example.kind, wanted) == {}
        assert len(await world.controller.audit()) == events
    held = world.terraform.state["it"]
    await world.terraform.destroy()
    assert world.terraform.state == {}
    found = await world.terraform.kinds[held.kind].read(held.id, held.attributes)
    assert (found is None) is example.ends


@pytest.mark.parametrize("kind", DELETIONS)
async def test_what_somebody_else_deleted_is_made_again(world: World, kind: str) -> None:
    wanted = next(example for example in EXAMPLES if example.kind == kind).first(world.ids)
    await world.apply(kind, wanted)
    before = world.id
    for mutation in DELETIONS[kind].split(" then: "):
        await world.behind(mutation if "(" in mutation else f"{mutation}(id: $id) {{ ok error }}")
    assert await world.apply(kind, wanted) == {"it": "create"}
    assert (world.id == before) is (kind == "ConnectorTokens")
    assert await world.apply(kind, wanted) == {}


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("RemoteNetwork", 'remoteNetworkUpdate(id: $id, name: "x") { ok error }'),
        ("Connector", "connectorUpdate(id: $id, hasStatusNotificationsEnabled: false) { ok error }"),
        ("Resource", 'resourceUpdate(id: $id, alias: "x.internal") { ok error }'),
        ("Resource", 'resourceUpdate(id: $id, tags: [{key: "a", value: "b"}]) { ok error }'),
        ("Resource", 'resourceAccessAdd(resourceId: $id, access: [{principalId: "%(ServiceAccount)s"}]) { ok error }'),
        ("Resource", 'resourceUpdate(id: $id, addedGroupIds: ["%(Group)s"]) { ok error }'),
        ("Group", 'groupUpdate(id: $id, addedUserIds: ["%(User)s"]) { ok error }'),
        ("User", "userRoleUpdate(id: $id, role: SUPPORT) { ok error }"),
        ("PolicyGroups", "securityPolicyUpdate(id: $id, groupIds: []) { ok error }"),
        ("ServiceAccount", 'serviceAccountUpdate(id: $id, name: "x") { ok error }'),
        ("DeviceTrust", "deviceUpdate(id: $id, isTrusted: false) { ok error }"),
    ],
)
async def test_what_somebody_else_changed_is_noticed_and_put_right(world: World, kind: str, change: str) -> None:
    wanted = next(example for example in EXAMPLES if example.kind == kind).first(world.ids)
    await world.apply(kind, wanted)
    await world.behind(change % world.ids)
    assert await world.apply(kind, wanted) == {"it": "update"}
    assert await world.terraform.refresh() == []


async def test_a_key_that_expired_is_deleted_without_a_revocation(world: World) -> None:
    wanted = {"account": world.ids["ServiceAccount"], "days": 1}
    await world.apply("ServiceKey", wanted)
    world.controller.offset += 86_400
    assert await world.terraform.refresh() == ["it"]
    assert world.plan("ServiceKey", wanted) == {}
    await world.terraform.destroy()
    assert world.terraform.state == {}


async def test_the_whole_of_a_deployment_is_made_changed_and_taken_down(world: World) -> None:
    """With references from one object to the next, as a module has them; the order of deletion is the reverse."""

    async def configured(suffix: str) -> dict[str, tuple[str, Attributes]]:
        whole: dict[str, tuple[str, Attributes]] = {}
        for address, kind, attributes in (
            ("network", "RemoteNetwork", lambda _: {"name": f"net{suffix}", "location": "AWS", "type": "REGULAR"}),
            ("connector", "Connector", lambda id: {"network": id("network"), "notify": True}),
            ("tokens", "ConnectorTokens", lambda id: {"connector": id("connector")}),
            ("account", "ServiceAccount", lambda _: {"name": f"ci{suffix}"}),
            ("key", "ServiceKey", lambda id: {"account": id("account"), "days": 30}),
            ("group", "Group", lambda _: {"name": f"ops{suffix}", "users": [world.ids["User"]], "policy": None}),
            (
                "resource",
                "Resource",
                lambda id: {**PLAIN, "remoteNetworkId": id("network"), "access": [access(id("group")), access(id("account"))]},
            ),
        ):
            whole[address] = (kind, attributes(lambda name: world.terraform.state[name].id))
            later = {name: (held.kind, held.attributes) for name, held in world.terraform.state.items() if name not in whole}
            await world.terraform.apply({**whole, **later})
        return whole

    first = await configured("")
    world.restart()
    assert await world.terraform.apply(first) == {}
    second = await configured("-2")
    assert await world.terraform.apply(second) == {}
    account = world.terraform.state["account"].id
    await world.terraform.destroy()
    assert (await world.controller.query("query ($i: ID!) { serviceAccount(id: $i) { id } }", i=account))[
        "serviceAccount"
    ] is None


async def test_start_up_reads_everything_in_pages(world: World) -> None:
    network = world.ids["RemoteNetwork"]
    for number in range(60):
        await world.controller.add_resource(network, f"r{number}", f"r{number}.internal")
    nodes = await world.api.pages("resources", "$filter:ResourceFilterInput", "id name", filter={"name": None, "tags": None})
    assert len(nodes) == len({node["id"] for node in nodes}) == 61
    nulls = {"eq": None, "ne": None, "startsWith": None, "endsWith": None, "contains": None, "regexp": None, "in": None}
    found = await world.api.pages(
        "resources", "$filter:ResourceFilterInput", "name", filter={"name": {**nulls, "regexp": "^r1.$"}}
    )
    assert sorted(node["name"] for node in found) == [f"r{number}" for number in range(10, 20)]


async def test_a_policy_is_found_by_name_with_an_empty_id(world: World) -> None:
    await world.controller.write(security_policies.ensure_default)
    document = "query($id:ID$name:String){securityPolicy(id:$id,name:$name){id name policyType}}"
    for id in ("", None):
        found = (await world.api.query(document, id=id, name="Default Policy"))["securityPolicy"]
        assert found["name"] == "Default Policy"
    with pytest.raises(ApplyFailed, match="does not exist"):
        await world.apply("Resource", {**resource()(world.ids), "securityPolicyId": to_global_id("SecurityPolicy", 999)})
