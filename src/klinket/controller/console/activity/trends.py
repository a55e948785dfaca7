"""Activity > Trends: flows by result, denials by reason, how fast cuts are, when keys expire."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from starlette.responses import Response

from klinket.controller.app import cut_views, flow_totals
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import FlowHourRow, ServiceKeyRow
from klinket.controller.console.charts import Bar
from klinket.controller.console.page import Page
from klinket.controller.console.route import ConsoleRoute, shown
from klinket.controller.console.words import exact_time, failure_in_words

PATH = "/activity/trends"
HOUR_MS, DAY_MS = flow_totals.HOUR_MS, 24 * flow_totals.HOUR_MS
#: Time ranges: what people read, hours of one bar, bars.
SPANS: dict[str, tuple[str, int, int]] = {"24h": ("24 hours", 1, 24), "7d": ("7 days", 6, 28), "30d": ("30 days", 24, 30)}
#: Results of flows from the bottom of a bar up: class of the chart, and the word.
SERIES = (("ok-fill", "Completed"), ("warn-fill", "Ended early"), ("fail-fill", "Failed"), ("bad-fill", "Denied"))
#: Days that the calendar of keys shows, and keys it is made of at the most.
CALENDAR_DAYS = 365
MAX_KEYS = 2_000
#: Keys that expire next, by name.
LISTED_KEYS = 8


@dataclass(frozen=True, slots=True)
class Bucket:
    """The flows of a stretch of time, in the order of SERIES; bytes are of both directions."""

    begin_ms: int
    counts: tuple[int, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class FlowTrend:
    """`seconds`: of one bucket. `reasons`: word of the reason, sentence, kind of event, how often."""

    buckets: list[Bucket]
    seconds: int
    reasons: list[tuple[str, str, str, int]]

    @property
    def totals(self) -> tuple[int, ...]:
        """Return the flows by result."""
        return tuple(sum(bucket.counts[place] for bucket in self.buckets) for place in range(len(SERIES)))

    @property
    def flows(self) -> int:
        """Return the number of flows."""
        return sum(self.totals)

    @property
    def bytes(self) -> int:
        """Return the bytes of both directions."""
        return sum(bucket.bytes for bucket in self.buckets)

    @property
    def busiest(self) -> str:
        """Return the rate of the busiest bucket in words: "3.2 flows a second"."""
        rate = max((sum(bucket.counts) for bucket in self.buckets), default=0) / self.seconds
        unit, span = next(((unit, span) for unit, span in (("second", 1), ("minute", 60)) if rate * span >= 1), ("hour", 3600))
        number = f"{rate * span:.3g}"
        return f"{number} {'flow' if number == '1' else 'flows'} {'an' if unit == 'hour' else 'a'} {unit}"

    def bars(self) -> list[Bar]:
        """Return the buckets as bars."""
        made = []
        for bucket in self.buckets:
            told = ", ".join(f"{count} {word.lower()}" for (_, word), count in zip(SERIES, bucket.counts, strict=True) if count)
            made.append(Bar(f"{exact_time(bucket.begin_ms)}: {told or 'no flows'}", bucket.counts))
        return made


def flow_trend(rows: Sequence[FlowHourRow], now_ms: int, hours: int, count: int) -> FlowTrend:
    """Return totals of hours as `count` buckets of so many hours, the last one with now in it."""
    span = hours * HOUR_MS
    first = now_ms - now_ms % span - (count - 1) * span
    counts = [[0] * len(SERIES) for _ in range(count)]
    sizes = [0] * count
    reasons: Counter[tuple[str, str]] = Counter()
    for row in rows:
        place, series = (row.hour_ms - first) // span, _series(row)
        if not 0 <= place < count or series is None:
            continue
        counts[place][series] += row.flows
        sizes[place] += row.bytes_from_client + row.bytes_to_client
        if row.failure:
            reasons[row.failure, row.kind] += row.flows
    buckets = [Bucket(first + place * span, tuple(counts[place]), sizes[place]) for place in range(count)]
    told = [(word, failure_in_words(word), kind, number) for (word, kind), number in reasons.most_common(10)]
    return FlowTrend(buckets, span // 1000, told)


def _series(row: FlowHourRow) -> int | None:
    match row.kind:
        case "closed":
            return 1 if row.failure else 0
        case "failed":
            return 2
        case "denied":
            return 3
    return None


@dataclass(frozen=True, slots=True)
class KeyExpiry:
    """When keys expire: how many a day, and the next ones with the name of their service."""

    days: dict[date, int]
    next: list[tuple[ServiceKeyRow, str]]
    is_partial: bool

    @property
    def months(self) -> list[tuple[str, int]]:
        """Return how many keys expire in each month that has any."""
        found: Counter[str] = Counter()
        for day, count in sorted(self.days.items()):
            found[f"{day:%B %Y}"] += count
        return list(found.items())

    @property
    def total(self) -> int:
        """Return how many keys expire in the calendar's days."""
        return sum(self.days.values())


def _key_expiry(tx: Transaction) -> KeyExpiry:
    end = tx.now_ms + CALENDAR_DAYS * DAY_MS
    least, below = {"expires_at_ms": tx.now_ms}, {"expires_at_ms": end}
    # Moments and numbers only: whole keys are read of the few that are named.
    moments = tx.service_keys.counts("expires_at_ms", least=least, below=below, revoked_at_ms=None)
    days: Counter[date] = Counter()
    left = MAX_KEYS
    for moment, count in sorted(moments.items()):
        days[_day(moment)] += min(count, left)
        left -= min(count, left)
        if not left:
            break
    soon = tx.service_keys.select("expires_at_ms", LISTED_KEYS, least=least, below=below, revoked_at_ms=None)
    accounts = {row.id: row.name for row in tx.service_accounts.find(id={row.service_account_id for row in soon})} if soon else {}
    return KeyExpiry(dict(days), [(row, accounts[row.service_account_id]) for row in soon], left == 0)


def _day(ms: int) -> date:
    return datetime.fromtimestamp(ms / 1000, UTC).date()


async def _trends(page: Page) -> Response:
    word = page.query("time") if page.query("time") in SPANS else "24h"
    _, hours, count = SPANS[word]

    def read(tx: Transaction) -> dict[str, Any]:
        begin = tx.now_ms - count * hours * HOUR_MS
        timed = cut_views.took(tx, begin)
        return {
            "trend": flow_trend(flow_totals.hours(tx, begin), tx.now_ms, hours, count),
            "timed": timed,
            "median": cut_views.percentile((ms for _, ms in timed), 0.5),
            "slowest": cut_views.percentile((ms for _, ms in timed), 0.99),
            "expiry": _key_expiry(tx),
            "live": tx.live_flows.count(),
        }

    values = await page.read(read)
    today = _day(page.console.now_ms)
    return page.render("activity/trends.html", word=word, spans=SPANS, series=SERIES, today=today, days=CALENDAR_DAYS, **values)


ROUTES: tuple[ConsoleRoute, ...] = (shown(PATH, _trends),)
