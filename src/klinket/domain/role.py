"""What people may do in the console, by the role of their user (facts §8)."""

from __future__ import annotations

from enum import Enum


class Permission(Enum):
    """`READ`: see pages without secrets. `NETWORK`: change remote networks, connectors, resources. `ADMIN`: everything."""

    READ = "read"
    NETWORK = "network"
    ADMIN = "admin"


#: A role that is not here may not open the console at all.
PERMISSIONS: dict[str, frozenset[Permission]] = {
    "ADMIN": frozenset(Permission),
    "DEVOPS": frozenset({Permission.READ, Permission.NETWORK}),
    "SUPPORT": frozenset({Permission.READ}),
}


def permissions_of(role: str) -> frozenset[Permission]:
    """Return what a role may do; nothing for MEMBER, ACCESS_REVIEWER and what is not known."""
    return PERMISSIONS.get(role, frozenset())
