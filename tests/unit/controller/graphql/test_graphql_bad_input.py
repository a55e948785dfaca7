"""Bad input, in one table: each mistake is told in words that help, with the status clients expect, and changes nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple

import pytest
from graphql import get_introspection_query

from klinket.controller.app import groups
from klinket.controller.graphql.global_id import to_global_id
from klinket.wire.paths import GRAPHQL_PATH
from tests.unit.controller.graphql.inventory import one_of_everything
from tests.unit.controller.running import Running

TAGS = ", ".join(f'{{key: "k{number}", value: "v"}}' for number in range(65))
DAYS = "Invalid key expiration time. A value from 0-365 is required."


class Row(NamedTuple):
    """`mutation` with ids by type in it, and what is told: in `error` of the payload."""

    mistake: str
    mutation: str
    told: str


COLLISION = "another resource has this alias"
PORTS = "protocols: {{tcp: {{policy: RESTRICTED, ports: [{{start: {}, end: {}}}]}}}}"
REVOKED = "Service account key in REVOKED state cannot be"
RESOURCE = 'resourceUpdate(id: "%(Resource)s", {})'
TABLE = [
    Row("id of another type", 'resourceDelete(id: "%(Group)s")', "Resource with id '%(Group)s' does not exist"),
    Row("id of another type in a list", 'groupUpdate(id: "%(Group)s", addedUserIds: ["%(Resource)s"])', "does not exist"),
    Row("id of a deleted object", 'serviceAccountUpdate(id: "%(deleted)s", name: "x")', "does not exist"),
    Row("id of a deleted principal", 'resourceAccessAdd(resourceId: "%(Resource)s", access: [{principalId: "%(deleted)s"}])',
        "Service account with id '%(deleted)s' does not exist"),
    Row("id that is no global id", 'connectorDelete(id: "7")', "Connector with id '7' does not exist"),
    Row("id that is empty", 'userDelete(id: "")', "User with id '' does not exist"),
    Row("id of more digits than the store has", f'groupDelete(id: "{to_global_id("Group", 10**17)}")', "does not exist"),
    Row("name that is empty", 'serviceAccountCreate(name: "")', "name must not be empty"),
    Row("name of spaces", 'groupUpdate(id: "%(Group)s", name: "  ")', "name must not be empty"),
    Row("name with NUL", 'serviceAccountCreate(name: "a\\u0000b")', "printable"),
    Row("address that is empty", RESOURCE.format('address: ""'), "Invalid IP or FQDN"),
    Row("email that is empty", 'userCreate(email: "")', "email"),
    Row("serial number that is empty", 'serialNumbersCreate(serialNumbers: [""])', "must not be empty"),
    Row("duplicate name", 'serviceAccountCreate(name: "taken")', "a service account with this name exists already"),
    Row("duplicate email in another case", 'userCreate(email: "TAKEN@example.com")', "this email address exists already"),
    Row("alias collision", RESOURCE.format('alias: "taken.internal"'), COLLISION),
    Row("alias collision in another case", RESOURCE.format('alias: "TAKEN.internal"'), COLLISION),
    Row("ports out of order", RESOURCE.format(PORTS.format(443, 80)), "(80-443)"),
    Row("port over the limit", RESOURCE.format(PORTS.format(1, 65536)), "ports are 1 to 65535"),
    Row("65 tags", RESOURCE.format(f"tags: [{TAGS}]"), "65 tags, the limit is 64"),
    Row("key of a tag too long", RESOURCE.format(f'tags: [{{key: "{"k" * 129}", value: "v"}}]'), "keys have 1 to 128 characters"),
    Row("value of a tag too long", RESOURCE.format(f'tags: [{{key: "k", value: "{"v" * 257}"}}]'), "values 1 to 256"),
    Row("tag twice", RESOURCE.format('tags: [{key: "k", value: "1"}, {key: "k ", value: "2"}]'), "tag keys must be unique"),
    Row("expiry below 0", 'serviceAccountKeyCreate(serviceAccountId: "%(ServiceAccount)s", expirationTime: -1)', DAYS),
    Row("expiry above 365", 'serviceAccountKeyCreate(serviceAccountId: "%(ServiceAccount)s", expirationTime: 366)', DAYS),
    Row("delete of an active key", 'serviceAccountKeyDelete(id: "%(ServiceAccountKey)s")', "revoke it first"),
    Row("rename of a revoked key", 'serviceAccountKeyUpdate(id: "%(revoked)s", name: "x")', "only an active key can be renamed"),
    Row("second revocation", 'serviceAccountKeyRevoke(id: "%(revoked)s")', f"{REVOKED} revoked"),
    Row("SYSTEM group renamed", 'groupUpdate(id: "%(Everyone)s", name: "x")', "is of type SYSTEM and cannot be edited"),
    Row("SYSTEM group emptied", 'groupUpdate(id: "%(Everyone)s", userIds: [])', "is of type SYSTEM and cannot be edited"),
    Row("SYSTEM group disabled", 'groupUpdate(id: "%(Everyone)s", isActive: false)', "is of type SYSTEM and cannot be edited"),
    Row("SYSTEM group deleted", 'groupDelete(id: "%(Everyone)s")', "is of type SYSTEM and cannot be edited"),
]  # fmt: skip


async def world(controller: Running) -> dict[str, str]:
    """Return ids of one of everything, of the group Everyone, of a revoked key and of an account that is deleted."""
    ids = await one_of_everything(controller)
    everyone = await controller.write(lambda tx: groups.ensure_everyone(tx).id)
    await controller.add_account("taken")
    await controller.change('mutation { userCreate(email: "taken@example.com") { ok error } }')
    resource = await controller.add_resource(ids["RemoteNetwork"], "other", "other.internal")
    await controller.change(f'mutation {{ resourceUpdate(id: "{resource}", alias: "taken.internal") {{ ok error }} }}')
    revoked, _ = await controller.add_key(ids["ServiceAccount"], name="old")
    await controller.revoke_key(revoked)
    deleted = await controller.add_account("deleted")
    await controller.change(f'mutation {{ serviceAccountDelete(id: "{deleted}") {{ ok error }} }}')
    return {**ids, "Everyone": to_global_id("Group", everyone), "revoked": revoked, "deleted": deleted}


async def test_each_mistake_is_told_and_changes_nothing(controller: Running) -> None:
    ids = await world(controller)
    events = await controller.audit()
    wrong = []
    for row in TABLE:
        answer = await controller.ask(f"mutation {{ it: {row.mutation % ids} {{ ok error }} }}")
        payload = (answer.get("data") or {}).get("it") or {}
        if payload.get("ok") is not False or row.told % ids not in (payload.get("error") or ""):
            wrong.append((row.mistake, row.told % ids, answer))
    assert wrong == []
    assert await controller.audit() == events


class Whole(NamedTuple):
    """A request that is refused as a whole: its body, whether a token goes with it; status, code and words of the answer."""

    mistake: str
    body: Any
    token: bool
    status: int
    code: str
    told: str = ""


ROUND = "{ remoteNetwork { connectors(first: 1) { edges { node "
DEEP = ROUND * 6 + "{ id }" + " } } } }" * 6
WIDE = " ".join(f"a{number}: groups {{ totalCount }}" for number in range(21))
EVERYTHING = "{ edges { node { users { edges { node { groups { edges { node { id } } } } } } } } }"
TEXT_DAYS = 'serviceAccountKeyCreate(serviceAccountId: "1", expirationTime: "1")'
BLANKS = b" " * 10_000_000
REQUESTS = [
    Whole("10 MB body", BLANKS, True, 413, "body-too-large", "may hold"),
    Whole("10 MB body of nobody", BLANKS, False, 401, "authentication-failed"),
    Whole("deep query", {"query": f"{{ connector(id: 1) {DEEP} }}"}, True, 200, "too-deep", "nested deeper than"),
    Whole("deeper than the parser", {"query": "{ a " * 5_000 + "} " * 5_000}, True, 200, "document-invalid"),
    Whole("wide query", {"query": f"{{ {WIDE} }}"}, True, 200, "too-many-fields"),
    Whole("query for everything", {"query": f"{{ groups {EVERYTHING} }}"}, True, 200, "too-costly"),
    Whole("introspection by nobody", {"query": get_introspection_query()}, False, 401, "authentication-failed"),
    Whole("type name by nobody", {"query": "{ __typename }"}, False, 401, "authentication-failed"),
    Whole("unknown enum value", {"query": 'mutation { remoteNetworkCreate(name: "n", location: MOON) { ok } }'}, True, 200,
          "document-invalid", "MOON"),
    Whole("missing argument", {"query": "mutation { serviceAccountCreate { ok } }"}, True, 200, "document-invalid", "name"),
    Whole("text for a number", {"query": f"mutation {{ {TEXT_DAYS} {{ ok }} }}"}, True, 200, "document-invalid", "Int"),
]  # fmt: skip


@pytest.mark.sqlite_only
@pytest.mark.parametrize("row", REQUESTS, ids=[row.mistake for row in REQUESTS])
async def test_a_request_that_is_bad_as_a_whole_is_refused_as_a_whole(controller: Running, row: Whole) -> None:
    headers = {"X-API-KEY": controller.tokens["read", "write", "provision"]} if row.token else {}
    content = row.body if isinstance(row.body, bytes) else json.dumps(row.body)
    async with controller.http() as client:
        answer = await client.post(GRAPHQL_PATH, content=content, headers=headers)
    assert answer.status_code == row.status
    told = answer.json()
    assert told.get("data") is None
    assert told["errors"][0]["extensions"]["code"] == row.code
    assert row.told in told["errors"][0]["message"]


@pytest.mark.sqlite_only
@pytest.mark.parametrize(
    ("declared", "value"),
    [("RemoteNetworkLocation", "MOON"), ("RemoteNetworkLocation", 5), ("Boolean", "yes"), ("ID!", None), ("String", "\ud800")],
)
async def test_a_variable_of_a_bad_value_is_no_server_error(controller: Running, declared: str, value: Any) -> None:
    argument = {"RemoteNetworkLocation": "location: $v", "Boolean": "isActive: $v", "ID!": "name: $v", "String": "name: $v"}[
        declared
    ]
    name = "" if "name" in argument else 'name: "n", '
    document = f"mutation ($v: {declared}) {{ remoteNetworkCreate({name}{argument}) {{ ok error }} }}"
    async with controller.http() as client:
        headers = {"X-API-KEY": controller.tokens["read", "write", "provision"]}
        answer = await client.post(
            GRAPHQL_PATH, content=json.dumps({"query": document, "variables": {"v": value}}), headers=headers
        )
    assert answer.status_code in (200, 400)
    assert answer.json()["errors"][0]["extensions"]["code"] != "internal"
    assert await controller.read(lambda tx: tx.remote_networks.find()) == []


# ---- two writers


async def test_of_two_writers_who_want_one_name_or_end_one_key_one_gets_it(controller: Running) -> None:
    ids = await one_of_everything(controller)
    for mutation, told in (
        ('serviceAccountCreate(name: "ci")', "exists already"),
        (f'serviceAccountKeyRevoke(id: "{ids["ServiceAccountKey"]}")', "REVOKED state cannot be revoked"),
        (f'connectorDelete(id: "{ids["Connector"]}")', "does not exist"),
    ):
        asked = [controller.try_change(f"mutation {{ {mutation} {{ ok error }} }}") for _ in range(4)]
        answers = await asyncio.gather(*asked)
        assert sorted(answer["ok"] for answer in answers) == [False, False, False, True]
        assert all(told in answer["error"] for answer in answers if not answer["ok"])


async def test_two_writers_on_one_object_leave_the_whole_of_both_where_they_change_different_things(controller: Running) -> None:
    id = (await one_of_everything(controller))["Resource"]
    changes = ('name: "renamed"', 'alias: "a.internal"', "isVisible: false", 'tags: [{key: "k", value: "v"}]')
    asked = [controller.change(f'mutation {{ resourceUpdate(id: "{id}", {change}) {{ ok error }} }}') for change in changes]
    await asyncio.gather(*asked)
    found = (await controller.query(f'{{ resource(id: "{id}") {{ name alias isVisible tags {{ key value }} }} }}'))["resource"]
    assert found == {"name": "renamed", "alias": "a.internal", "isVisible": False, "tags": [{"key": "k", "value": "v"}]}


# ---- answers that were lost


async def test_a_create_repeated_after_a_lost_answer_makes_nothing_twice_where_names_are_unique(controller: Running) -> None:
    """The client asks again (facts §7); it is told that the object is there, and finds it by its name."""
    network = await controller.add_network()
    for mutation, told in (
        ('remoteNetworkCreate(name: "office")', "exists already"),
        (f'connectorCreate(remoteNetworkId: "{network}", name: "office-1")', "exists already"),
        ('serviceAccountCreate(name: "ci")', "exists already"),
        ('groupCreate(name: "ops")', "exists already"),
        ('userCreate(email: "ada@example.com")', "exists already"),
        (
            f'resourceCreate(name: "r", address: "r.internal", alias: "r.acme.internal", remoteNetworkId: "{network}")',
            "this alias",
        ),
    ):
        document = f"mutation {{ {mutation} {{ ok error entity {{ id }} }} }}"
        await controller.try_change(document)
        events = await controller.audit()
        again = await controller.try_change(document)
        assert (again["ok"], again["entity"]) == (False, None)
        assert told in again["error"]
        assert await controller.audit() == events
    numbers = 'mutation { serialNumbersCreate(serialNumbers: ["S1"]) { ok error entities { id } } }'
    assert await controller.change(numbers) == await controller.change(numbers)


async def test_an_end_of_access_that_is_near_by_now_may_be_said_again_but_not_anew(controller: Running) -> None:
    ids = await one_of_everything(controller)
    soon = {"expiresAt": "2037-01-01T00:00:00+00:00"}
    controller.offset += 2_114_380_800 - controller.clock() - 7_200  # two hours before that
    add = "mutation ($r: ID!, $a: [AccessInput!]!) { resourceAccessAdd(resourceId: $r, access: $a) { ok error } }"
    both = [{"principalId": ids[kind], **soon} for kind in ("Group", "ServiceAccount")]
    await controller.change(add, r=ids["Resource"], a=both)
    controller.offset += 5_400
    await controller.change(add, r=ids["Resource"], a=both)
    await controller.change(add, r=ids["Resource"], a=[{**both[0], "securityPolicyId": ids["SecurityPolicy"]}])
    for edge in both:
        refused = await controller.try_change(add, r=ids["Resource"], a=[{**edge, "expiresAt": "2037-01-01T00:00:01+00:00"}])
        assert refused == {"ok": False, "error": "expiresAt must be 1 hour to 1 year ahead"}
