"""Filters of list queries. A null key, and a null filter, means "no condition"; conditions are joined with AND."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from graphql import GraphQLError

from klinket.controller.graphql import deadline

#: A pattern above this is refused: Python's matcher backtracks.
MAX_PATTERN_CHARS = 100
#: Repetitions in one pattern: the time of a search grows with the length of the name to this power.
MAX_REPETITIONS = 3
_ESCAPE_OR_CLASS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_GROUP_HEAD = re.compile(r"\((?:\?(?:P<\w+>|<?[=!]|[aiLmsux-]*:?))?")
_REPETITION = re.compile(r"(?:[*+?]|\{[0-9]*,?[0-9]*\})[?+]?")
#: References to groups, and the flag that lets spaces stand between a group and its repetition.
_NOT_ALLOWED = re.compile(r"\\[1-9]|\(\?P=|\(\?\(|\(\?[a-zA-Z]*x")
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


def _compiled(pattern: str) -> re.Pattern[str]:
    if len(pattern) > MAX_PATTERN_CHARS:
        raise GraphQLError(f"filter regexp: at most {MAX_PATTERN_CHARS} characters are allowed")
    _check_time(pattern)
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise GraphQLError(f"filter regexp: {error}") from error


def _check_time(pattern: str) -> None:
    """Refuse what can take exponential time: repeated groups that hold a repetition or a choice, and what hides them.

    Python's matcher holds up the whole controller while it searches.
    """
    if _NOT_ALLOWED.search(pattern):
        raise GraphQLError("filter regexp: references to groups and the flag x are not allowed")
    bare = _GROUP_HEAD.sub("(", _ESCAPE_OR_CLASS.sub("x", pattern))
    repetitions = 0
    holds_choice = [False]  # of the pattern itself, and of each group that is open
    closed = False  # whether the group that has just ended holds one
    position = 0
    while position < len(bare):
        repeated = _REPETITION.match(bare, position)
        if repeated is not None:
            repetitions += 1
            if closed:
                raise GraphQLError("filter regexp: a repeated group may not hold a repetition or an alternative")
            holds_choice[-1] = True
        closed = False
        if bare[position] == "(":
            holds_choice.append(False)
        elif bare[position] == ")" and len(holds_choice) > 1:
            closed = holds_choice.pop()
            holds_choice[-1] |= closed
        elif bare[position] == "|":
            holds_choice[-1] = True
        position = repeated.end() if repeated is not None else position + 1
    if repetitions > MAX_REPETITIONS:
        raise GraphQLError(f"filter regexp: {repetitions} repetitions, the limit is {MAX_REPETITIONS}")


def by_name(rows: Sequence[_T], given: dict[str, Any] | None) -> Sequence[_T]:
    """Return the rows whose `name` meets the filter's `name` condition; all of them, unread, where there is none."""
    condition = (given or {}).get("name")
    if not any(value is not None for value in (condition or {}).values()):
        return rows
    return [row for row in rows if matches_text(row.name, condition)]  # type: ignore[attr-defined]
