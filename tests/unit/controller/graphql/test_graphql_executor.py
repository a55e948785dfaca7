"""The short way for plain fields gives what graphql-core gives: values, nulls and errors with their places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from graphql import ExecutionResult, GraphQLSchema, build_schema, execute_sync, parse
from graphql.execution import Executor

from klinket.controller.graphql.executor import TimedExecutor, find_plain_fields
from klinket.controller.graphql.extension.load import load_extension
from klinket.controller.graphql.schema import load_schema

SDL = """
enum Colour { RED GREEN }
type Thing { id: ID! name: String! note: String count: Int size: Float colour: Colour flag: Boolean!
  tags: [String!]! of(kind: String): String inner: Thing calls: Int }
type Query { thing: Thing things: [Thing!]! plain: String }
"""
GOOD = {"id": 7, "name": "a", "note": "n", "count": 3, "size": 1, "colour": "RED", "flag": True, "tags": ["t"], "inner": None}
ALL = (
    'id name note count size colour flag tags inner { id } other: name of(kind: "x") calls ... on Thing { again: id } __typename'
)


def schema() -> GraphQLSchema:
    made = build_schema(SDL)
    thing = made.type_map["Thing"]
    thing.fields["calls"].resolve = lambda source, info: info.context[source["id"]]  # type: ignore[union-attr]
    thing.fields["of"].resolve = lambda source, info, kind: f"{kind}{info.field_name}"  # type: ignore[union-attr]
    find_plain_fields(made)
    return made


def answer(document: str, root: Any, executor: type[Executor]) -> tuple[Any, Any]:
    result = execute_sync(schema(), parse(document), root, context_value={7: 70}, executor_class=executor)
    assert isinstance(result, ExecutionResult)
    return result.data, [error.formatted for error in result.errors or ()]


@pytest.mark.parametrize(
    "changed",
    [
        {}, {"note": None}, {"name": None}, {"name": 5}, {"name": ["no text"]}, {"count": "x"}, {"count": 1 << 40},
        {"colour": "BLUE"}, {"colour": None}, {"flag": None}, {"flag": 2}, {"id": None}, {"id": 8}, {"tags": None},
        {"inner": dict(GOOD)}, {"inner": {"id": None}}, {"size": float("nan")}, {"note": ""}, {"count": 0}, {"flag": False},
    ],
    ids=str,
)  # fmt: skip
def test_both_ways_give_the_same(changed: dict[str, Any]) -> None:
    thing = {**GOOD, **changed}
    document = f"{{ thing {{ {ALL} }} things {{ {ALL} }} plain }}"
    root = {"thing": thing, "things": [dict(GOOD), thing], "plain": "p"}
    assert answer(document, root, TimedExecutor) == answer(document, root, Executor)


def test_a_field_that_raises_is_told_once_with_its_place() -> None:
    data, errors = answer("{ thing { name calls } }", {"thing": {**GOOD, "id": 8}}, TimedExecutor)
    assert data == {"thing": {"name": "a", "calls": None}}
    assert [error["path"] for error in errors] == [["thing", "calls"]]


@pytest.mark.parametrize("load", [load_schema, load_extension])
def test_root_fields_go_the_long_way_for_their_resolvers_may_change_something(load: Callable[[], GraphQLSchema]) -> None:
    short = {name for name, type_ in load().type_map.items() if "klinket.plain" in type_.extensions}
    assert len(short) > 10
    assert not short & {"Query", "Mutation"}
