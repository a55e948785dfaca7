"""Figures of all ways: medians, and ratios to what a figure is compared with, as a table and JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass
class Results:
    """Values by figure and way, in the order in which they came first."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def note(self, way: str, figure: str, value: float) -> None:
        """Add one measured value."""
        self.values.setdefault(figure, {}).setdefault(way, []).append(value)

    @property
    def ways(self) -> list[str]:
        """Return all ways."""
        return list(dict.fromkeys(way for ways in self.values.values() for way in ways))

    def median(self, figure: str, way: str) -> float | None:
        """Return the median of a figure of a way; None where it was not measured."""
        values = self.values.get(figure, {}).get(way)
        return statistics.median(values) if values else None

    def to_json(self) -> str:
        """Return all medians, with the machine."""
        medians = {
            figure: {way: round(statistics.median(found), 4) for way, found in ways.items()}
            for figure, ways in self.values.items()
        }
        return json.dumps({"machine": machine(), "figures": medians, "left out": self.left_out}, indent=2)

    def to_text(self) -> str:
        """Return a table: a line a figure and way, with the ratio to plain TCP and to wireguard-go."""
        lines = [machine()]
        for figure, ways in self.values.items():
            lines.append(f"\n{figure}")
            for way in ways:
                value = self.median(figure, way)
                assert value is not None
                ratios = "".join(self._ratio(figure, value, other) for other in ("plain TCP", "wireguard-go"))
                lines.append(f"  {way:<26}{in_short(value):>10}{ratios}")
        return "\n".join(lines)

    def _ratio(self, figure: str, value: float, other: str) -> str:
        base = self.median(figure, other)
        return f"{value / base:>10.2f} x {other}" if base else ""


def machine() -> str:
    """Return date, processor count, kernel and Python: figures mean nothing without them."""
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    return f"{day}, {os.cpu_count()} cores {platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}"


def in_short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
