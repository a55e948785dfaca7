"""Charts as SVG with attributes only: no script draws them, no inline style colours them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from markupsafe import Markup, escape

from klinket.controller.app.rows import CutRow
from klinket.controller.console.words import duration_in_words, exact_time


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


@dataclass(frozen=True, slots=True)
class Bar:
    """One place on the axis of time: its words, and one value for each series, from the bottom up."""

    label: str
    values: Sequence[float]


def bars(given: Sequence[Bar], series: Sequence[str], label: str, *, top: float) -> Markup:
    """Return stacked bars. `series`: the class of each value of a bar; `label`: what it shows; `top`: its upper edge.

    It holds no text but what shows on hover: sizes of letters would change with the width. `plot` has the scale beside it.
    """
    parts = [
        Markup('<line class="grid" x1="0" x2="{w}" y1="{y}" y2="{y}"/>').format(w=len(given) * 10, y=y) for y in (0.5, 50, 99.5)
    ]
    for index, bar in enumerate(given):
        base = 100.0
        rects = Markup("")
        for name, value in zip(series, bar.values, strict=True):
            height = value / top * 100
            if value and height < 1:
                height = 1.0  # a single denial among thousands must be seen
            base -= height
            if height:
                rects += Markup('<rect class="{name}" x="{x}" y="{y:.2f}" width="8" height="{h:.2f}"/>').format(
                    name=name, x=index * 10 + 1, y=base, h=height
                )
        hover = Markup('<rect class="hover" x="{x}" y="0" width="10" height="100"/>').format(x=index * 10)
        parts.append(Markup("<g><title>{label}</title>{hover}{rects}</g>").format(label=bar.label, hover=hover, rects=rects))
    return Markup(
        '<svg class="chart" role="img" aria-label="{label}" viewBox="0 0 {w} 100" preserveAspectRatio="none">{parts}</svg>'
    ).format(label=label, w=max(1, len(given)) * 10, parts=Markup("").join(parts))


def plot(given: Sequence[Bar], series: Sequence[str], label: str, words: Callable[[float], str]) -> Markup:
    """Return stacked bars with their scale beside them, from nothing to a round number; `words`: how a value is said.

    The label of the picture tells the scale as well: what is drawn beside it is for eyes only.
    """
    top = round_above(max((sum(bar.values) for bar in given), default=0.0))
    scale = Markup("").join(Markup("<span>{}</span>").format(words(value)) for value in (top, top / 2, 0))
    told = f"{label}. The scale goes from {words(0)} to {words(top)}."
    return Markup('<div class="plot"><div class="scale" aria-hidden="true">{scale}</div>{chart}</div>').format(
        scale=scale, chart=bars(given, series, told, top=top)
    )


def round_above(value: float) -> float:
    """Return the least of 2, 4, 6, 8, 10, 20, 40, ... that is not below a value: its half is a round number too."""
    power = 1
    while value > 10 * power:
        power *= 10
    return next(float(power * one) for one in (2, 4, 6, 8, 10) if value <= power * one)


def meter(value: float, highest: float, kind: str) -> Markup:
    """Return a horizontal bar beside a number that says the same."""
    share = 0 if not highest else max(1.0, value / highest * 100)
    return Markup(
        '<svg class="meter" aria-hidden="true" viewBox="0 0 100 6" preserveAspectRatio="none">'
        '<rect class="rail" width="100" height="6"/><rect class="{kind}" width="{share:.1f}" height="6"/></svg>'
    ).format(kind=kind, share=share)


def count_in_words(value: float) -> str:
    """Return a number of things with its thousands apart."""
    return f"{value:,.0f}"


def calendar(first: date, days: int, counts: Mapping[date, int], label: str, noun: str) -> Markup:
    """Return days as squares, a week a column from Monday on; darker where more happens. `noun`: of what there are counts."""
    begin = first - timedelta(days=first.weekday())
    highest = max(counts.values(), default=0) or 1
    weeks = -(-(days + first.weekday()) // 7)
    parts = []
    for offset in range(days):
        day = first + timedelta(days=offset)
        column, row = divmod((day - begin).days, 7)
        count = counts.get(day, 0)
        level = 0 if not count else min(4, 1 + int(3 * count / highest))
        title = f"{day.isoformat()}: {count} {noun}{'' if count == 1 else 's'}"
        parts.append(
            Markup('<rect class="day level{level}" x="{x}" y="{y}">{title}</rect>').format(
                level=level,
                x=column * 13,
                y=16 + row * 13,
                title=Markup("<title>{}</title>").format(title) if count else "",
            )
        )
        if day.day == 1 or (offset == 0 and (day + timedelta(days=21)).month == day.month):
            parts.append(Markup('<text class="month" x="{x}" y="10">{name}</text>').format(x=column * 13, name=f"{day:%b}"))
    width, height = weeks * 13, 16 + 7 * 13
    return Markup(
        '<svg class="calendar" role="img" aria-label="{label}" width="{w}" height="{h}" viewBox="0 0 {w} {h}">{parts}</svg>'
    ).format(label=label, w=width, h=height, parts=Markup("").join(parts))


def cut_bars(timed: Sequence[tuple[CutRow, float]]) -> list[Bar]:
    """Return how long cuts took as bars, the oldest first."""
    return [Bar(f"{exact_time(row.created_at_ms)}: {duration_in_words(ms)}", (ms,)) for row, ms in timed]
