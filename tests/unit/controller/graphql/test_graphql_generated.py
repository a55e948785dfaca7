"""Requests that schemathesis makes up from the schema as it is served: every answer is one that the contract allows.

Every operation gets CASES requests that are valid by the schema, with ids of real objects among the others, and a few with
one violation. KLINKET_TEST_SCALE=10 makes ten times as many.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from graphql import (
    FieldNode,
    GraphQLEnumType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    lexicographic_sort_schema,
    parse,
    print_schema,
)
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode

from klinket.controller.graphql.extension.load import load_extension
from klinket.wire.paths import EXTENSION_PATH, GRAPHQL_PATH
from tests.unit.controller.graphql.inventory import one_of_everything
from tests.unit.controller.graphql.test_graphql_contract import CONTRACT
from tests.unit.controller.running import Running

SCALE = int(os.environ.get("KLINKET_TEST_SCALE", "1"))
#: Requests for each operation of the contract, for each one of the extension, and of those with one violation.
CASES, EXTENSION_CASES, VIOLATIONS = 40 * SCALE, 10 * SCALE, 5 * SCALE
#: What a request that is valid by the schema may be refused for.
REFUSALS = {"too-costly", "too-deep", "list-too-long", "document-too-long", "too-many-tokens", "too-many-fields"}


def operations(schema: GraphQLSchema) -> list[tuple[str, str]]:
    """Return ("Query" or "Mutation", field) of all operations."""
    roots = [root for root in (schema.query_type, schema.mutation_type) if root is not None]
    return [(root.name, field) for root in roots for field in root.fields]


OPERATIONS = operations(CONTRACT)
EXTENSION = operations(load_extension())


class Served:
    """A controller with something of everything in it, and its schemas as schemathesis reads them."""

    def __init__(self, state: Path) -> None:
        self.controller = Running(state)
        asyncio.run(self.controller.open())
        self.headers = {"X-API-KEY": self.controller.tokens["read", "write", "provision"]}
        self.schemas = {path: self.read(path) for path in (GRAPHQL_PATH, EXTENSION_PATH)}
        self.ids: list[str] = []
        self.done: set[str] = set()

    def read(self, path: str) -> Any:
        return schemathesis.graphql.from_asgi(path, self.controller.app, headers=self.headers)

    def stock(self) -> None:
        """Make one of everything; ids of what was there before stay in use, be it deleted or not."""
        self.ids += asyncio.run(one_of_everything(self.controller)).values()
        number = st.integers(0, 10_000)
        ids = number.map(lambda drawn: self.ids[-1 - drawn % min(len(self.ids), 30)])
        schemathesis.graphql.scalar("ID", (ids | st.text(max_size=12)).map(schemathesis.graphql.nodes.String))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("controller"))
    yield served
    served.controller.store.close()


def run(served: Served, path: str, operation: tuple[str, str], mode: GenerationMode, cases: int) -> list[dict[str, Any]]:
    """Return the answers to `cases` generated requests; none of them is a failure of the server."""
    served.stock()
    root, field = operation
    answers: list[dict[str, Any]] = []

    @settings(max_examples=cases, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(case=served.schemas[path][root][field].as_strategy(generation_mode=mode))
    def ask(case: Case) -> None:
        response = case.call(headers=served.headers)
        assert response.status_code == 200, (case.body, response.text)
        answer = response.json()
        for error in answer.get("errors", ()):
            assert error.get("extensions", {}).get("code") != "internal", (case.body, error)
            assert "Cannot return null for non-nullable" not in error["message"], (case.body, error)
        if mode is GenerationMode.POSITIVE:
            schema = CONTRACT if path == GRAPHQL_PATH else load_extension()
            check_answer(schema, str(case.body), answer)
        else:
            assert answer.get("errors"), case.body
        answers.append(answer)
        served.done.update(name for name, payload in (answer.get("data") or {}).items() if payload and payload.get("ok", True))

    ask()
    return answers


def check_answer(schema: GraphQLSchema, document: str, answer: dict[str, Any]) -> None:
    """Assert that an answer has the shape that the schema promises for the document, or is a refusal with a known word."""
    if "data" not in answer:
        assert {error["extensions"]["code"] for error in answer["errors"]} <= REFUSALS, (document, answer)
        return
    for error in answer.get("errors", ()):
        known = error["message"].startswith("filter regexp: ") or error.get("extensions", {}).get("code") == "invalid-input"
        assert known, (document, error)
    if answer["data"] is None:
        assert answer.get("errors"), document
        return
    operation = parse(document).definitions[0]
    assert isinstance(operation, OperationDefinitionNode)
    root = schema.get_root_type(operation.operation)
    assert root is not None
    fits(schema, root, answer["data"], [(operation.selection_set, True)])
    if operation.operation.value == "mutation":
        check_payloads(answer["data"])


def check_payloads(data: dict[str, Any]) -> None:
    """Assert of each payload: ok=true with error null, or ok=false with a text and nothing else."""
    for payload in data.values():
        rest = [value for name, value in payload.items() if name not in ("ok", "error", "__typename")]
        if payload.get("ok") is True:
            assert payload.get("error") is None
        elif payload.get("ok") is False:
            assert payload.get("error", "not asked for")
            assert all(value is None for value in rest)


#: Selections of one value: each with whether it counts for sure, or only if the value is of a fragment's type.
Selections = list[tuple[SelectionSetNode | None, bool]]


def fits(schema: GraphQLSchema, type_: Any, value: Any, selections: Selections) -> None:
    """Assert that a value is one of its type, with what was selected of it and nothing else."""
    if isinstance(type_, GraphQLNonNull):
        assert value is not None, type_
        type_ = type_.of_type
    if value is None:
        return
    if isinstance(type_, GraphQLList):
        assert isinstance(value, list)
        for item in value:
            fits(schema, type_.of_type, item, selections)
    elif isinstance(type_, GraphQLEnumType):
        assert value in type_.values
    elif selections[0][0] is None:
        kinds: dict[str, Any] = {"Int": int, "Float": (int, float), "Boolean": bool, "ExportedJSON": dict}
        assert isinstance(value, kinds.get(str(type_), str)), (type_, value)
    else:
        fields: dict[str, list[tuple[Any, FieldNode, bool]]] = defaultdict(list)
        for selected, certain in selections:
            for owner, field, unconditional in fields_of(schema, type_, selected):
                fields[field.alias.value if field.alias else field.name.value].append((owner, field, certain and unconditional))
        always = {name for name, nodes in fields.items() if any(certain for _, _, certain in nodes)}
        assert always <= set(value) <= set(fields)
        for name, inner in value.items():
            owner, field, _ = fields[name][0]
            if field.name.value != "__typename":
                selections = [(node.selection_set, certain) for _, node, certain in fields[name]]
                fits(schema, owner.fields[field.name.value].type, inner, selections)


def fields_of(schema: GraphQLSchema, type_: Any, selected: SelectionSetNode | None) -> Iterator[tuple[Any, FieldNode, bool]]:
    """Yield (type, field, whether it stands outside of fragments)."""
    for node in selected.selections if selected else ():
        if isinstance(node, FieldNode):
            yield type_, node, True
        else:
            assert isinstance(node, InlineFragmentNode)
            inner = schema.get_type(node.type_condition.name.value) if node.type_condition else type_
            yield from ((owner, field, False) for owner, field, _ in fields_of(schema, inner, node.selection_set))


def test_there_are_enough_requests() -> None:
    assert CASES * len(OPERATIONS) >= 2_000


def test_schemathesis_reads_the_contract_and_nothing_else(served: Served) -> None:
    read, contract = (lexicographic_sort_schema(one) for one in (served.schemas[GRAPHQL_PATH].client_schema, CONTRACT))
    assert print_schema(read).splitlines() == print_schema(contract).splitlines()


@pytest.mark.parametrize("operation", OPERATIONS, ids=".".join)
def test_an_operation_of_the_contract_answers_as_its_schema_says(served: Served, operation: tuple[str, str]) -> None:
    assert len(run(served, GRAPHQL_PATH, operation, GenerationMode.POSITIVE, CASES)) == CASES


def test_most_operations_found_what_they_were_about(served: Served) -> None:
    """Of the requests above: with ids of nothing alone, every one would have been refused."""
    assert len(served.done) > len(OPERATIONS) * 2 / 3, sorted({field for _, field in OPERATIONS} - served.done)


@pytest.mark.parametrize("operation", EXTENSION, ids=".".join)
def test_an_operation_of_the_extension_answers_as_its_schema_says(served: Served, operation: tuple[str, str]) -> None:
    assert run(served, EXTENSION_PATH, operation, GenerationMode.POSITIVE, EXTENSION_CASES)


@pytest.mark.parametrize("operation", OPERATIONS, ids=".".join)
def test_a_request_that_breaks_the_schema_is_refused_whole(served: Served, operation: tuple[str, str]) -> None:
    for answer in run(served, GRAPHQL_PATH, operation, GenerationMode.NEGATIVE, VIOLATIONS):
        assert "data" not in answer or answer["data"] is None
