"""What one document may cost: size, tokens, depth, root fields, list arguments and the number of values it can ask for.

Each limit has an error with a code of its own, in `extensions.code`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    ObjectValueNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_abstract_type,
    is_composite_type,
    is_list_type,
)

from klinket.controller.graphql.paging import DEFAULT_PAGE_NODES, MAX_PAGE_NODES
from klinket.domain.errors import KlinketError

#: Characters of a document.
MAX_DOCUMENT_CHARS = 65_536
#: Lexical tokens of a document, comments included: validation time grows with their square.
MAX_TOKENS = 2_000
#: Nested selections.
MAX_DEPTH = 20
#: Fields of Query or Mutation in one operation.
MAX_ROOT_FIELDS = 20
#: Mutations in one document: it holds the only writer while it executes.
MAX_MUTATIONS = 10
#: Values one operation may ask for, as the product of its page sizes and of the lists in between, and items it gives in lists.
MAX_COST = 200_000
#: Values a list that is no page counts as, for example the port ranges of a resource.
LIST_VALUES = 10
#: Items of one list given as an argument, or of one list inside it.
MAX_LIST_ITEMS = 1_000
#: Items of all lists that a mutation document gives: each is looked up and written.
MAX_WRITE_ITEMS = 4_000

#: Fields below `__schema { types }` that are reached once per type in all, however they are spread over the types.
_STILL_EVERY = ("fields", "inputFields", "args")


class DocumentInvalid(KlinketError):
    """The document is not GraphQL, or not of this schema; base of all refusals of documents."""

    code = "document-invalid"


class DocumentTooLong(DocumentInvalid):
    code = "document-too-long"
    default_hint = "send values as variables, and what belongs apart in documents of its own"


class TooManyTokens(DocumentTooLong):
    code = "too-many-tokens"


class TooDeep(DocumentInvalid):
    code = "too-deep"
    default_hint = "ask for what is deeper in a second request, by id"


class TooManyFields(DocumentInvalid):
    code = "too-many-fields"
    default_hint = "send several requests"


class TooManyMutations(TooManyFields):
    code = "too-many-mutations"


class TooCostly(DocumentInvalid):
    code = "too-costly"
    default_hint = "ask for smaller pages: `first`, `last`"


class ListTooLong(DocumentInvalid):
    code = "list-too-long"
    default_hint = "change the set in several steps: added..., removed..."


@dataclass(frozen=True, slots=True)
class Cost:
    """What an operation asks for: its root fields by name (each as often as it stands there), its values, its list items."""

    root_fields: tuple[str, ...]
    values: float
    items: int


def check(
    schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode, variables: Mapping[str, Any]
) -> Cost:
    """Return what the operation costs; raises DocumentInvalid, naming the limit, where that is too much."""
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    walk = _Walk(schema, fragments, operation, variables)
    root = schema.get_root_type(operation.operation)
    walk.selections(operation.selection_set, root, depth=1, nodes=1.0, page=1)
    count = len(walk.root_fields)
    if operation.operation is OperationType.MUTATION:
        check_mutations(count)
        if walk.items > MAX_WRITE_ITEMS:
            raise ListTooLong(f"{walk.items} items in the lists of one mutation document, the limit is {MAX_WRITE_ITEMS}")
    if count > MAX_ROOT_FIELDS:
        raise TooManyFields(f"{count} root fields in one operation, the limit is {MAX_ROOT_FIELDS}")
    return Cost(tuple(walk.root_fields), walk.cost, walk.items)


def check_mutations(count: int) -> None:
    """Raise TooManyMutations where a document holds more than it may."""
    if count > MAX_MUTATIONS:
        raise TooManyMutations(f"{count} mutations in one document, the limit is {MAX_MUTATIONS}")


class _Walk:
    """Adds up the cost of an operation; fragments count wherever they are spread."""

    def __init__(
        self,
        schema: GraphQLSchema,
        fragments: Mapping[str, FragmentDefinitionNode],
        operation: OperationDefinitionNode,
        variables: Mapping[str, Any],
    ) -> None:
        self.schema = schema
        self.roots = {schema.query_type, schema.mutation_type}
        self.fragments = fragments
        self.defaults = {one.variable.name.value: one.default_value for one in operation.variable_definitions or ()}
        self.variables = variables
        self.cost = 0.0
        self.items = 0
        self.root_fields: list[str] = []

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
            raise TooDeep(f"the query is nested deeper than {MAX_DEPTH} levels")
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
            self.root_fields.append(name)
        known = self.schema.get_field(parent, name) if is_composite_type(parent) else None
        inner = None if known is None else get_named_type(known.type)
        if name == "edges":
            nodes *= page  # here and not at the connection: `edges` may stand in a fragment
        elif known is not None and is_list_type(get_nullable_type(known.type)):
            nodes *= _introspected(self.schema).get((parent.name if parent else "", name, every), LIST_VALUES)
        items = sum(self.items_of(argument.value) for argument in field.arguments or ())
        self.items += items
        self.cost += nodes * (1 + items)
        if self.cost > MAX_COST:
            raise TooCostly(f"the query may ask for more than {MAX_COST} values: ask for smaller pages")
        if field.selection_set is not None:
            every = (parent is not None and parent.name == "__Schema" and name == "types") or (every and name in _STILL_EVERY)
            self.selections(field.selection_set, inner, depth + 1, nodes, self.page_size(field), every)

    def items_of(self, value: ValueNode) -> int:
        """Return how many items the lists of an argument hold, in the document and in its variables."""
        if isinstance(value, VariableNode):
            if value.name.value in self.variables:
                return _items(self.variables[value.name.value])
            default = self.defaults.get(value.name.value)
            return 0 if default is None else self.items_of(default)
        if isinstance(value, ListValueNode):
            _check_length(len(value.values))
            return len(value.values) + sum(self.items_of(one) for one in value.values)
        if isinstance(value, ObjectValueNode):
            return sum(self.items_of(field.value) for field in value.fields)
        return 0

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


def _items(value: Any) -> int:
    """Return how many items the lists of a variable hold, at every level."""
    count = 0
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, list):
            _check_length(len(one))
            count += len(one)
            left.extend(one)
        elif isinstance(one, dict):
            left.extend(one.values())
    return count


def _check_length(count: int) -> None:
    if count > MAX_LIST_ITEMS:
        raise ListTooLong(f"{count} items in one list, the limit is {MAX_LIST_ITEMS}")
