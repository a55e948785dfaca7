"""Which cut a change has ordered, so that its receipt can be shown."""

from __future__ import annotations

from collections.abc import Callable

from klinket.controller.app.ports import Transaction


def cut_of(tx: Transaction, change: Callable[[], object]) -> int | None:
    """Make a change; returns the id of the newest cut it ordered, None where it ordered none."""
    before = tx.cuts.newest(1)
    change()
    after = tx.cuts.newest(1)
    return after[0].id if after and after != before else None
