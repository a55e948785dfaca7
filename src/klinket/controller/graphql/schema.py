"""The contract's SDL with a resolver bound to every field."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

from graphql import (
    GraphQLError,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLUnionType,
    build_schema,
)

from klinket.controller.graphql import executor, resolvers
from klinket.controller.graphql.mutation import scope_of
from klinket.controller.graphql.resolvers import (
    access,
    connectors,
    devices,
    groups,
    remote_networks,
    resources,
    security_policies,
    service_accounts,
    service_keys,
    users,
)
from klinket.domain.moments import iso

Resolver = Callable[..., Any]

#: Types whose fields are plain entries of the dictionaries that resolvers return.
PLAIN = (
    "PageInfo", "ConnectorTokens", "ResourceAddress", "PortRange", "ResourceProtocol", "ResourceProtocols",
    "AccessPolicy", "Tag", "AccessEdge", "WebAppDownstream", "WebAppUpstream", "KeyValue",
    "Gateway", "KubernetesResource", "WebAppResource",
)  # fmt: skip
_PLAIN_ENDINGS = ("Edge", "Connection", "Mutation")


def resolver_table() -> dict[str, Resolver]:
    """Return every resolver by "Type.field"."""
    nouns = (
        remote_networks,
        connectors,
        resources,
        access,
        groups,
        users,
        security_policies,
        service_accounts,
        service_keys,
        devices,
    )
    return merged(module.FIELDS for module in nouns)


def merged(tables: Iterable[Mapping[str, Resolver]]) -> dict[str, Resolver]:
    """Return the tables of all nouns as one; a field named twice is an error."""
    whole: dict[str, Resolver] = {}
    for table in tables:
        twice = whole.keys() & table.keys()
        assert not twice, f"resolved twice: {sorted(twice)}"
        whole.update(table)
    return whole


@cache
def load_schema() -> GraphQLSchema:
    """Return the executable schema; raises AssertionError when a field has neither a resolver nor a plain value."""
    schema = build_schema(files(__package__).joinpath("schema.graphql").read_text())
    bind(schema, resolver_table(), PLAIN)
    return schema


def bind(schema: GraphQLSchema, table: Mapping[str, Resolver], plain_types: Collection[str]) -> None:
    """Attach resolvers, scalars and the types of interfaces; every field must be accounted for, root fields with a scope.

    Fields of `plain_types`, of edges, connections and payloads are entries of the dictionaries that resolvers return.
    """
    unused = set(table)
    for name, type_ in schema.type_map.items():
        if name.startswith("__"):
            continue
        if isinstance(type_, GraphQLObjectType):
            for field_name, field in type_.fields.items():
                resolver = table.get(f"{name}.{field_name}")
                if resolver is not None:
                    field.resolve = resolver
                    unused.discard(f"{name}.{field_name}")
                else:
                    plain = name in plain_types or (name.endswith(_PLAIN_ENDINGS) and name != "Mutation")
                    assert plain, f"{name}.{field_name} has no resolver"
        elif isinstance(type_, GraphQLInterfaceType | GraphQLUnionType):
            type_.resolve_type = _type_of
    assert not unused, f"resolvers without a field: {sorted(unused)}"
    for root in (schema.query_type, schema.mutation_type):
        for field_name, field in root.fields.items() if root is not None else ():
            assert scope_of(field.resolve), f"{root}.{field_name} says no scope"
    _bind_time(schema)
    executor.find_plain_fields(schema)


def _type_of(value: Any, *_: Any) -> str:
    return resolvers.TYPE_NAMES[type(value)]


def _bind_time(schema: GraphQLSchema) -> None:
    scalar = schema.type_map["DateTime"]
    assert isinstance(scalar, GraphQLScalarType)
    scalar.coerce_output_value = iso
    scalar.coerce_input_value = from_iso


def from_iso(text: Any) -> int:
    """Return milliseconds since the epoch for RFC 3339 text; raises GraphQLError without an offset."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise GraphQLError(f"not a date and time: {text!r}") from error
    if moment.tzinfo is None:
        raise GraphQLError(f"a date and time needs an offset: {text!r}")
    return round(moment.timestamp() * 1000)
