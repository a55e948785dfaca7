"""Makes docs/reference/api.md from both schemas of the Admin API: `./dev docs`.

Nouns, fields and types stand in the order of the SDL. Edges, connections and payloads that are as all others are left to the
section that explains them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import cast

from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLType,
    GraphQLUnionType,
    ObjectTypeDefinitionNode,
    ObjectTypeExtensionNode,
    TypeDefinitionNode,
    ast_from_value,
    get_named_type,
    is_specified_scalar_type,
    parse,
    print_ast,
)
from graphql.pyutils import Undefined

from klinket.controller.graphql import extension
from klinket.controller.graphql.extension.load import NOUNS, load_extension
from klinket.controller.graphql.mutation import scope_of
from klinket.controller.graphql.schema import load_schema
from tools.api_words import CONTRACT_NOUNS, CONTRACT_WORDS

PATH = Path(__file__).resolve().parents[1] / "docs" / "reference" / "api.md"
ROOTS = ("Query", "Mutation")
_PAGE = {"before", "after", "first", "last"}
_SHARED = "Shared by all nouns"

_HEAD = """\
# Every query, mutation and type of the Admin API

<!-- Made by `./dev docs` from the SDL; changes belong there. -->

How to ask, what answers look like, limits and tokens: [Admin API](admin-api.md). First requests:
[use curl](../how-to/use-curl.md).

Two schemas, with the same tokens and rules:

- [The contract](#the-contract), at `POST /api/graphql/`: what clients of Twingate's Admin API know, and nothing else.
- [klinket's own](#klinkets-own), at `POST /api/klinket/graphql/`: what klinket has beyond it.

At each query and mutation stands the [scope](admin-api.md#scopes) that a token needs for it. `!` after a type: never null.

## Pages

A field that gives pages takes `first` with `after`, or `last` with `before`, and gives a type whose name ends in `Connection`:
`edges`, each with `node` and `cursor`; `pageInfo`; and, but for pages that go forwards only, `totalCount`. Go on with `after`:
`pageInfo.endCursor` while `pageInfo.hasNextPage` is true. Without arguments, or with null, a page is as large as it may be: 100.

## Payloads

A mutation gives a type of its own, named as the mutation with `Mutation` at the end: `ok`, and `error`, null when `ok` is true.
What it gives besides stands at the mutation, and is null when `ok` is false.
"""


@dataclass(frozen=True)
class Noun:
    """A section: its title, what it is in a sentence, and what stands in it, in order."""

    title: str
    words: str
    roots: tuple[str, ...]
    types: tuple[str, ...]


def api_reference() -> str:
    """Return the whole text of docs/reference/api.md; raises ValueError for a type or root field without a noun or words."""
    contract, own = load_schema(), load_extension()
    lines = [_HEAD, "## The contract\n", _contents(contract_nouns(contract))]
    for noun in contract_nouns(contract):
        lines += _section(noun, contract, CONTRACT_WORDS, known=set())
    lines += ["## klinket's own\n", _contents(extension_nouns(own))]
    for noun in extension_nouns(own):
        lines += _section(noun, own, {}, known=set(contract.type_map))
    return "\n".join(lines).rstrip() + "\n"


def contract_nouns(schema: GraphQLSchema) -> list[Noun]:
    """Return the contract's nouns: fields and types belong to the noun with the longest beginning of their name."""
    found: dict[str, tuple[list[str], list[str]]] = {title: ([], []) for title in CONTRACT_NOUNS}
    for root in _roots(schema):
        found[_noun_of(root.partition(".")[2])][0].append(root)
    for name in _types(schema):
        found[_noun_of(name)][1].append(name)
    return [Noun(title, CONTRACT_NOUNS[title][0], tuple(roots), tuple(types)) for title, (roots, types) in found.items()]


def extension_nouns(schema: GraphQLSchema) -> list[Noun]:
    """Return the extension's nouns: one for each file of its SDL."""
    nouns = []
    folder = files(extension).joinpath("schema")
    every = _types(schema)
    for file in NOUNS:
        definitions = parse(folder.joinpath(f"{file}.graphql").read_text()).definitions
        roots = [
            f"{one.name.value}.{field.name.value}"
            for one in definitions
            if isinstance(one, ObjectTypeDefinitionNode | ObjectTypeExtensionNode) and one.name.value in ROOTS
            for field in one.fields or ()
        ]
        types = [one.name.value for one in definitions if isinstance(one, TypeDefinitionNode) and one.name.value in every]
        title = file.replace("_", " ").replace("api", "API")
        nouns.append(Noun(f"{title[0].upper()}{title[1:]}, beyond the contract", "", tuple(roots), tuple(types)))
    return nouns


def _noun_of(name: str) -> str:
    best = max(
        ((len(start), title) for title, (_, starts) in CONTRACT_NOUNS.items() for start in starts if _begins(name, start)),
        default=None,
    )
    if best is None:
        raise ValueError(f"{name} is of no noun: add how it begins to CONTRACT_NOUNS in tools/api_words.py")
    return best[1]


def _begins(name: str, start: str) -> bool:
    return name.lower().startswith(start.lower())


def _roots(schema: GraphQLSchema) -> list[str]:
    return [f"{root}.{name}" for root in ROOTS for name in _fields(schema.type_map[root])]


def _types(schema: GraphQLSchema) -> list[str]:
    """Return the types that are explained one by one."""
    return [
        name
        for name, type_ in schema.type_map.items()
        if name not in ROOTS and not name.startswith("__") and not is_specified_scalar_type(type_) and not _is_usual(type_)
    ]


def _fields(type_: GraphQLType) -> dict[str, GraphQLField]:
    """Return the fields of an object or interface type."""
    assert isinstance(type_, GraphQLObjectType | GraphQLInterfaceType)
    fields: dict[str, GraphQLField] = type_.fields
    return fields


def _is_usual(type_: GraphQLNamedType) -> bool:
    """Return whether a type is a payload, or an edge or a connection as all others."""
    fields = set(type_.fields) if isinstance(type_, GraphQLObjectType) else set()
    if type_.name.endswith("Mutation"):
        return {"ok", "error"} <= fields
    return (type_.name.endswith("Edge") and fields == {"node", "cursor"}) or (
        type_.name.endswith("Connection") and fields - {"totalCount"} == {"pageInfo", "edges"}
    )


# ---- text


def _contents(nouns: Iterable[Noun]) -> str:
    return "\n".join(f"- [{noun.title}](#{anchor(noun.title)})" for noun in nouns) + "\n"


def anchor(heading: str) -> str:
    """Return the anchor of a heading, as it is made of its text."""
    return "".join(one for one in heading.lower() if one.isalnum() or one in " -_").strip().replace(" ", "-")


def _section(noun: Noun, schema: GraphQLSchema, words: Mapping[str, str], known: set[str]) -> Iterator[str]:
    yield f"### {noun.title}\n"
    if noun.words:
        yield f"{noun.words}\n"
    for root in noun.roots:
        kind, _, name = root.partition(".")
        field = _fields(schema.type_map[kind])[name]
        yield f"#### {kind.lower()} {name}\n"
        yield f"Scope `{scope_of(field.resolve)}`. {_said(root, field.description, words)}\n"
        arguments = {key: one for key, one in field.args.items() if not _of_page(key, field)}
        if arguments:
            yield _table("argument", arguments)
        yield f"Gives {_gives(field)}.\n"
    for name in noun.types:
        if name not in known:
            yield from _type(schema.type_map[name], words)


def _of_page(name: str, field: GraphQLField) -> bool:
    return name in _PAGE and get_named_type(field.type).name.endswith("Connection")


def _gives(field: GraphQLField) -> str:
    type_ = get_named_type(field.type)
    if type_.name.endswith("Connection"):
        ways = "[pages](#pages)" if "before" in field.args else "[pages](#pages), forwards only,"
        edge = get_named_type(_fields(type_)["edges"].type)
        return f"{ways} of {_linked(get_named_type(_fields(edge)['node'].type) if _is_usual(edge) else edge)}"
    if type_.name.endswith("Mutation"):
        parts = ["[`ok`, `error`](#payloads)"]
        for name, one in _fields(type_).items():
            if name not in ("ok", "error"):
                parts.append(f"`{name}` ({_linked(one.type)}{'. ' + _flat(one.description) if one.description else ''})")
        return ", ".join(parts).rstrip(".")
    return _linked(field.type)


def _said(name: str, description: str | None, words: Mapping[str, str]) -> str:
    if not description and name not in words:
        raise ValueError(f"{name} has no description: add one to its SDL, or to tools/api_words.py if the contract's has none")
    return _flat(description or words[name])


def _type(type_: GraphQLNamedType, words: Mapping[str, str]) -> Iterator[str]:
    kinds = {
        GraphQLEnumType: "enum",
        GraphQLInputObjectType: "input",
        GraphQLInterfaceType: "interface",
        GraphQLUnionType: "union",
        GraphQLScalarType: "scalar",
    }
    yield f"#### {kinds.get(type(type_), 'type')} {type_.name}\n"
    yield f"{_said(type_.name, type_.description, words)}\n"
    if isinstance(type_, GraphQLEnumType):
        if any(value.description for value in type_.values.values()):
            rows = (f"| `{name}` | {_flat(value.description)} |" for name, value in type_.values.items())
            yield "\n".join(["| value | |", "|---|---|", *rows]) + "\n"
        else:
            yield ", ".join(f"`{name}`" for name in type_.values) + "\n"
    elif isinstance(type_, GraphQLUnionType):
        yield "One of " + ", ".join(_linked(one) for one in type_.types) + "\n"
    elif isinstance(type_, GraphQLInputObjectType):
        yield _table("field", type_.fields)
    elif isinstance(type_, GraphQLObjectType) and type_.interfaces:
        yield from _beyond_interfaces(type_)
    elif not isinstance(type_, GraphQLScalarType):
        yield _table("field", _fields(type_))


def _beyond_interfaces(type_: GraphQLObjectType) -> Iterator[str]:
    inherited = {name for one in type_.interfaces for name in one.fields}
    own = {name: field for name, field in type_.fields.items() if name not in inherited}
    yield f"The fields of {', '.join(_linked(one) for one in type_.interfaces)}, and:\n"
    yield _table("field", own)


def _table(kind: str, fields: Mapping[str, GraphQLField | GraphQLInputField | GraphQLArgument]) -> str:
    rows = [f"| {kind} | type | |", "|---|---|---|"]
    for name, field in fields.items():
        default = getattr(field, "default_value", Undefined)
        words = [_flat(field.description)]
        if default is not Undefined:
            node = ast_from_value(default, cast(GraphQLInputType, field.type))
            assert node is not None
            words.append(f"Default: `{print_ast(node)}`.")
        if isinstance(field, GraphQLField) and get_named_type(field.type).name.endswith("Connection"):
            rows.append(f"| `{name}` | {_gives(field)} | {_cell(words)} |")
        else:
            rows.append(f"| `{name}` | {_linked(field.type)} | {_cell(words)} |")
    return "\n".join(rows) + "\n"


def _cell(words: Iterable[str]) -> str:
    return " ".join(word for word in words if word).replace("|", "\\|")


def _flat(text: str | None) -> str:
    words = " ".join((text or "").split())
    return words if not words or words[-1] in ".!?" else words + "."


def _linked(type_: GraphQLType) -> str:
    named = get_named_type(type_)
    if is_specified_scalar_type(named):
        return f"`{type_}`"
    kind = {
        GraphQLEnumType: "enum",
        GraphQLInputObjectType: "input",
        GraphQLInterfaceType: "interface",
        GraphQLUnionType: "union",
        GraphQLScalarType: "scalar",
    }.get(type(named), "type")
    return f"[`{type_}`](#{kind}-{named.name.lower()})"


if __name__ == "__main__":
    PATH.write_text(api_reference())
