"""Cuts over the extension: names instead of ids, and what each connector answered; and why something is reached."""

from __future__ import annotations

from typing import Any

from klinket.controller.app import cuts
from tests.unit.controller.running import Running

CUTS = (
    "{ cuts { edges { node { id kind scope reason isComplete actor { type } "
    "receipts { connector state tookMs stoppedAt grantsEndAt flows { flow host port resourceId } } } } } }"
)
EXPLAIN = (
    "query ($a: ID!, $h: String!, $p: Int!) "
    "{ explain(serviceAccountId: $a, host: $h, port: $p) { allowed resourceName steps { ok text hint } } }"
)
FLOW = {
    "flow": "f1", "session": "s", "service_account": "u", "key": "k", "resource": 1, "host": "db.internal", "port": 5432,
    "protocol": "tcp", "stopped_after_ms": 1.5,
}  # fmt: skip


async def listed(controller: Running) -> list[dict[str, Any]]:
    return [edge["node"] for edge in (await controller.query(CUTS, extension=True))["cuts"]["edges"]]


async def test_a_cut_names_what_was_ended_and_waits_for_its_receipts(controller: Running) -> None:
    network = await controller.add_network()
    await controller.add_connector(network, "office-1")
    resource = await controller.add_resource(network)
    account = await controller.add_account(resources=[resource])
    key, _ = await controller.add_key(account)
    await controller.revoke_key(key)
    (cut,) = await listed(controller)
    assert (cut["kind"], cut["scope"], cut["reason"]) == (
        "KEY",
        "Everything reached with key runner of ci",
        "service-key-revoked",
    )
    assert cut["isComplete"] is False
    (receipt,) = cut["receipts"]
    assert (receipt["connector"], receipt["state"], receipt["flows"]) == ("office-1", "PENDING", [])
    assert receipt["grantsEndAt"] is not None
    await controller.write(lambda tx: cuts.answer(tx, 1, 1, stopped_at_ms=tx.now_ms, took_ms=2.5, flows=[FLOW]))
    (cut,) = await listed(controller)
    assert cut["isComplete"] is True
    assert cut["receipts"][0]["tookMs"] == 2.5
    assert cut["receipts"][0]["grantsEndAt"] is None
    assert cut["receipts"][0]["flows"] == [{"flow": "f1", "host": "db.internal", "port": 5432, "resourceId": resource}]


async def test_what_is_gone_is_named_by_its_id(controller: Running) -> None:
    network = await controller.add_network()
    resource = await controller.add_resource(network)
    await controller.add_account(resources=[resource])
    await controller.change("mutation ($r: ID!) { resourceDelete(id: $r) { ok error } }", r=resource)
    assert [cut["scope"] for cut in await listed(controller)] == ["a resource that was deleted (1), for everybody"]


async def test_an_explanation_over_the_api(controller: Running) -> None:
    network = await controller.add_network()
    account = await controller.add_account(resources=[await controller.add_resource(network)])
    await controller.add_key(account)
    answer = await controller.query(EXPLAIN, extension=True, a=account, h="db.internal", p=5432)
    assert answer["explain"]["resourceName"] == "Database"
    assert answer["explain"]["allowed"] is False
    assert [step["ok"] for step in answer["explain"]["steps"]] == [True, True, True, True, False]
    assert (await controller.query(EXPLAIN, extension=True, a="nonsense", h="db.internal", p=1))["explain"] is None
    refused = await controller.ask(EXPLAIN, {"a": account, "h": "db.internal", "p": 0}, extension=True)
    assert "ports are 1 to 65535" in refused["errors"][0]["message"]
