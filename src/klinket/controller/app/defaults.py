"""What is there in every network without anybody making it."""

from __future__ import annotations

from klinket.controller.app import groups, security_policies
from klinket.controller.app.ports import Transaction


def ensure(tx: Transaction) -> None:
    """Make the default security policy and the group of all users where they are missing."""
    security_policies.ensure_default(tx)
    groups.ensure_everyone(tx)
