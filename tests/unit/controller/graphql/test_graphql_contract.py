"""The schema served is the contract's, and a field that finds nothing says so as clients expect.

`contract.graphql` beside this file is the CORE part of the contract, word for word: existing clients rely on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

import pytest
from graphql import (
    GraphQLField,
    GraphQLSchema,
    IntrospectionQuery,
    build_client_schema,
    build_schema,
    get_introspection_query,
    lexicographic_sort_schema,
    print_schema,
)

from tests.unit.controller.graphql.documents import NOTHING, call
from tests.unit.controller.running import Running

CONTRACT = build_schema(Path(__file__).with_name("contract.graphql").read_text())


class Row(NamedTuple):
    """One field of Query or Mutation, and a document that asks for it alone."""

    field: str
    operation: str
    document: str

    @property
    def is_mutation(self) -> bool:
        return self.operation == "mutation"


def row(name: str, field: GraphQLField, operation: str) -> Row:
    if operation == "query":
        return Row(name, operation, f"query {{ {call(name, field)} }}")
    return Row(name, operation, f"mutation {{ {call(name, field, 'ok error')} }}")


def rows() -> Iterator[Row]:
    assert CONTRACT.query_type is not None
    assert CONTRACT.mutation_type is not None
    yield from (row(name, field, "query") for name, field in CONTRACT.query_type.fields.items())
    yield from (row(name, field, "mutation") for name, field in CONTRACT.mutation_type.fields.items())


TABLE = list(rows())
TAKES_ID = [row for row in TABLE if NOTHING in row.document]


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
