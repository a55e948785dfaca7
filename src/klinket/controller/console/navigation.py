"""The console's areas, as the menu shows them."""

from __future__ import annotations

from dataclasses import dataclass

from klinket.domain.role import Permission


@dataclass(frozen=True, slots=True)
class Place:
    """A page of the menu. `path`: below the console's root; pages below it belong to it."""

    label: str
    path: str
    permission: Permission = Permission.READ

    def is_at(self, current: str) -> bool:
        """Return whether a path of the console (without its root) is this page or below it."""
        return current == self.path or (self.path != "/" and current.startswith(self.path + "/"))


@dataclass(frozen=True, slots=True)
class Area:
    """Pages that belong together."""

    label: str
    places: tuple[Place, ...]


NAVIGATION = (
    Area("", (Place("Overview", "/"),)),
    Area(
        "Network",
        (
            Place("Remote networks", "/network/remote-networks"),
            Place("Connectors", "/network/connectors"),
            Place("Resources", "/network/resources"),
        ),
    ),
    Area("Team", (Place("Services", "/team/services"), Place("Users", "/team/users"), Place("Groups", "/team/groups"))),
    Area("Policies", (Place("Security policies", "/policies"),)),
    Area(
        "Activity",
        (
            Place("Trends", "/activity/trends"),
            Place("Flows", "/activity/flows"),
            Place("Cuts", "/activity/cuts"),
            Place("Audit", "/activity/audit"),
        ),
    ),
    Area(
        "Settings",
        (
            Place("API tokens", "/settings/api-tokens", Permission.ADMIN),
            Place("Console access", "/settings/console-access", Permission.ADMIN),
            Place("Network", "/settings/network"),
            Place("Relays", "/settings/relays"),
            Place("Sinks", "/settings/sinks", Permission.ADMIN),
            Place("Certificates & keys", "/settings/trust"),
        ),
    ),
)
