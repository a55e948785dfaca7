"""Which cut a change has ordered, so that its receipt can be shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from klinket.controller.app.ports import Transaction

T = TypeVar("T")


def with_cut(tx: Transaction, change: Callable[[], T]) -> tuple[T, int | None]:
    """Make a change; returns its result and the id of the newest cut it ordered, None where it ordered none."""
    before = tx.cuts.newest(1)
    result = change()
    after = tx.cuts.newest(1)
    return result, after[0].id if after and after != before else None
