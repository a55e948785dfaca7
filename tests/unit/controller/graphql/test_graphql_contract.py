"""The schema served is the contract's, and no field of it answers anybody whose token does not cover it.

`contract.graphql` beside this file is the CORE part of the contract, word for word: existing clients rely on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLSchema,
    IntrospectionQuery,
    build_client_schema,
    build_schema,
    get_introspection_query,
    lexicographic_sort_schema,
    print_schema,
)

from klinket.controller.graphql.global_id import to_global_id
from klinket.wire.paths import GRAPHQL_PATH
from tests.unit.controller.running import Running

CONTRACT = build_schema(Path(__file__).with_name("contract.graphql").read_text())
#: A global id that names nothing.
NOTHING = to_global_id("Nothing", 999)
#: Mutations that give out or end a credential (facts §7).
NEED_PROVISION = {
    "connectorGenerateTokens",
    "serviceAccountKeyCreate",
    "serviceAccountKeyRevoke",
    "serviceAccountKeyDelete",
}


class Row(NamedTuple):
    """One field of Query or Mutation, the scope it needs, and a document that asks for it alone."""

    field: str
    scope: str
    document: str

    @property
    def is_mutation(self) -> bool:
        return self.scope != "read"


def literal(type_: GraphQLInputType) -> str:
    """Return a value of a type as it stands in a document; an id names nothing that exists."""
    if isinstance(type_, GraphQLNonNull):
        return literal(type_.of_type)
    if isinstance(type_, GraphQLList):
        return f"[{literal(type_.of_type)}]"
    if isinstance(type_, GraphQLEnumType):
        return str(next(iter(type_.values)))
    if isinstance(type_, GraphQLInputObjectType):
        return "{" + arguments(type_.fields) + "}"
    values = {"ID": f'"{NOTHING}"', "Int": "1", "Boolean": "true", "String": '"x"'}
    return values[str(type_)]


def arguments(given: dict[str, Any]) -> str:
    needed = {name: one for name, one in given.items() if isinstance(one.type, GraphQLNonNull) or name == "id"}
    return ", ".join(f"{name}: {literal(one.type)}" for name, one in needed.items())


def row(name: str, field: GraphQLField, operation: str) -> Row:
    call = f"{name}({arguments(field.args)})" if arguments(field.args) else name
    if operation == "query":
        return Row(name, "read", f"query {{ {call} {{ __typename }} }}")
    scope = "provision" if name in NEED_PROVISION else "write"
    return Row(name, scope, f"mutation {{ {call} {{ ok error }} }}")


def rows() -> Iterator[Row]:
    assert CONTRACT.query_type is not None
    assert CONTRACT.mutation_type is not None
    yield from (row(name, field, "query") for name, field in CONTRACT.query_type.fields.items())
    yield from (row(name, field, "mutation") for name, field in CONTRACT.mutation_type.fields.items())


TABLE = list(rows())
TAKES_ID = [row for row in TABLE if NOTHING in row.document]
each_field = pytest.mark.parametrize("row", TABLE, ids=[row.field for row in TABLE])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One controller for the whole table: its rows create at the most, and no test here counts what there is."""
    running = Running(tmp_path_factory.mktemp("controller"))
    asyncio.run(running.open())
    yield running
    running.store.close()


def plain(schema: GraphQLSchema) -> list[str]:
    return print_schema(lexicographic_sort_schema(schema)).splitlines()


async def test_the_schema_served_is_the_contract(shared: Running) -> None:
    answer = await shared.query(get_introspection_query(type_depth=5))
    assert plain(build_client_schema(cast(IntrospectionQuery, answer))) == plain(CONTRACT)


def test_the_table_holds_every_field_and_every_credential_needs_provision() -> None:
    assert len(TABLE) == len({row.field for row in TABLE}) > 50
    assert {row.field for row in TABLE if row.scope == "provision"} == NEED_PROVISION


@each_field
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="anonymous"),
        pytest.param({"X-API-KEY": ""}, id="empty token"),
        pytest.param({"X-API-KEY": "kl_api_" + "0" * 47}, id="made up token"),
        pytest.param({"Authorization": "Bearer TOKEN"}, id="good token in another header"),
        pytest.param({"Cookie": "X-API-KEY=TOKEN; token=TOKEN"}, id="good token in a cookie"),
    ],
)
async def test_nobody_without_a_token_gets_an_answer(shared: Running, row: Row, headers: dict[str, str]) -> None:
    token = shared.tokens["read", "write", "provision"]
    headers = {name: value.replace("TOKEN", token) for name, value in headers.items()}
    answer = await shared.post(GRAPHQL_PATH, {"query": row.document}, headers=headers)
    assert answer.status_code == 401
    assert set(answer.json()) == {"errors"}
    assert answer.json()["errors"][0]["extensions"]["code"] == "authentication-failed"
    assert token not in answer.text


@each_field
@pytest.mark.parametrize("scopes", [("read",), ("write",), ("read", "write")], ids=" and ".join)
async def test_a_token_does_what_its_scopes_cover_and_nothing_else(shared: Running, row: Row, scopes: tuple[str, ...]) -> None:
    def everything(tx: Any) -> Any:
        return tx.head(), len(tx.audit.find())

    before = await shared.read(everything)
    answer = await shared.ask(row.document, scopes=scopes)
    if row.scope in scopes:
        assert "errors" not in answer
        return
    assert answer["data"] is None or answer["data"] == {row.field: None}
    (error,) = answer["errors"]
    assert error["extensions"]["code"] == "forbidden"
    assert error["message"] == f"this API token lacks the scope '{row.scope}'"
    assert await shared.read(everything) == before


@pytest.mark.parametrize("row", TAKES_ID, ids=[row.field for row in TAKES_ID])
async def test_an_id_of_nothing_reads_as_null_and_changes_nothing(shared: Running, row: Row) -> None:
    answer = await shared.ask(row.document)
    assert "errors" not in answer
    found = answer["data"][row.field]
    if not row.is_mutation:
        assert found is None
        return
    assert found["ok"] is False
    assert "does not exist" in found["error"]


@pytest.mark.parametrize("field", [row.field for row in TABLE if row.field.endswith("s") and not row.is_mutation])
async def test_a_list_of_nothing_is_an_empty_page(controller: Running, field: str) -> None:
    page = "{ totalCount edges { cursor } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } }"
    assert (await controller.query(f"{{ {field} {page} }}"))[field] == {
        "totalCount": 0,
        "edges": [],
        "pageInfo": {"hasNextPage": False, "hasPreviousPage": False, "startCursor": None, "endCursor": None},
    }


async def test_a_disabled_token_is_dead_at_once(controller: Running) -> None:
    def disable(tx: Any) -> None:
        for one in tx.api_tokens.find(name="read"):
            tx.api_tokens.change(one.id, is_enabled=False)

    headers = {"X-API-KEY": controller.tokens["read",]}
    body = {"query": "{ resources { totalCount } }"}
    assert (await controller.post(GRAPHQL_PATH, body, headers=headers)).status_code == 200
    await controller.write(disable)
    assert (await controller.post(GRAPHQL_PATH, body, headers=headers)).status_code == 401
