"""What one document may cost: size, tokens, depth, root fields and the number of nodes it can ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
)

from klinket.controller.graphql.paging import DEFAULT_PAGE_NODES, MAX_PAGE_NODES

#: Characters of a document.
MAX_DOCUMENT_CHARS = 65_536
#: Lexical tokens of a document: validation time grows with their square.
MAX_TOKENS = 2_000
#: Nested selections.
MAX_DEPTH = 15
#: Fields of Query or Mutation in one operation.
MAX_ROOT_FIELDS = 20
#: Nodes one operation may ask for, as the product of its page sizes.
MAX_COST = 200_000


def check(document: DocumentNode, operation: OperationDefinitionNode, variables: Mapping[str, Any]) -> None:
    """Raise GraphQLError, naming the limit, when the operation is too deep, too wide or asks for too many nodes."""
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    walk = _Walk(fragments, variables)
    walk.selections(operation.selection_set, depth=1, nodes=1, page=1, root=True)
    if walk.root_fields > MAX_ROOT_FIELDS:
        raise GraphQLError(f"{walk.root_fields} root fields in one operation, the limit is {MAX_ROOT_FIELDS}")


class _Walk:
    """Adds up the cost of an operation; fragments count wherever they are spread."""

    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode], variables: Mapping[str, Any]) -> None:
        self.fragments = fragments
        self.variables = variables
        self.cost = 0
        self.root_fields = 0

    def selections(self, selection_set: SelectionSetNode, depth: int, nodes: int, page: int, *, root: bool = False) -> None:
        """Walk what is selected of one field. `page`: nodes on a page, should the field be a connection."""
        if depth > MAX_DEPTH:
            raise GraphQLError(f"the query is nested deeper than {MAX_DEPTH} levels")
        for selection in selection_set.selections:
            if isinstance(selection, FieldNode):
                self.field(selection, depth, nodes, page, root=root)
            elif isinstance(selection, InlineFragmentNode):
                self.selections(selection.selection_set, depth + 1, nodes, page, root=root)
            elif isinstance(selection, FragmentSpreadNode) and selection.name.value in self.fragments:
                self.selections(self.fragments[selection.name.value].selection_set, depth + 1, nodes, page, root=root)

    def field(self, field: FieldNode, depth: int, nodes: int, page: int, *, root: bool) -> None:
        if root:
            self.root_fields += 1
        if field.name.value == "edges":
            nodes *= page  # here and not at the connection: `edges` may stand in a fragment
        self.cost += nodes
        if self.cost > MAX_COST:
            raise GraphQLError(f"the query may ask for more than {MAX_COST} values: ask for smaller pages")
        if field.selection_set is not None:
            self.selections(field.selection_set, depth + 1, nodes, self.page_size(field))

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
