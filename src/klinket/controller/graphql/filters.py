"""Filters of list queries. A null key, and a null filter, means "no condition"; conditions are joined with AND."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import re2
from graphql import GraphQLError

from klinket.controller.graphql import deadline

#: Characters of a pattern.
MAX_PATTERN_CHARS = 100
#: Bytes a compiled pattern may take; one that needs more is refused.
MAX_PATTERN_BYTES = 1 << 20
_T = TypeVar("_T")

_OPERATIONS: dict[str, Callable[[str, Any], bool]] = {
    "eq": lambda value, wanted: value == wanted,
    "ne": lambda value, wanted: value != wanted,
    "startsWith": lambda value, wanted: value.startswith(wanted),
    "endsWith": lambda value, wanted: value.endswith(wanted),
    "contains": lambda value, wanted: wanted in value,
    "in": lambda value, wanted: value in wanted,
}


def matches_text(value: str, condition: dict[str, Any] | None) -> bool:
    """Return whether `value` meets every non-null operation of a StringFilterOperationInput."""
    deadline.check()
    for name, wanted in (condition or {}).items():
        if wanted is None:
            continue
        if name == "regexp":
            if not _compiled(wanted).search(value):
                return False
        elif not _OPERATIONS[name](value, wanted):
            return False
    return True


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> Any:
    """Return a pattern of RE2 (decision 0013): its time grows with the name's length only, whatever the pattern is."""
    if len(pattern) > MAX_PATTERN_CHARS:
        raise GraphQLError(f"filter regexp: at most {MAX_PATTERN_CHARS} characters are allowed")
    options = re2.Options()
    options.max_mem = MAX_PATTERN_BYTES
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        told = error.args[0].decode("utf-8", "replace") if error.args and isinstance(error.args[0], bytes) else str(error)
        raise GraphQLError(f"filter regexp: {told} (look-around and references to groups are not known, as in RE2)") from error


def by_name(rows: Sequence[_T], given: dict[str, Any] | None) -> Sequence[_T]:
    """Return the rows whose `name` meets the filter's `name` condition; all of them, unread, where there is none."""
    condition = (given or {}).get("name")
    if not any(value is not None for value in (condition or {}).values()):
        return rows
    return [row for row in rows if matches_text(row.name, condition)]  # type: ignore[attr-defined]
