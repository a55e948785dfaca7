"""The audit over the extension: found by who, what and when, page by page, and with the ids of the request."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from klinket.controller.app import audit_log
from klinket.controller.graphql.extension import events_page
from klinket.controller.graphql.request_ids import MAX_CHARS
from klinket.domain.audit_chain import digest_of
from klinket.wire.paths import GRAPHQL_PATH
from tests.unit.controller.running import SOURCE, Running

FIELDS = "id number time action source digest event actor { type id name } targets { type id name } request { id userAgent }"
MANY = (
    "query ($f: AuditEventFilterInput, $first: Int, $after: String) { auditEvents(filter: $f, first: $first, after: $after)"
    f" {{ pageInfo {{ hasNextPage hasPreviousPage endCursor }} edges {{ cursor node {{ {FIELDS} }} }} }} }}"
)


async def page(controller: Running, first: int | None = None, after: str | None = None, **filter: Any) -> dict[str, Any]:
    given = {name.replace("begin", "from"): value for name, value in filter.items()}
    return dict((await controller.query(MANY, extension=True, f=given or None, first=first, after=after))["auditEvents"])


async def found(controller: Running, **filter: Any) -> list[dict[str, Any]]:
    return [edge["node"] for edge in (await page(controller, **filter))["edges"]]


async def test_an_event_tells_who_did_what_from_where(controller: Running) -> None:
    account = await controller.add_account("ci")
    (event, *_) = await found(controller)
    assert (event["action"], event["source"]) == ("create", SOURCE)
    assert (event["actor"]["type"], event["actor"]["name"]) == ("API", "read and write and provision")
    assert event["targets"] == [{"type": "serviceAccount", "id": "1", "name": "ci"}]
    assert event["request"]["userAgent"].startswith("python-httpx")
    row = await controller.last_event()
    assert event["event"]["digest"] == event["digest"] == digest_of(event["event"]) == row.digest
    one = await controller.query(f"query ($id: ID!) {{ auditEvent(id: $id) {{ {FIELDS} }} }}", extension=True, id=event["id"])
    assert one["auditEvent"] == event
    missed = await controller.query("query ($id: ID!) { auditEvent(id: $id) { id } }", extension=True, id=account)
    assert missed["auditEvent"] is None


@pytest.mark.parametrize(
    ("filter", "names"),
    [
        ({"actions": ["delete"]}, ["two"]),
        ({"targetType": "remoteNetwork"}, ["office"]),
        ({"targetType": "serviceAccount", "targetId": "1"}, ["one"]),
        ({"targetId": "U2VydmljZUFjY291bnQ6MQ=="}, ["one"]),
        ({"targetId": "UmVtb3RlTmV0d29yazox"}, ["office"]),
        ({"targetId": "nothing"}, []),
        ({"text": "OFFI"}, ["office"]),
        ({"actorType": "USER"}, []),
        ({"actorType": "API", "actions": ["create", "delete"], "text": '"TWO"'}, ["two", "two"]),
        ({"to": "2001-01-01T00:00:00Z"}, []),
        ({"begin": "2099-01-01T00:00:00Z"}, []),
    ],
)
async def test_a_filter_finds_what_meets_all_of_it(controller: Running, filter: dict[str, Any], names: list[str]) -> None:
    await controller.add_account("one")
    two = await controller.add_account("two")
    await controller.add_network("office")
    await controller.change("mutation ($i: ID!) { serviceAccountDelete(id: $i) { ok error } }", i=two)
    assert [node["targets"][0]["name"] for node in await found(controller, **filter)] == names


async def test_the_system_is_an_actor_too_and_time_bounds_are_from_and_before(controller: Running) -> None:
    controller.offset += 3600
    await controller.add_account("late")
    moment = audit_log.iso((await controller.last_event()).time_ms)
    assert [node["actor"]["type"] for node in await found(controller, begin=moment)] == ["API"]
    assert {node["actor"]["type"] for node in await found(controller, to=moment)} == {"System"}
    assert len(await found(controller, actorType="SYSTEM")) == len(await found(controller, to=moment))


async def test_pages_lead_through_all_events_once_while_new_ones_come(controller: Running) -> None:
    for number in range(12):
        await controller.add_account(f"account-{number}")
    total = len(await controller.audit())
    numbers: list[int] = []
    after, previous = None, False
    while True:
        got = await page(controller, first=5, after=after)
        numbers += [edge["node"]["number"] for edge in got["edges"]]
        assert got["pageInfo"]["hasPreviousPage"] is previous
        if not got["pageInfo"]["hasNextPage"]:
            break
        assert got["pageInfo"]["endCursor"] == got["edges"][-1]["cursor"]
        after, previous = got["pageInfo"]["endCursor"], True
        await controller.add_account(f"meanwhile-{len(numbers)}")
    assert numbers == list(range(total, 0, -1))


async def test_a_question_looks_at_so_many_events_and_no_more(controller: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_page, "MAX_SCANNED", 10)
    monkeypatch.setattr(events_page, "SCAN_STEP", 5)
    await controller.add_account("needle")
    for number in range(30):
        await controller.add_account(f"hay-{number}")
    after, looks, names = None, 0, []
    while True:
        got = await page(controller, first=1, after=after, text="needle")
        looks += 1
        names += [edge["node"]["targets"][0]["name"] for edge in got["edges"]]
        if not got["pageInfo"]["hasNextPage"]:
            break
        after = got["pageInfo"]["endCursor"]
    assert names == ["needle"]
    assert looks >= 4


async def test_a_page_takes_two_statements_whatever_its_size(controller: Running) -> None:
    for number in range(30):
        await controller.add_account(f"account-{number}")
    statements: list[str] = []

    def count(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "audit_events" in statement:
            statements.append(statement)

    event.listen(Engine, "before_cursor_execute", count)
    try:
        assert len(await found(controller, begin="2001-01-01T00:00:00Z")) > 30
    finally:
        event.remove(Engine, "before_cursor_execute", count)
    assert len(statements) == 2


async def test_a_text_to_look_for_is_bounded(controller: Running) -> None:
    answer = await controller.ask(MANY, {"f": {"text": "x" * 201}}, extension=True)
    assert "at most 200" in answer["errors"][0]["message"]


# ---- what a client says of its request


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        (
            {"X-Correlation-Id": "run-1", "X-Twingate-Request-Id": "try-1", "User-Agent": "TwingateTF/4.1"},
            {"id": "try-1", "correlationId": "run-1", "userAgent": "TwingateTF/4.1"},
        ),
        ({"User-Agent": ""}, None),
        ({"User-Agent": "a\tb\x7f\xe9"}, {"id": None, "correlationId": None, "userAgent": "a?b?é"}),
        ({"User-Agent": "a" * 5_000}, {"id": None, "correlationId": None, "userAgent": "a" * MAX_CHARS}),
    ],
)
async def test_ids_of_the_request_are_kept_bounded_and_printable(
    controller: Running, headers: dict[str, str], kept: dict[str, str | None] | None
) -> None:
    query = 'mutation { serviceAccountCreate(name: "ci") { ok } }'
    sent = {name: value.encode("latin-1") for name, value in headers.items()}
    async with controller.http() as client:
        token = controller.tokens["read", "write"]
        answer = await client.post(GRAPHQL_PATH, json={"query": query}, headers={**sent, "X-API-KEY": token.encode()})  # type: ignore[arg-type]
    assert answer.json()["data"]["serviceAccountCreate"]["ok"] is True
    assert (await controller.last_event()).request == kept
