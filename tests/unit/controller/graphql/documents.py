"""Documents that ask for one root field, made from the schema: its required arguments name nothing that exists."""

from __future__ import annotations

from typing import Any

from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLSchema,
    get_named_type,
    is_leaf_type,
)

from klinket.controller.graphql.global_id import to_global_id

#: A global id that names nothing.
NOTHING = to_global_id("Nothing", 999)
_SCALARS = {
    "ID": f'"{NOTHING}"',
    "Int": "1",
    "Float": "1.0",
    "Boolean": "true",
    "String": '"x"',
    "DateTime": '"2027-01-01T00:00:00+00:00"',
}


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
    return _SCALARS[str(type_)]


def arguments(given: dict[str, Any]) -> str:
    """Return the required ones, and `id`."""
    needed = {name: one for name, one in given.items() if isinstance(one.type, GraphQLNonNull) or name == "id"}
    return ", ".join(f"{name}: {literal(one.type)}" for name, one in needed.items())


def call(name: str, field: GraphQLField, selection: str = "__typename") -> str:
    """Return a field with its arguments and a selection, where it takes one."""
    given = arguments(field.args)
    selected = "" if is_leaf_type(get_named_type(field.type)) else f" {{ {selection} }}"
    return f"{name}({given}){selected}" if given else name + selected


def root_fields(schema: GraphQLSchema) -> dict[str, str]:
    """Return a document that asks for each field of Query and Mutation alone."""
    assert schema.query_type is not None
    assert schema.mutation_type is not None
    return {
        **{name: f"query {{ {call(name, one)} }}" for name, one in schema.query_type.fields.items()},
        **{name: f"mutation {{ {call(name, one)} }}" for name, one in schema.mutation_type.fields.items()},
    }
