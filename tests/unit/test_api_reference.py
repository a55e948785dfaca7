"""docs/reference/api.md is what its generator makes of both schemas, and leaves nothing out."""

from __future__ import annotations

import re

import pytest
from graphql import GraphQLSchema, build_schema, is_specified_scalar_type

from klinket.controller.graphql.extension.load import load_extension
from klinket.controller.graphql.mutation import scope_of
from klinket.controller.graphql.schema import load_schema
from tools import api_reference
from tools.api_words import CONTRACT_WORDS

TEXT = api_reference.PATH.read_text()
SECTIONS = dict(re.findall(r"^#### (\w+ \w+)\n(.*?)(?=^#|\Z)", TEXT, re.MULTILINE | re.DOTALL))
SCHEMAS = pytest.mark.parametrize("schema", [load_schema(), load_extension()], ids=["contract", "klinket"])


def test_the_committed_reference_is_the_generated_one() -> None:
    assert api_reference.api_reference() == TEXT, "run ./dev docs and commit docs/reference/api.md"


@SCHEMAS
def test_every_root_field_is_there_with_its_scope_and_every_argument(schema: GraphQLSchema) -> None:
    for kind in ("query", "mutation"):
        for name, field in schema.type_map[kind.title()].fields.items():
            section = SECTIONS[f"{kind} {name}"]
            assert section.lstrip().startswith(f"Scope `{scope_of(field.resolve)}`. "), name
            of_pages = {"before", "after", "first", "last"} if "[pages](#pages)" in section else set()
            assert {argument for argument in field.args if f"| `{argument}` |" not in section} <= of_pages, name


@SCHEMAS
def test_every_type_is_there_or_is_as_all_pages_and_payloads(schema: GraphQLSchema) -> None:
    explained = {title.partition(" ")[2] for title in SECTIONS}
    missing = {name for name, type_ in schema.type_map.items() if name not in explained and not is_specified_scalar_type(type_)}
    usual = {name for name in missing if name.endswith(("Edge", "Connection", "Mutation"))}
    assert {name for name in missing - usual if not name.startswith("__")} == {"Query"}
    assert "AccessEdge" in explained  # it says more than an edge


def test_every_link_leads_to_a_heading() -> None:
    headings = [api_reference.anchor(title) for title in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)]
    assert len(headings) == len(set(headings))
    linked = set(re.findall(r"\]\(#([^)]+)\)", TEXT))
    assert len(linked) > 100
    assert linked <= set(headings)


def test_words_stand_only_where_the_contract_has_none() -> None:
    schema = load_schema()
    for name in CONTRACT_WORDS:
        kind, _, field = name.partition(".")
        described = schema.type_map[kind].fields[field] if field else schema.type_map[kind]
        assert not described.description, name


def test_a_type_without_a_noun_is_an_error() -> None:
    schema = build_schema('type Query { connector: Widget } "Words." type Widget { id: ID } type Mutation { groupCreate: ID }')
    with pytest.raises(ValueError, match="Widget is of no noun"):
        api_reference.contract_nouns(schema)
