"""Where things stand on the map of the network: who reaches on the left, remote networks with their resources on the right."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from klinket.controller.app.inventory_map import InventoryMap, MapLink, MapNetwork
from klinket.controller.app.rows import ConnectorRow, GroupRow, ResourceRow, ServiceAccountRow
from klinket.controller.console.network.health import Health, health

#: In SVG units, which are pixels at full width.
WIDTH, HOLDER_WIDTH, NETWORK_LEFT = 960, 220, 400
ROW, GAP, HEAD, CHIP_ROW, CHIP_WIDTH, PADDING = 30, 8, 36, 28, 132, 12
CHIPS_A_ROW = (WIDTH - NETWORK_LEFT - 2 * PADDING) // CHIP_WIDTH
#: Characters that fit.
HOLDER_CHARS, NAME_CHARS, ADDRESS_CHARS, CHIP_CHARS = 22, 25, 29, 14


@dataclass(frozen=True, slots=True)
class Holder:
    """A service or group. `y`: of its top."""

    row: ServiceAccountRow | GroupRow
    is_group: bool
    y: float
    live: int
    path: str


@dataclass(frozen=True, slots=True)
class Chip:
    """A connector."""

    row: ConnectorRow
    health: Health
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Place:
    """A resource. `y`: of its top; `reached_by`: the holders shown that may reach it."""

    row: ResourceRow
    y: float
    live: int
    reached_by: tuple[Holder, ...]


@dataclass(frozen=True, slots=True)
class Box:
    """A remote network. `more_y`: where it says how many resources are left out."""

    network: MapNetwork
    y: float
    height: float
    chips: tuple[Chip, ...]
    places: tuple[Place, ...]
    more_y: float


@dataclass(frozen=True, slots=True)
class Line:
    """A link as a curve. `kind`: "live", "used" lately, or "idle"; `label` says it in words."""

    path: str
    kind: str
    label: str


@dataclass(frozen=True, slots=True)
class Layout:
    """`more_y`: where it says how many holders are left out."""

    height: float
    holders: tuple[Holder, ...]
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    more_y: float


def cut(text: str, chars: int) -> str:
    """Return a text that fits: SVG does not shorten it."""
    return text if len(text) <= chars else text[: chars - 1].rstrip() + "…"


def layout(found: InventoryMap, online: Container[int], now_ms: int) -> Layout:
    """Return where everything stands."""
    tops: dict[int, float] = {}
    y = 0.0
    heights: list[tuple[MapNetwork, float, float, float]] = []
    for network in found.networks:
        chip_rows = -(-max(1, len(network.connectors) + (network.connector_count > len(network.connectors))) // CHIPS_A_ROW)
        first = y + HEAD + chip_rows * CHIP_ROW + 4
        for number, resource in enumerate(network.resources):
            tops[resource.id] = first + number * ROW
        end = first + max(1, len(network.resources)) * ROW
        has_more = network.resource_count > len(network.resources)
        height = end + (ROW if has_more and network.resources else 0) + PADDING / 2 - y
        heights.append((network, y, height, end))
        y += height + 16
    bottom = y - 16 if found.networks else 0.0
    holders, more_y = _holders(found, tops, bottom)
    at = {(holder.is_group, holder.row.id): holder for holder in holders}
    boxes = tuple(
        Box(network, top, height, _chips(network, top, online, now_ms), _places(network, tops, found.links, at), end)
        for network, top, height, end in heights
    )
    names = {resource.id: resource.name for network in found.networks for resource in network.resources}
    lines = tuple(
        _line(link, at[link.is_group, link.holder], tops[link.resource], names[link.resource])
        for link in sorted(found.links, key=lambda link: (link.live > 0, link.flows > 0))  # the busy ones on top
    )
    has_more = found.more_services + found.more_groups > 0
    return Layout(max(bottom, more_y + (ROW if has_more else 0)), holders, boxes, lines, more_y)


def _holders(found: InventoryMap, tops: dict[int, float], bottom: float) -> tuple[tuple[Holder, ...], float]:
    """Return holders beside what they reach, so that few lines cross, and where they end."""

    def middle(is_group: bool, id: int) -> float:
        reached = [tops[link.resource] for link in found.links if (link.is_group, link.holder) == (is_group, id)]
        return sum(reached) / len(reached) if reached else 0.0

    rows: list[tuple[ServiceAccountRow | GroupRow, bool]] = [
        *((row, False) for row in found.services),
        *((row, True) for row in found.groups),
    ]
    rows.sort(key=lambda one: middle(one[1], one[0].id))
    height = len(rows) * (ROW + GAP)
    top = max(HEAD, (bottom - height) / 2)
    live = {
        (row.id, is_group): sum(link.live for link in found.links if (link.holder, link.is_group) == (row.id, is_group))
        for row, is_group in rows
    }
    holders = tuple(
        Holder(
            row,
            is_group,
            top + number * (ROW + GAP),
            live[row.id, is_group],
            f"/team/{'groups' if is_group else 'services'}/{row.id}",
        )
        for number, (row, is_group) in enumerate(rows)
    )
    return holders, top + height


def _chips(network: MapNetwork, top: float, online: Container[int], now_ms: int) -> tuple[Chip, ...]:
    return tuple(
        Chip(
            row,
            health(row, online, now_ms),
            NETWORK_LEFT + PADDING + (number % CHIPS_A_ROW) * CHIP_WIDTH,
            top + HEAD + (number // CHIPS_A_ROW) * CHIP_ROW,
        )
        for number, row in enumerate(network.connectors)
    )


def _places(
    network: MapNetwork, tops: dict[int, float], links: tuple[MapLink, ...], at: dict[tuple[bool, int], Holder]
) -> tuple[Place, ...]:
    return tuple(
        Place(
            row,
            tops[row.id],
            sum(link.live for link in links if link.resource == row.id),
            tuple(at[link.is_group, link.holder] for link in links if link.resource == row.id),
        )
        for row in network.resources
    )


def _line(link: MapLink, holder: Holder, top: float, name: str) -> Line:
    x1, y1, x2, y2 = HOLDER_WIDTH, holder.y + ROW / 2, NETWORK_LEFT + PADDING, top + ROW / 2
    bend = (x2 - x1) / 2
    path = f"M{x1},{y1:.1f} C{x1 + bend:.0f},{y1:.1f} {x2 - bend:.0f},{y2:.1f} {x2},{y2:.1f}"
    kind = "live" if link.live else "used" if link.flows else "idle"
    told = {"live": f"{link.live} live now", "used": f"{link.flows} flows in 24 hours", "idle": "not used in 24 hours"}[kind]
    return Line(path, kind, f"{holder.row.name} to {name}: {'a group' if link.is_group else told}")
