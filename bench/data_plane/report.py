"""The kept page of `./dev bench data`: figures, what is wanted of them, a chart."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

from bench.data_plane import targets
from bench.data_plane.results import Results, in_short, machine


def keep(results: Results, document: Path) -> None:
    """Write the figures as a page with a chart beside it."""
    chart = document.with_name("benchmarks.svg")
    chart.write_text(_chart(results, "bulk to the server, 1 stream, Gbit/s"))
    lines = [
        "# Benchmarks",
        "",
        f"Measured by `./dev bench data` on {machine()}; medians.",
        "Client, router and server are network namespaces of one machine, so all programs share its cores: compare by ratios.",
        "Every way authenticates as in earnest. [What bounds the figures](explanation/performance.md) says more.",
        "",
        "What is wanted, in the same run:",
        "",
        "| figure | way | beside | wanted | found | |",
        "|---|---|---|---|---|---|",
        *(_target(target, ratio) for target, ratio in targets.found(results)),
        "",
        f"![Bulk throughput, one stream]({chart.name})",
        "",
        "| figure | " + " | ".join(results.ways) + " |",
        "|---|" + "---|" * len(results.ways),
    ]
    for figure in results.values:
        cells = [results.median(figure, way) for way in results.ways]
        lines.append(f"| {figure} | " + " | ".join("" if cell is None else in_short(cell) for cell in cells) + " |")
    for name, why in results.left_out.items():
        lines.append(f"\n{name} was left out: {why[:200]}")
    document.write_text("\n".join(lines) + "\n")


def _target(target: targets.Target, ratio: float) -> str:
    wanted = f"{'at most' if target.at_most else 'at least'} {target.ratio:g} x"
    verdict = "" if target.reached(ratio) else "not reached"
    return f"| {target.figure} | {target.way} | {target.other} | {wanted} | {ratio:.2f} x | {verdict} |"


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
        parts.append(f'<text x="{188 + width:.1f}" y="{y + 14}">{in_short(value)}</text>')
    return "".join(parts) + "</svg>\n"
