"""Figures of all ways: medians, ratios to what a figure is compared with, a table, JSON, a chart."""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from xml.sax.saxutils import escape


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
                lines.append(f"  {way:<26}{_number(value):>10}{ratios}")
        return "\n".join(lines)

    def _ratio(self, figure: str, value: float, other: str) -> str:
        base = self.median(figure, other)
        return f"{value / base:>10.2f} x {other}" if base else ""


def machine() -> str:
    """Return date, processor count, kernel and Python: figures mean nothing without them."""
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    return f"{day}, {os.cpu_count()} cores {platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def keep(results: Results, document: Path) -> None:
    """Write the figures as a page with a chart beside it."""
    chart = document.with_name("benchmarks.svg")
    chart.write_text(_chart(results, "bulk to the server, 1 stream, Gbit/s"))
    lines = [
        "# Benchmarks",
        "",
        f"Measured by `./dev bench data` on {machine()}; medians.",
        "Client, router and server are network namespaces of one machine, so all programs share its cores: compare by ratios.",
        "Every way authenticates as in earnest.",
        "",
        f"![Bulk throughput, one stream]({chart.name})",
        "",
        "| figure | " + " | ".join(results.ways) + " |",
        "|---|" + "---|" * len(results.ways),
    ]
    for figure in results.values:
        cells = [results.median(figure, way) for way in results.ways]
        lines.append(f"| {figure} | " + " | ".join("" if cell is None else _number(cell) for cell in cells) + " |")
    for name, why in results.left_out.items():
        lines.append(f"\n{name} was left out: {why[:200]}")
    document.write_text("\n".join(lines) + "\n")


def _chart(results: Results, figure: str) -> str:
    rows = [(way, results.median(figure, way) or 0.0) for way in results.ways if results.median(figure, way)]
    highest = max((value for _, value in rows), default=1.0)
    height = 28 * len(rows) + 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="720" height="{height}" fill="#fff"/><text x="12" y="22" font-weight="600">{escape(figure)}</text>',
    ]
    for index, (way, value) in enumerate(rows):
        y = 38 + 28 * index
        colour = "#0b6e6e" if way.startswith("klinket") else "#9aa7b4"
        width = 440 * value / highest
        parts.append(f'<text x="12" y="{y + 14}">{escape(way)}</text>')
        parts.append(f'<rect x="180" y="{y}" width="{width:.1f}" height="19" rx="3" fill="{colour}"/>')
        parts.append(f'<text x="{188 + width:.1f}" y="{y + 14}">{_number(value)}</text>')
    return "".join(parts) + "</svg>\n"
