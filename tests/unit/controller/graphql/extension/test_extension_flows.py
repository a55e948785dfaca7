"""Network events over the extension: found by whose, where, how and when."""

from __future__ import annotations

from typing import Any

import pytest

from klinket.controller.app import flow_events
from klinket.controller.graphql.global_id import to_global_id
from klinket.wire.control import FlowEvent
from tests.unit.controller.running import Running

MANY = (
    "query ($f: FlowEventFilterInput, $first: Int, $after: String) { flowEvents(filter: $f, first: $first, after: $after)"
    " { pageInfo { hasNextPage endCursor } edges { node { id time kind connection status failure connectorId remoteNetworkId"
    " serviceAccountId serviceKeyId resourceId resourceName event } } } }"
)


async def page(controller: Running, first: int | None = None, after: str | None = None, **filter: Any) -> dict[str, Any]:
    return dict((await controller.query(MANY, extension=True, f=filter or None, first=first, after=after))["flowEvents"])


async def found(controller: Running, **filter: Any) -> list[str]:
    return [edge["node"]["connection"] for edge in (await page(controller, **filter))["edges"]]


@pytest.fixture
async def ids(controller: Running) -> dict[str, str]:
    """Three connections: `a` of a known account, key and resource that ended; `b` failed, `c` was denied."""
    network = await controller.add_network()
    connector = await controller.add_connector(network)
    resource = await controller.add_resource(network)
    account = await controller.add_account(resources=[resource])
    key, key_file = await controller.add_key(account)
    now = int(controller.clock() * 1000)

    def seen(kind: str, flow: str, **more: Any) -> FlowEvent:
        given: dict[str, Any] = {
            "event": kind, "flow": flow, "time_ms": now - 1000, "session": "s", "service_account": "other", "key": "other",
            "resource": None, "host": "db.internal", "port": 5432, "protocol": "tcp", **more,
        }  # fmt: skip
        return FlowEvent(**given)

    known = {"service_account": key_file.service_account_id, "key": key_file.key_id, "resource": 1}
    events = [
        seen("established", "a", **known),
        seen("closed", "a", **known),
        seen("failed", "b", failure="name-not-found"),
        seen("denied", "c", failure="not-granted", time_ms=now),
    ]
    await controller.write(lambda tx: flow_events.keep(tx, 1, 1, events))
    return {"network": network, "connector": connector, "resource": resource, "account": account, "key": key}


async def test_an_event_names_its_objects_by_the_ids_of_the_admin_api(controller: Running, ids: dict[str, str]) -> None:
    edges = (await page(controller, kinds=["CLOSED"]))["edges"]
    (node,) = [edge["node"] for edge in edges]
    assert (node["serviceAccountId"], node["serviceKeyId"], node["resourceId"]) == (ids["account"], ids["key"], ids["resource"])
    assert (node["connectorId"], node["remoteNetworkId"]) == (ids["connector"], ids["network"])
    assert (node["kind"], node["status"], node["failure"]) == ("CLOSED", "NORMAL", None)
    assert node["event"]["service_account"]["name"] == "ci"
    assert node["resourceName"] == "Database"
    (denied,) = [edge["node"] for edge in (await page(controller, kinds=["DENIED"]))["edges"]]
    assert denied["resourceName"] is None


async def test_filters_must_all_be_met(controller: Running, ids: dict[str, str]) -> None:
    everything = ["c", "b", "a", "a"]
    assert await found(controller) == everything
    assert await found(controller, serviceAccountId=ids["account"]) == ["a", "a"]
    assert await found(controller, serviceKeyId=ids["key"], kinds=["ESTABLISHED"]) == ["a"]
    assert await found(controller, resourceId=ids["resource"]) == ["a", "a"]
    assert await found(controller, connectorId=ids["connector"]) == everything
    assert await found(controller, remoteNetworkId=ids["network"], kinds=["FAILED", "DENIED"]) == ["c", "b"]
    assert await found(controller, failure="not-granted") == ["c"]
    assert await found(controller, serviceAccountId=ids["resource"]) == []
    assert await found(controller, serviceAccountId=to_global_id("ServiceAccount", 99)) == []
    moment = (await page(controller, first=1))["edges"][0]["node"]["time"]
    assert await found(controller, **{"from": moment}) == ["c"]
    assert await found(controller, to=moment) == ["b", "a", "a"]


async def test_pages_lead_through_all_events_once(controller: Running, ids: dict[str, str]) -> None:
    listed: list[str] = []
    after = None
    for _ in range(10):
        got = await page(controller, first=3, after=after)
        listed += [edge["node"]["connection"] for edge in got["edges"]]
        after = got["pageInfo"]["endCursor"]
        if not got["pageInfo"]["hasNextPage"]:
            break
    assert listed == ["c", "b", "a", "a"]
    assert ids


@pytest.mark.parametrize("after", ["0", "", "no cursor", "YXJyYXljb25uZWN0aW9uOjA="])
async def test_what_is_no_cursor_counts_as_from_the_start(controller: Running, ids: dict[str, str], after: str) -> None:
    assert len((await page(controller, after=after))["edges"]) == 4
    assert ids
