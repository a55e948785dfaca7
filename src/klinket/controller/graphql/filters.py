"""Filters of list queries. A null key, and a null filter, means "no condition"; conditions are joined with AND."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from graphql import GraphQLError

#: A pattern above this is refused: Python's matcher backtracks.
MAX_PATTERN_CHARS = 100
#: Quantified groups that are quantified again take exponential time; such patterns are refused.
_NESTED_QUANTIFIER = re.compile(r"\([^()]*[*+{][^()]*\)\s*[*+{]|\([^()]*\|[^()]*\)\s*[*+{]")
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
    for name, wanted in (condition or {}).items():
        if wanted is None:
            continue
        if name == "regexp":
            if not _compiled(wanted).search(value):
                return False
        elif not _OPERATIONS[name](value, wanted):
            return False
    return True


def _compiled(pattern: str) -> re.Pattern[str]:
    if len(pattern) > MAX_PATTERN_CHARS:
        raise GraphQLError(f"filter regexp: at most {MAX_PATTERN_CHARS} characters are allowed")
    if _NESTED_QUANTIFIER.search(pattern):
        raise GraphQLError("filter regexp: a repeated group may not hold a repetition or an alternative")
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise GraphQLError(f"filter regexp: {error}") from error


def by_name(rows: Iterable[_T], given: dict[str, Any] | None) -> list[_T]:
    """Return the rows whose `name` meets the filter's `name` condition."""
    condition = (given or {}).get("name")
    return [row for row in rows if matches_text(row.name, condition)]  # type: ignore[attr-defined]
