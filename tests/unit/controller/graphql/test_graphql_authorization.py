"""Who gets an answer: every field of Query and Mutation of both schemas, asked by everybody.

A new field is one line in the table of its schema (tests/authorization.py), with the least scope that covers it; a field that is
missing there, and a line without a field, fail. What each caller gets is the matrix below.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from klinket.controller.app import api_tokens
from klinket.controller.graphql.context import ApiCaller, ApiServices, KeyFileFacts
from klinket.controller.graphql.execute import GraphQLApi
from klinket.controller.graphql.extension.load import load_extension
from klinket.controller.graphql.schema import load_schema
from klinket.domain.audit import SYSTEM
from klinket.wire.paths import EXTENSION_PATH, GRAPHQL_PATH
from tests.authorization import CONTRACT, EXTENSION, scopes_of
from tests.unit.controller.graphql.documents import root_fields
from tests.unit.controller.running import Running

ANSWERED = "200"
UNKNOWN, FORBIDDEN = "401 authentication-failed", "403 forbidden"

#: What each caller gets for a field that needs            read       write      provision
EXPECTED: dict[str, tuple[str, str, str]] = {
    "anonymous":                                          (UNKNOWN,   UNKNOWN,   UNKNOWN),
    "empty token":                                        (UNKNOWN,   UNKNOWN,   UNKNOWN),
    "bad token":                                          (UNKNOWN,   UNKNOWN,   UNKNOWN),
    "good token in Authorization":                        (UNKNOWN,   UNKNOWN,   UNKNOWN),
    "good token in a cookie":                             (UNKNOWN,   UNKNOWN,   UNKNOWN),
    "disabled token":                                     (UNKNOWN,   UNKNOWN,   UNKNOWN),
    "expired token":                                      (UNKNOWN,   UNKNOWN,   UNKNOWN),
    "deleted token":                                      (UNKNOWN,   UNKNOWN,   UNKNOWN),
    "provision token from a wrong source":                (FORBIDDEN, FORBIDDEN, FORBIDDEN),
    "read token":                                         (ANSWERED,  FORBIDDEN, FORBIDDEN),
    "write token":                                        (ANSWERED,  ANSWERED,  FORBIDDEN),
    "provision token":                                    (ANSWERED,  ANSWERED,  ANSWERED),
}  # fmt: skip
SCHEMAS = {GRAPHQL_PATH: load_schema(), EXTENSION_PATH: load_extension()}


TABLES = {GRAPHQL_PATH: scopes_of(CONTRACT), EXTENSION_PATH: scopes_of(EXTENSION)}
FIELDS = [(path, field) for path, table in TABLES.items() for field in table]
each_field = pytest.mark.parametrize(("path", "field"), FIELDS, ids=[field for _, field in FIELDS])


DOCUMENTS = {path: root_fields(schema) for path, schema in SCHEMAS.items()}


@pytest.mark.parametrize("path", TABLES)
def test_the_table_holds_exactly_the_fields_of_the_schema(path: str) -> None:
    assert sorted(TABLES[path]) == sorted(DOCUMENTS[path])


class Callers:
    """One controller, and every kind of caller. Each request comes from another network: failures are slowed."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.headers: dict[str, dict[str, str]] = {}
        self._numbers = count(1)

    async def arrive(self) -> None:
        tokens = {scope: await self._token(f"table {scope}", scope) for scope in api_tokens.ALL_SCOPES}
        expired = await self._token("expired", "provision", days=1)
        disabled, deleted = await self._token("disabled", "provision"), await self._token("deleted", "provision")
        elsewhere = await self._token("elsewhere", "provision", allowed_ranges=["198.51.100.0/24", "2001:db9::/32"])

        def end(tx: Any) -> None:
            (row,) = tx.api_tokens.find(name="disabled")
            api_tokens.update(tx, SYSTEM, row, is_enabled=False)
            (row,) = tx.api_tokens.find(name="deleted")
            api_tokens.delete(tx, SYSTEM, row)

        await self.running.write(end)
        self.running.offset += 86_401
        good = tokens["provision"]
        self.headers = {
            "anonymous": {},
            "empty token": {"X-API-KEY": ""},
            "bad token": {"X-API-KEY": "kl_api_" + "0" * 47},
            "good token in Authorization": {"Authorization": f"Bearer {good}"},
            "good token in a cookie": {"Cookie": f"X-API-KEY={good}; token={good}"},
            "disabled token": {"X-API-KEY": disabled},
            "expired token": {"X-API-KEY": expired},
            "deleted token": {"X-API-KEY": deleted},
            "provision token from a wrong source": {"X-API-KEY": elsewhere},
            **{f"{scope} token": {"X-API-KEY": text} for scope, text in tokens.items()},
        }

    async def _token(self, name: str, scope: str, **values: Any) -> str:
        made = await self.running.write(
            lambda tx: api_tokens.create(tx, SYSTEM, name=name, scopes=[scope], entropy=os.urandom, **values)
        )
        return made[1]

    async def ask(self, caller: str, path: str, document: str) -> Any:
        """Return the answer to a caller, who is told nothing of the token it came with."""
        headers = self.headers[caller]
        source = f"2001:db8:0:{next(self._numbers):x}::1"
        answer = await self.running.post(path, {"query": document}, source=source, headers=headers)
        for value in headers.values():
            assert not value or value not in answer.text
        return answer


@pytest.fixture(scope="module")
def callers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callers]:
    running = Running(tmp_path_factory.mktemp("controller"))
    callers = Callers(running)

    async def prepare() -> None:
        await running.open()
        await callers.arrive()

    asyncio.run(prepare())
    yield callers
    running.store.close()


def outcome(answer: Any) -> str:
    """Return status and code of an answer."""
    body = answer.json()
    if answer.status_code == 200:
        assert "errors" not in body, body
        return ANSWERED
    assert set(body) == {"errors"}
    (error,) = body["errors"]
    assert error["message"]
    assert error["extensions"]["hint"]
    return f"{answer.status_code} {error['extensions']['code']}"


@each_field
async def test_a_field_answers_whose_token_covers_it_and_nobody_else(callers: Callers, path: str, field: str) -> None:
    def everything(tx: Any) -> Any:
        changes = [event for event in tx.audit.find() if event.action != "refuse"]
        return tx.head(), len(changes), [(row.id, row.name, row.scopes, row.is_enabled) for row in tx.api_tokens.find()]

    column = api_tokens.ALL_SCOPES.index(TABLES[path][field])
    got = {}
    for caller in EXPECTED:
        before = await callers.running.read(everything)
        got[caller] = outcome(await callers.ask(caller, path, DOCUMENTS[path][field]))
        if got[caller] != ANSWERED:
            assert await callers.running.read(everything) == before
    assert got == {caller: row[column] for caller, row in EXPECTED.items()}


@pytest.mark.parametrize("path", TABLES)
@pytest.mark.parametrize("document", ["{ __schema { types { name } } }", '{ __type(name: "Query") { name } }', "{ __typename }"])
async def test_the_schema_itself_needs_a_token_that_reads(callers: Callers, path: str, document: str) -> None:
    got = {caller: outcome(await callers.ask(caller, path, document)) for caller in EXPECTED}
    assert got == {caller: row[0] for caller, row in EXPECTED.items()}


@pytest.mark.parametrize("path", TABLES)
async def test_a_resolver_asks_once_more(callers: Callers, path: str) -> None:
    """Nobody reaches a resolver without the scope; should somebody, it does nothing."""
    services = ApiServices(
        KeyFileFacts("acme", None), os.urandom, callers.running.master.seal, frozenset, dict, frozenset, frozenset(), dict
    )
    api = GraphQLApi(callers.running.store, SCHEMAS[path], services)
    for field, document in DOCUMENTS[path].items():
        operation = api.prepare(document, None, None)
        assert operation.scopes == {TABLES[path][field]}
        assert operation.mutations == document.startswith("mutation")
        scopes = frozenset(api_tokens.ALL_SCOPES) - operation.scopes
        answer = await api.execute(operation, ApiCaller(SYSTEM, scopes, 0))
        assert answer["errors"][0]["extensions"]["code"] == "forbidden", field


async def test_everybody_who_is_not_believed_is_told_the_same(callers: Callers) -> None:
    unknown = [caller for caller, row in EXPECTED.items() if row[0] == UNKNOWN]
    assert len(unknown) == 8
    assert len({(await callers.ask(caller, GRAPHQL_PATH, "{ __typename }")).text for caller in unknown}) == 1


@pytest.mark.parametrize(
    "document",
    [
        'mutation {{ groupCreate(name: "{name}") {{ ok }} {forbidden} }}',
        'mutation {{ groupCreate(name: "{name}") {{ ok }} ... {{ {forbidden} }} }}',
        'mutation {{ groupCreate(name: "{name}") {{ ok }} ...f }} fragment f on Mutation {{ ... on Mutation {{ {forbidden} }} }}',
        'mutation {{ groupCreate(name: "{name}") {{ ok }} harmless: {forbidden} }}',
        'mutation {{ groupCreate(name: "{name}") {{ ok }} ... @include(if: false) {{ {forbidden} }} }}',
    ],
    ids=["beside", "inline fragment", "fragment", "alias", "left out by a directive"],
)
async def test_a_document_with_one_field_too_much_does_nothing_at_all(callers: Callers, document: str) -> None:
    name = os.urandom(4).hex()
    text = document.format(name=name, forbidden='serviceAccountKeyRevoke(id: "x") { ok }')
    assert outcome(await callers.ask("write token", GRAPHQL_PATH, text)) == FORBIDDEN
    assert await callers.running.read(lambda tx: tx.groups.find(name=name)) == []
    assert outcome(await callers.ask("provision token", GRAPHQL_PATH, text)) == ANSWERED
    assert len(await callers.running.read(lambda tx: tx.groups.find(name=name))) == 1


async def test_an_operation_that_is_not_chosen_needs_no_scope(callers: Callers) -> None:
    document = 'query look { groups { totalCount } } mutation change { groupCreate(name: "not chosen") { ok } }'
    for name, expected in (("look", ANSWERED), ("change", FORBIDDEN)):
        body = {"query": document, "operationName": name}
        answer = await callers.running.post(GRAPHQL_PATH, body, headers=callers.headers["read token"])
        assert outcome(answer) == expected
