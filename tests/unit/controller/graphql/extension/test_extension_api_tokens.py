"""API tokens over the extension: made once, listed without their text, changed and ended."""

from __future__ import annotations

from typing import Any

import pytest

from klinket.wire.paths import EXTENSION_PATH, GRAPHQL_PATH
from tests.unit.controller.running import Running

FIELDS = "id name scopes isEnabled isExpired expiresAt allowedRanges lastUsedAt createdAt updatedAt createdBy"
CREATE = (
    "mutation ($name: String!, $scopes: [ApiTokenScope!]!, $days: Int!, $ranges: [String!]) "
    "{ apiTokenCreate(name: $name, scopes: $scopes, expirationTime: $days, allowedRanges: $ranges) "
    f"{{ ok error token entity {{ {FIELDS} }} }} }}"
)
UPDATE = (
    "mutation ($id: ID!, $name: String, $scopes: [ApiTokenScope!], $on: Boolean, $ranges: [String!]) "
    "{ apiTokenUpdate(id: $id, name: $name, scopes: $scopes, isEnabled: $on, allowedRanges: $ranges) "
    f"{{ ok error entity {{ {FIELDS} }} }} }}"
)
DELETE = "mutation ($id: ID!) { apiTokenDelete(id: $id) { ok error } }"
ONE = f"query ($id: ID!) {{ apiToken(id: $id) {{ {FIELDS} }} }}"
ALL = "{ apiTokens { totalCount edges { node { name } } } }"


async def payload(controller: Running, document: str, **variables: Any) -> dict[str, Any]:
    (found,) = (await controller.query(document, extension=True, **variables)).values()
    return dict(found)


async def made(controller: Running, name: str = "terraform", **values: Any) -> dict[str, Any]:
    values = {"scopes": ["READ"], "days": 0, **values}
    return await payload(controller, CREATE, name=name, **values)


async def status(controller: Running, text: str) -> int:
    answer = await controller.post(GRAPHQL_PATH, {"query": "{ __typename }"}, headers={"X-API-KEY": text})
    return answer.status_code


async def test_a_new_token_opens_the_api_and_its_text_is_shown_once(controller: Running) -> None:
    answer = await made(controller, scopes=["WRITE"], days=30, ranges=["192.0.2.0/24"])
    assert answer["ok"] is True
    text, entity = answer["token"], answer["entity"]
    assert await status(controller, text) == 200
    assert (entity["name"], entity["scopes"], entity["isEnabled"]) == ("terraform", ["READ", "WRITE"], True)
    assert (entity["isExpired"], entity["allowedRanges"], entity["lastUsedAt"]) == (False, ["192.0.2.0/24"], None)
    assert entity["createdBy"] == "read and write and provision"
    again = (await controller.query(ONE, extension=True, id=entity["id"]))["apiToken"]
    assert again["lastUsedAt"] is not None
    assert {**again, "lastUsedAt": None} == entity
    assert text.encode() not in controller.everything_stored()
    assert text not in str(await controller.audit())
    controller.offset += 30 * 86_400
    assert await status(controller, text) == 401
    assert (await controller.query(ONE, extension=True, id=entity["id"]))["apiToken"]["isExpired"] is True


async def test_all_tokens_are_listed(controller: Running) -> None:
    await made(controller)
    listed = (await controller.query(ALL, extension=True))["apiTokens"]
    assert listed["totalCount"] == len(controller.tokens) + 1
    assert listed["edges"][-1]["node"] == {"name": "terraform"}


async def test_null_and_absent_leave_as_it_is_and_an_empty_list_allows_every_address(controller: Running) -> None:
    entity = (await made(controller, ranges=["198.51.100.0/24"]))["entity"]
    for variables in ({}, {"name": None, "scopes": None, "on": None, "ranges": None}):
        assert (await payload(controller, UPDATE, id=entity["id"], **variables))["entity"] == entity
    changed = await payload(controller, UPDATE, id=entity["id"], name="ops", scopes=["PROVISION"], ranges=[])
    assert changed["ok"] is True
    assert (changed["entity"]["name"], changed["entity"]["allowedRanges"]) == ("ops", [])
    assert changed["entity"]["scopes"] == ["READ", "WRITE", "PROVISION"]


async def test_a_token_is_disabled_enabled_and_deleted(controller: Running) -> None:
    answer = await made(controller)
    for on, expected in ((False, 401), (True, 200)):
        assert (await payload(controller, UPDATE, id=answer["entity"]["id"], on=on))["ok"] is True
        assert await status(controller, answer["token"]) == expected
    assert await payload(controller, DELETE, id=answer["entity"]["id"]) == {"ok": True, "error": None}
    assert await status(controller, answer["token"]) == 401
    assert (await controller.query(ONE, extension=True, id=answer["entity"]["id"]))["apiToken"] is None
    missed = await payload(controller, DELETE, id=answer["entity"]["id"])
    assert missed["error"] == f"API token with id '{answer['entity']['id']}' does not exist"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"scopes": []}, "scopes must not be empty"),
        ({"days": 366}, "expirationTime is 366 days"),
        ({"days": -1}, "expirationTime is -1 days"),
        ({"name": ""}, "name must not be empty"),
        ({"name": "read"}, "an API token with this name exists already"),
        ({"ranges": ["192.0.2.1/24"]}, "not a range of addresses"),
        ({"ranges": [""]}, "not a range of addresses"),
    ],
)
async def test_bad_input_is_told_by_field_and_nothing_is_made(controller: Running, values: dict[str, Any], told: str) -> None:
    answer = await made(controller, **{"name": "terraform", **values})
    assert (answer["ok"], answer["token"], answer["entity"]) == (False, None, None)
    assert told in answer["error"]
    assert (await controller.query(ALL, extension=True))["apiTokens"]["totalCount"] == len(controller.tokens)


async def test_nobody_locks_everybody_out(controller: Running) -> None:
    """The token in use is never the one that ends: whoever asks has a way to undo what was done."""
    own = (await controller.read(lambda tx: tx.api_tokens.find(name="read and write and provision")))[0]
    nodes = (await controller.query("{ apiTokens { edges { node { id name } } } }", extension=True))["apiTokens"]["edges"]
    ids = {edge["node"]["name"]: edge["node"]["id"] for edge in nodes}
    for name, id in ids.items():
        ended = await payload(controller, DELETE, id=id)
        assert ended["ok"] is (name != own.name)
    for values in ({"on": False}, {"scopes": ["READ"]}, {"ranges": ["198.51.100.0/24"]}):
        refused = await payload(controller, UPDATE, id=ids[own.name], **values)
        assert "can change nothing of itself but its name" in refused["error"]
    assert (await payload(controller, UPDATE, id=ids[own.name], name="ops"))["ok"] is True
    assert (await made(controller))["ok"] is True


async def test_a_bounded_token_hands_on_no_more_than_it_has(controller: Running) -> None:
    bounded = (await made(controller, "bounded", scopes=["PROVISION"], days=30, ranges=["192.0.2.0/24"]))["token"]
    for values, told in (
        ({"days": 29, "ranges": ["192.0.2.7"]}, None),
        ({"days": 0, "ranges": ["192.0.2.7"]}, "a later expiry"),
        ({"days": 29, "ranges": []}, "source addresses"),
    ):
        variables = {"name": str(values), "scopes": ["READ"], **values}
        body = {"query": CREATE, "variables": variables}
        answer = await controller.post(EXTENSION_PATH, body, headers={"X-API-KEY": bounded})
        found = answer.json()["data"]["apiTokenCreate"]
        assert found["ok"] is (told is None), found
        assert told is None or told in found["error"]
