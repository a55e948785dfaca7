"""Charts as SVG with attributes only: no script draws them, no inline style colours them."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape


def sparkline(values: Sequence[float], label: str, *, width: int = 96, height: int = 22) -> Markup:
    """Return a small line of values, the newest at the right; `label` says in words what it shows."""
    if len(values) < 2:
        values = [*values, *values] or [0, 0]
    highest = max(values) or 1
    step = (width - 2) / (len(values) - 1)
    points = [(1 + index * step, height - 2 - (value / highest) * (height - 4)) for index, value in enumerate(values)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    area = f"1,{height - 1} {line} {width - 1},{height - 1}"
    return Markup(
        '<svg class="sparkline" role="img" width="{w}" height="{h}" viewBox="0 0 {w} {h}" aria-label="{label}">'
        '<polygon class="area" points="{area}"/><polyline class="line" points="{line}"/></svg>'
    ).format(w=width, h=height, label=escape(label), area=area, line=line)
