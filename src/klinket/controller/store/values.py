"""What a column can hold, the same on both databases: SQLite takes nearly everything, PostgreSQL would fail in its own words."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Integer, String

from klinket.domain.errors import InvalidInput


def can_hold(column: Column[Any], value: Any) -> bool:
    """Return whether any row can have this value there: if not, a condition on it is met by none."""
    return problem(column, value) is None


def check(column: Column[Any], value: Any) -> None:
    """Raise InvalidInput naming the column unless it can hold `value`."""
    told = problem(column, value)
    if told is not None:
        raise InvalidInput(column.name, f"{column.name} {told}")


def holds_anything(column: Column[Any]) -> bool:
    """Return whether no value of its type is too much for a column: JSON is stored as ASCII text with escapes."""
    return isinstance(column.type, JSON)


def problem(column: Column[Any], value: Any) -> str | None:
    """Return what is wrong with a value for a column, or None. Types are the caller's affair."""
    kind = column.type
    if holds_anything(column):
        return None
    if isinstance(value, str) and isinstance(kind, String):
        if "\x00" in value:
            return "must not hold NUL characters"
        if not _is_unicode(value):
            return "holds half a character (a lone surrogate)"
        if kind.length is not None and len(value) > kind.length:
            return f"has {len(value)} characters, the limit is {kind.length}"
    elif isinstance(value, int) and isinstance(kind, Integer):
        bits = 63 if isinstance(kind, BigInteger) else 31
        if not -(1 << bits) <= value < 1 << bits:
            return f"must be a number of {bits + 1} bits"
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
