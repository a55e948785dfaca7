"""What one document may cost: size, tokens, depth, root fields, the number of values it can ask for, and time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLEnumType,
    GraphQLError,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_abstract_type,
    is_composite_type,
    is_list_type,
)

from klinket.controller.graphql.paging import DEFAULT_PAGE_NODES, MAX_PAGE_NODES

#: Characters of a document.
MAX_DOCUMENT_CHARS = 65_536
#: Lexical tokens of a document: validation time grows with their square.
MAX_TOKENS = 2_000
#: Nested selections.
MAX_DEPTH = 20
#: Fields of Query or Mutation in one operation.
MAX_ROOT_FIELDS = 20
#: Values one operation may ask for, as the product of its page sizes and of the lists in between.
MAX_COST = 200_000
#: Values a list that is no page counts as, for example the port ranges of a resource.
LIST_VALUES = 10
#: Seconds one operation may execute: the cost is an estimate, this is not. Whoever else wants the thread waits as long.
MAX_EXECUTE_SECONDS = 10.0

#: Fields below `__schema { types }` that are reached once per type in all, however they are spread over the types.
_STILL_EVERY = ("fields", "inputFields", "args")
_deadline: ContextVar[float] = ContextVar("deadline", default=float("inf"))


class OutOfTime(BaseException):
    """The operation has executed for MAX_EXECUTE_SECONDS. No Exception: a field's error would be caught, and the rest go on."""


@contextmanager
def limited_time() -> Iterator[None]:
    """Let `check_time` raise OutOfTime in this thread, MAX_EXECUTE_SECONDS from now on."""
    token = _deadline.set(time.monotonic() + MAX_EXECUTE_SECONDS)
    try:
        yield
    finally:
        _deadline.reset(token)


def check_time() -> None:
    """Raise OutOfTime when the operation this thread executes has had its time; called per field and per row looked at."""
    if time.monotonic() > _deadline.get():
        raise OutOfTime


def check(
    schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode, variables: Mapping[str, Any]
) -> None:
    """Raise GraphQLError, naming the limit, when the operation is too deep, too wide or asks for too many values."""
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    walk = _Walk(schema, fragments, variables)
    root = schema.get_root_type(operation.operation)
    walk.selections(operation.selection_set, root, depth=1, nodes=1.0, page=1)
    if walk.root_fields > MAX_ROOT_FIELDS:
        raise GraphQLError(f"{walk.root_fields} root fields in one operation, the limit is {MAX_ROOT_FIELDS}")


class _Walk:
    """Adds up the cost of an operation; fragments count wherever they are spread."""

    def __init__(
        self, schema: GraphQLSchema, fragments: Mapping[str, FragmentDefinitionNode], variables: Mapping[str, Any]
    ) -> None:
        self.schema = schema
        self.roots = {schema.query_type, schema.mutation_type}
        self.fragments = fragments
        self.variables = variables
        self.cost = 0.0
        self.root_fields = 0

    def selections(
        self,
        selection_set: SelectionSetNode,
        parent: GraphQLNamedType | None,
        depth: int,
        nodes: float,
        page: int,
        every: bool = False,
    ) -> None:
        """Walk what is selected of one field. `page`: nodes on a page, should the field be a connection.

        `every`: the field stands for all types of the schema, once each.
        """
        if depth > MAX_DEPTH:
            raise GraphQLError(f"the query is nested deeper than {MAX_DEPTH} levels")
        for selection in selection_set.selections:
            if isinstance(selection, FieldNode):
                self.field(selection, parent, depth, nodes, page, every)
            elif isinstance(selection, InlineFragmentNode):
                condition = selection.type_condition
                inner = parent if condition is None else self.schema.get_type(condition.name.value)
                self.selections(selection.selection_set, inner, depth + 1, nodes, page, every)
            elif isinstance(selection, FragmentSpreadNode) and selection.name.value in self.fragments:
                fragment = self.fragments[selection.name.value]
                inner = self.schema.get_type(fragment.type_condition.name.value)
                self.selections(fragment.selection_set, inner, depth + 1, nodes, page, every)

    def field(self, field: FieldNode, parent: GraphQLNamedType | None, depth: int, nodes: float, page: int, every: bool) -> None:
        name = field.name.value
        if parent in self.roots:
            self.root_fields += 1
        known = self.schema.get_field(parent, name) if is_composite_type(parent) else None
        inner = None if known is None else get_named_type(known.type)
        if name == "edges":
            nodes *= page  # here and not at the connection: `edges` may stand in a fragment
        elif known is not None and is_list_type(get_nullable_type(known.type)):
            nodes *= _introspected(self.schema).get((parent.name if parent else "", name, every), LIST_VALUES)
        self.cost += nodes
        if self.cost > MAX_COST:
            raise GraphQLError(f"the query may ask for more than {MAX_COST} values: ask for smaller pages")
        if field.selection_set is not None:
            every = (parent is not None and parent.name == "__Schema" and name == "types") or (every and name in _STILL_EVERY)
            self.selections(field.selection_set, inner, depth + 1, nodes, self.page_size(field), every)

    def page_size(self, field: FieldNode) -> int:
        sizes = []
        for argument in field.arguments or ():
            if argument.name.value in ("first", "last"):
                if isinstance(argument.value, IntValueNode):
                    sizes.append(int(argument.value.value))
                elif isinstance(argument.value, VariableNode):
                    given = self.variables.get(argument.value.name.value)
                    if isinstance(given, int):
                        sizes.append(given)
        wanted = min(sizes, default=DEFAULT_PAGE_NODES)
        return max(1, min(wanted, MAX_PAGE_NODES))


@cache
def _introspected(schema: GraphQLSchema) -> dict[tuple[str, str, bool], float]:
    """Return how long the lists of introspection are: (type, field, every type once) -> mean per type, else the longest."""
    types = list(schema.type_map.values())
    composite = [one for one in types if isinstance(one, GraphQLObjectType | GraphQLInterfaceType)]
    fields = [field for one in composite for field in one.fields.values()]
    inputs = [one for one in types if isinstance(one, GraphQLInputObjectType)]
    lengths: dict[tuple[str, str], list[int]] = {
        ("__Type", "fields"): [len(one.fields) for one in composite],
        ("__Type", "inputFields"): [len(one.fields) for one in inputs],
        ("__Type", "enumValues"): [len(one.values) for one in types if isinstance(one, GraphQLEnumType)],
        ("__Type", "possibleTypes"): [len(schema.get_possible_types(one)) for one in types if is_abstract_type(one)],
        ("__Type", "interfaces"): [len(one.interfaces) for one in composite],
    }
    sizes: dict[tuple[str, str, bool], float] = {}
    for (type_name, name), listed in lengths.items():
        sizes[type_name, name, True] = sum(listed) / len(types)
        sizes[type_name, name, False] = max(listed, default=0)
    arguments = [len(field.args) for field in fields]
    sizes["__Field", "args", True] = sum(arguments) / max(1, len(fields))
    sizes["__Field", "args", False] = max(arguments, default=0)
    directives = [len(one.args) for one in schema.directives]
    for every in (True, False):
        sizes["__Schema", "types", every] = len(types)
        sizes["__Schema", "directives", every] = len(directives)
        sizes["__Directive", "args", every] = max(directives, default=0)
        sizes["__Directive", "locations", every] = max((len(one.locations) for one in schema.directives), default=0)
    return sizes
