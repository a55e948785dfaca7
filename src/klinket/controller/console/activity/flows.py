"""Activity > Flows: what lives now and what was, why something was denied, exports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from klinket.controller.app import explain, flow_search
from klinket.controller.app.flow_search import FlowFilter
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import FlowEventRow
from klinket.controller.console.activity import asked, picked
from klinket.controller.console.activity.flow_lines import FlowLine, lines, live_lines, result_of
from klinket.controller.console.activity.picked import Picked
from klinket.controller.console.activity.remedies import remedy
from klinket.controller.console.page import Page
from klinket.controller.console.route import ConsoleRoute, shown
from klinket.controller.console.words import FAILURES
from klinket.controller.exports import Wanted
from klinket.domain.errors import InvalidInput, NotFound
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol

LIST = "/activity/flows"
PAGE_FLOWS = 50
#: Live flows above the list of past ones, and on a page of their own.
LIVE_ABOVE = 10
#: What people can ask for by `result`: the word shown, and the kinds of events.
RESULTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "live": ("Live now", ()),
    "closed": ("Completed or ended", ("closed",)),
    "failed": ("Failed", ("failed",)),
    "denied": ("Denied", ("denied",)),
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """The filter, and what its fields show."""

    filter: FlowFilter
    fields: dict[str, Picked]
    result: str
    is_open: bool

    @property
    def shows_live(self) -> bool:
        """Return whether live flows can meet the filter."""
        return self.result in ("", "live") and self.filter.failure is None and self.filter.end_ms is None


def _asked(page: Page, tx: Transaction) -> _Asked:
    fields = {kind: picked.pick(tx, kind, page.query(kind)) for kind in picked.KINDS}
    begin, end = asked.time_range(page)
    failures = {failure.value for failure in FlowFailure}
    result = page.query("result") if page.query("result") in RESULTS else ""
    wanted = FlowFilter(
        service_account_id=fields["service"].id,
        service_key_id=fields["key"].id,
        resource_id=fields["resource"].id,
        connector_id=fields["connector"].id,
        failure=page.query("reason") if page.query("reason") in failures else None,
        begin_ms=begin,
        end_ms=end,
        **({"kinds": RESULTS[result][1]} if result not in ("", "live") else {}),
    )
    return _Asked(wanted, fields, result, any(field.is_open for field in fields.values()))


@dataclass(frozen=True, slots=True)
class _Shown:
    live: list[FlowLine]
    live_count: int
    past: list[FlowLine]
    older: str | None
    newer: str | None
    looked_back_to_ms: int | None = None


def _flows(page: Page, tx: Transaction, what: _Asked) -> _Shown:
    if what.is_open:
        return _Shown([], 0, [], None, None)
    before, after = asked.position(page, "before"), asked.position(page, "after")
    if what.result == "live":
        return _live_only(page, tx, what, None if before is None else before[1])
    found = flow_search.finished(tx, what.filter, PAGE_FLOWS, before=before, after=after)
    if after is not None and found.newer is None:  # the beginning is reached: shown as such, it goes on by itself
        found = flow_search.finished(tx, what.filter, PAGE_FLOWS)
    live: list[FlowLine] = []
    count = 0
    if what.shows_live and found.newer is None:
        live = live_lines(tx, flow_search.live(tx, what.filter, LIVE_ABOVE))
        count = tx.live_flows.count(**what.filter.who_and_what)
    older, newer = asked.place(page, "before", found.older), asked.place(page, "after", found.newer)
    looked = found.older[0] if found.is_partial and found.older is not None else None
    return _Shown(live, count, lines(tx, found.rows), older, newer, looked)


def _live_only(page: Page, tx: Transaction, what: _Asked, below: int | None) -> _Shown:
    rows = flow_search.live(tx, what.filter, PAGE_FLOWS + 1, below=below)
    more, rows = len(rows) > PAGE_FLOWS, rows[:PAGE_FLOWS]
    count = tx.live_flows.count(**what.filter.who_and_what)
    older = asked.place(page, "before", (0, rows[-1].id)) if more else None
    return _Shown(live_lines(tx, rows), count, [], older, asked.address(page) if below is not None else None)


async def _list(page: Page) -> Response:
    def read(tx: Transaction) -> tuple[_Asked, _Shown, bool]:
        what = _asked(page, tx)
        return what, _flows(page, tx, what), bool(tx.flow_events.newest(1) or tx.live_flows.newest(1))

    what, flows, has_any = await page.read(read)
    return page.render(
        "activity/flows.html",
        what=what,
        flows=flows,
        has_any=has_any,
        results={"": "Everything", **{word: label for word, (label, _) in RESULTS.items()}},
        ranges={"": "Any time", **{word: label for word, (label, _) in asked.RANGES.items()}},
        reasons={"": "Any reason", **{failure.value: text for failure, text in FAILURES.items()}},
        address=lambda **changed: asked.address(page, **changed),
        first_page=not page.query("before") and not page.query("after"),
    )


async def _names(page: Page) -> Response:
    kind = str(page.request.path_params["kind"])
    if kind not in picked.KINDS:
        raise NotFound("List of names", kind[:40])
    found = await page.read(lambda tx: picked.names(tx, kind, page.query(kind)))
    return page.render("activity/names.html", names=found)


@dataclass(frozen=True, slots=True)
class _Detail:
    row: FlowEventRow
    line: FlowLine
    events: list[tuple[FlowEventRow, str, str]]
    is_live: bool
    has_service: bool
    has_connector: bool
    explanation: explain.Explanation | None


async def _one(page: Page) -> Response:
    id = page.number()

    def read(tx: Transaction) -> _Detail:
        row = tx.flow_events.get(id)
        if row is None:
            raise NotFound("Flow event", id)
        events = flow_search.of_flow(tx, row)
        last = events[-1]
        (line,) = lines(tx, [last])
        is_live = bool(tx.live_flows.find(connector_id=row.connector_id, flow=row.flow))
        account = None if row.service_account_id is None else tx.service_accounts.get(row.service_account_id)
        explanation = None
        if account is not None and last.kind in ("denied", "failed"):
            target = Destination(line.host, line.port, TransportProtocol(line.protocol))
            try:
                peers, defaults = page.console.peers, page.console.config.account_defaults
                refused = page.console.services.refused_logins
                explanation = explain.explain(tx, account, target, peers.online(), peers.direct(), defaults, refused)
            except InvalidInput:
                pass  # a host that no resource could have
        told = [(event, *result_of(event.kind, event.failure)) for event in events]
        has_connector = tx.connectors.get(row.connector_id) is not None
        return _Detail(last, line, told, is_live, account is not None, has_connector, explanation)

    detail = await page.read(read)
    return page.render("activity/flow.html", flow=detail, remedy=remedy(detail.row.failure), back=LIST)


async def _export(page: Page) -> Response:
    what = await page.read(lambda tx: _asked(page, tx))
    if what.is_open:
        raise InvalidInput("filter", "the filter names something that does not exist", hint="correct it on the page of flows")
    format = page.query("format", "csv")
    if format not in ("csv", "json"):
        raise InvalidInput("format", "format is csv or json")
    equal: dict[str, Any] = (
        what.filter.conditions
        if format == "csv"
        else {name: value for name, value in what.filter.conditions.items() if name != "kind" or what.result}
    )
    wanted = Wanted(format, what.filter.begin_ms, what.filter.end_ms, gzip=False, equal=equal)
    return page.console.exports.flows(page.request, wanted, f"console user {page.user.id}")


ROUTES: tuple[ConsoleRoute, ...] = (
    shown(LIST, _list),
    shown(LIST + "/export", _export),
    shown(LIST + "/{id:int}", _one),
    shown("/activity/names/{kind}", _names),
)
