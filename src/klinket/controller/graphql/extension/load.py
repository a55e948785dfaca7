"""The extension's SDL, one file a noun, with a resolver bound to every field."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from graphql import GraphQLSchema, build_schema

from klinket.controller.graphql.extension.resolvers import (
    account_limits,
    api_tokens,
    audit,
    controller,
    cuts,
    explain,
    flows,
    relays,
    service_keys,
    sessions,
    sinks,
)
from klinket.controller.graphql.schema import Resolver, bind, merged

#: The SDL's files, in the order in which people should read them.
NOUNS = (
    "controller",
    "sessions",
    "service_keys",
    "account_limits",
    "cuts",
    "explain",
    "audit",
    "flows",
    "sinks",
    "api_tokens",
    "relays",
)
#: Types whose fields are plain entries of the dictionaries that resolvers return.
PLAIN = (
    "PageInfo", "Controller", "AccountLimits", "Maker", "ServiceKeyUse", "CutReceipt", "CutFlow", "Explanation",
    "ExplanationStep", "AuditActor", "AuditRetention", "AuditTarget", "AuditRequest",
)  # fmt: skip


def extension_sdl() -> str:
    """Return the SDL as one text."""
    folder = files(__package__).joinpath("schema")
    return "\n".join(folder.joinpath(f"{noun}.graphql").read_text() for noun in NOUNS)


def extension_resolvers() -> dict[str, Resolver]:
    """Return every resolver by "Type.field"."""
    modules = (controller, sessions, service_keys, account_limits, cuts, explain, audit, flows, sinks, api_tokens, relays)
    return merged(module.FIELDS for module in modules)


@cache
def load_extension() -> GraphQLSchema:
    """Return the executable schema; raises AssertionError when a field has neither a resolver nor a plain value."""
    schema = build_schema(extension_sdl())
    bind(schema, extension_resolvers(), PLAIN)
    return schema
