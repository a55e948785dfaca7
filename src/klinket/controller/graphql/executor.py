"""graphql-core's executor with a deadline, and a short way for fields that are plain values of a row.

Nine of ten fields of an answer are texts and numbers without arguments. For those graphql-core builds a description of the
field, looks arguments up and tells kinds of types apart, which costs several times what reading the value does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graphql import GraphQLObjectType, GraphQLSchema, Undefined, get_nullable_type, is_leaf_type
from graphql.execution import Executor

from klinket.controller.graphql import deadline

#: Where a type keeps its plain fields: by name, their resolver (None: an entry of a dictionary) and their type's conversion.
_PLAIN = "klinket.plain"
_Plain = dict[str, tuple[Callable[..., Any] | None, Callable[[Any], Any]]]
_NONE: _Plain = {}


@dataclass(slots=True)
class _Info:
    """All that resolvers of plain fields look at of a GraphQLResolveInfo."""

    context: Any


def find_plain_fields(schema: GraphQLSchema) -> None:
    """Note the fields of a bound schema that take the short way: leaves without arguments, and none of the root types."""
    roots = (schema.query_type, schema.mutation_type)
    for name, type_ in schema.type_map.items():
        if isinstance(type_, GraphQLObjectType) and not name.startswith("__") and type_ not in roots:
            found: _Plain = {}
            for field_name, field in type_.fields.items():
                leaf = get_nullable_type(field.type)
                if is_leaf_type(leaf) and not field.args:
                    found[field_name] = (field.resolve, leaf.coerce_output_value)
            type_.extensions[_PLAIN] = found


class TimedExecutor(Executor[Any]):
    """Looks at the clock before each field."""

    def execute_field(
        self, parent_type: GraphQLObjectType, source: Any, field_details_list: Any, path: Any, position_context: Any
    ) -> Any:
        """Return the field's value. Whatever is not plain, null or wrong is graphql-core's: it resolves once more, and tells."""
        deadline.check()
        node = field_details_list[0].node
        if node.selection_set is None and not node.arguments:
            name = node.name.value
            way = parent_type.extensions.get(_PLAIN, _NONE).get(name)
            if way is not None:
                resolve, coerce = way
                try:
                    result = resolve(source, _Info(self.context_value)) if resolve is not None else source[name]
                    if result is not None:
                        value = coerce(result)
                        if value is not None and value is not Undefined:
                            return value
                except Exception:  # noqa: S110 - told by the long way
                    pass
        return super().execute_field(parent_type, source, field_details_list, path, position_context)
