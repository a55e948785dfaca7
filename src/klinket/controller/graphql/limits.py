"""What one document may cost: size, tokens, depth, root fields, list arguments and the number of nodes it can ask for.

Each limit has an error with a code of its own, in `extensions.code`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    ObjectValueNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    ValueNode,
    VariableNode,
)

from klinket.controller.graphql.paging import DEFAULT_PAGE_NODES, MAX_PAGE_NODES
from klinket.domain.errors import KlinketError

#: Characters of a document.
MAX_DOCUMENT_CHARS = 65_536
#: Lexical tokens of a document, comments included: validation time grows with their square.
MAX_TOKENS = 2_000
#: Nested selections.
MAX_DEPTH = 15
#: Fields of Query or Mutation in one operation.
MAX_ROOT_FIELDS = 20
#: Mutations in one document: it holds the only writer while it executes.
MAX_MUTATIONS = 10
#: Values one operation may ask for, as the product of its page sizes, and items it gives in lists.
MAX_COST = 200_000
#: Items of one list given as an argument, or of one list inside it.
MAX_LIST_ITEMS = 1_000
#: Items of all lists that a mutation document gives: each is looked up and written.
MAX_WRITE_ITEMS = 4_000


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
    values: int
    items: int


def check(document: DocumentNode, operation: OperationDefinitionNode, variables: Mapping[str, Any]) -> Cost:
    """Return what the operation costs; raises DocumentInvalid, naming the limit, where that is too much."""
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    walk = _Walk(fragments, operation, variables)
    walk.selections(operation.selection_set, depth=1, nodes=1, page=1, root=True)
    count = len(walk.root_fields)
    if operation.operation is OperationType.MUTATION:
        if count > MAX_MUTATIONS:
            raise TooManyMutations(f"{count} mutations in one document, the limit is {MAX_MUTATIONS}")
        if walk.items > MAX_WRITE_ITEMS:
            raise ListTooLong(f"{walk.items} items in the lists of one mutation document, the limit is {MAX_WRITE_ITEMS}")
    if count > MAX_ROOT_FIELDS:
        raise TooManyFields(f"{count} root fields in one operation, the limit is {MAX_ROOT_FIELDS}")
    return Cost(tuple(walk.root_fields), walk.cost, walk.items)


class _Walk:
    """Adds up the cost of an operation; fragments count wherever they are spread."""

    def __init__(
        self,
        fragments: Mapping[str, FragmentDefinitionNode],
        operation: OperationDefinitionNode,
        variables: Mapping[str, Any],
    ) -> None:
        self.fragments = fragments
        self.defaults = {one.variable.name.value: one.default_value for one in operation.variable_definitions or ()}
        self.variables = variables
        self.cost = 0
        self.items = 0
        self.root_fields: list[str] = []

    def selections(self, selection_set: SelectionSetNode, depth: int, nodes: int, page: int, *, root: bool = False) -> None:
        """Walk what is selected of one field. `page`: nodes on a page, should the field be a connection."""
        if depth > MAX_DEPTH:
            raise TooDeep(f"the query is nested deeper than {MAX_DEPTH} levels")
        for selection in selection_set.selections:
            if isinstance(selection, FieldNode):
                self.field(selection, depth, nodes, page, root=root)
            elif isinstance(selection, InlineFragmentNode):
                self.selections(selection.selection_set, depth + 1, nodes, page, root=root)
            elif isinstance(selection, FragmentSpreadNode) and selection.name.value in self.fragments:
                self.selections(self.fragments[selection.name.value].selection_set, depth + 1, nodes, page, root=root)

    def field(self, field: FieldNode, depth: int, nodes: int, page: int, *, root: bool) -> None:
        if root:
            self.root_fields.append(field.name.value)
        if field.name.value == "edges":
            nodes *= page  # here and not at the connection: `edges` may stand in a fragment
        items = sum(self.items_of(argument.value) for argument in field.arguments or ())
        self.items += items
        self.cost += nodes * (1 + items)
        if self.cost > MAX_COST:
            raise TooCostly(f"the query may ask for more than {MAX_COST} values: ask for smaller pages")
        if field.selection_set is not None:
            self.selections(field.selection_set, depth + 1, nodes, self.page_size(field))

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
