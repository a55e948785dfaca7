"""How much of a document stands at the same place, counted before it is validated.

Fields of one response name at one place are merged, and validation (GraphQL, 5.3.2 "Field Selection Merging") compares each of
them with each other, with all that is below. Counting takes time in proportion to the document; validating does not.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
)

from klinket.controller.graphql.limits import MAX_DEPTH, MAX_ROOT_FIELDS, TooDeep, TooManyFields, check_mutations

#: Fields with one response name (alias or name) at one place, fragments included.
MAX_SAME_NAME = 20
#: Fields of a document, with each fragment counted at every place where it is spread.
MAX_SPREAD_FIELDS = 10_000

#: A selection set, and the fragments inside which it stands.
_Set = tuple[SelectionSetNode, frozenset[str]]


def check(document: DocumentNode) -> None:
    """Raise TooManyFields or TooDeep for a parsed document that could take long to validate, in whichever definition."""
    count = _Count({node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)})
    for definition in document.definitions:
        if isinstance(definition, OperationDefinitionNode):
            count.place([(definition.selection_set, frozenset())], 1, definition.operation)
        elif isinstance(definition, FragmentDefinitionNode):
            count.place([(definition.selection_set, frozenset({definition.name.value}))], 1)


class _Count:
    """Counts the fields of a document."""

    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self._fragments = fragments
        self._left = MAX_SPREAD_FIELDS

    def place(self, sets: list[_Set], depth: int, root: OperationType | None = None) -> None:
        """Count what is selected at one place by several selection sets. `root`: the operation whose root it is."""
        if depth > MAX_DEPTH:
            raise TooDeep(f"the query is nested deeper than {MAX_DEPTH} levels")
        named: dict[str, list[_Set]] = {}
        counted: dict[str, int] = {}
        spread: set[str] = set()
        waiting = list(reversed(sets))
        while waiting:
            selections, inside = waiting.pop()
            for selection in selections.selections:
                if isinstance(selection, FieldNode):
                    self._count_one()
                    name = selection.alias.value if selection.alias else selection.name.value
                    counted[name] = counted.get(name, 0) + 1
                    if selection.selection_set is not None:
                        named.setdefault(name, []).append((selection.selection_set, inside))
                elif isinstance(selection, InlineFragmentNode):
                    waiting.append((selection.selection_set, inside))
                elif isinstance(selection, FragmentSpreadNode):
                    fragment = self._fragments.get(selection.name.value)
                    # One that spreads itself is refused by the validation, which follows no circle either.
                    if fragment is not None and selection.name.value not in spread | inside:
                        spread.add(selection.name.value)
                        waiting.append((fragment.selection_set, inside | {selection.name.value}))
        if root is not None:
            _check_root(sum(counted.values()), root)
        for name, times in counted.items():
            if times > MAX_SAME_NAME:
                raise TooManyFields(
                    f"{name[:40]!r} stands {times} times at one place of the document, the limit is {MAX_SAME_NAME}",
                    hint="select each field once, or give it aliases",
                )
        for below in named.values():
            self.place(below, depth + 1)

    def _count_one(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise TooManyFields(f"the document selects more than {MAX_SPREAD_FIELDS} fields, its fragments included")


def _check_root(count: int, operation: OperationType) -> None:
    if operation is OperationType.MUTATION:
        check_mutations(count)
    if count > MAX_ROOT_FIELDS:
        raise TooManyFields(f"{count} root fields in one operation, the limit is {MAX_ROOT_FIELDS}")
