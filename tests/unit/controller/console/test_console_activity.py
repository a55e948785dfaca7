"""Activity: flows with their filters and places, cuts as receipts come in, trends, exports."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from klinket.controller.app import access, cuts
from klinket.controller.app.rows import FlowHourRow
from klinket.controller.console.activity.trends import HOUR_MS, flow_trend
from klinket.controller.console.charts import Bar, plot, round_above
from klinket.controller.console.words import duration_in_words
from klinket.domain.flow import FlowFailure
from tests.unit.controller.console.activity import ACTOR, Inventory
from tests.unit.controller.console.conftest import Browser
from tests.unit.controller.running import Running

pytestmark = pytest.mark.sqlite_only
FLOWS, CUTS = "/activity/flows", "/activity/cuts"


@pytest.fixture
async def inventory(controller: Running) -> Inventory:
    return await controller.write(Inventory)


def past_flows(text: str) -> list[str]:
    """Return the numbers of the flows in a page's table of past flows: hosts of the tests are f0, f1, ..."""
    return re.findall(r"<span class=\"mono\">f(\d+):443", text.partition('id="past"')[2])


async def keep(controller: Running, inventory: Inventory, count: int) -> None:
    now = controller.clock() * 1000
    events = [inventory.event("closed", f"f{n}", n % 2, time_ms=int(now) - 1000 + n // 3, host=f"f{n}") for n in range(count)]
    await controller.write(lambda tx: inventory.keep(tx, *events))


async def test_without_any_flow_the_page_says_the_next_step(support: Browser) -> None:
    assert "No flows yet" in (await support.get(FLOWS)).text
    assert "No cuts yet" in (await support.get(CUTS)).text


async def test_a_line_says_who_reached_what_and_how_it_went(controller: Running, inventory: Inventory, support: Browser) -> None:
    sent = {"bytes_from_client": 1_500, "bytes_to_client": 2_000_000, "duration_ms": 61_000, "time_ms": 5}
    closed = inventory.event("closed", "a", **sent)
    failed = inventory.event("failed", "b", failure="refused", time_ms=6)
    await controller.write(lambda tx: inventory.keep(tx, closed, failed))
    text = (await support.get(FLOWS)).text
    for words in (
        "ci-runners",
        "ci-runners key",
        "orders.internal:443",
        "Orders",
        "brave-otter",
        "Completed",
        "1.5 kB",
        "2.0 MB",
    ):
        assert words in text
    assert "1 min 1 s" in text
    assert "nothing listens on that port" in text


async def test_a_flow_lives_above_the_others_until_it_ends(controller: Running, inventory: Inventory, admin: Browser) -> None:
    await controller.write(lambda tx: inventory.keep(tx, inventory.event("established", "a", time_ms=tx.now_ms)))
    live = await admin.get(FLOWS)
    assert "Live now" in live.text
    assert "Nothing fits" in live.text  # nothing past
    assert "orders.internal" in (await admin.get(FLOWS + "?result=live")).text
    assert "Live now" not in (await admin.get(FLOWS + "?service=backup")).text.partition('id="flows"')[2]
    await controller.write(lambda tx: inventory.keep(tx, inventory.event("closed", "a", time_ms=tx.now_ms)))
    ended = (await admin.get(FLOWS)).text.partition('id="flows"')[2]
    assert "Live now" not in ended
    assert "Completed" in ended
    assert "Nothing lives now" in (await admin.get(FLOWS + "?result=live")).text


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("service=ci-runners", ["4", "2", "0"]),
        ("service=backup", []),
        ("service=2", ["3", "1"]),
        ("key=ci-deploy+key", ["3", "1"]),
        ("service=runn", ["4", "2", "0"]),
        ("resource=orders.int", ["4", "3", "2", "1", "0"]),
        ("resource=Billing", []),
        ("connector=brave-otter&service=ci-deploy", ["3", "1"]),
        ("result=denied", []),
        ("reason=refused", []),
        ("time=1h", ["4", "3", "2", "1", "0"]),
        ("to=2001-01-01T00:00", []),
    ],
)
async def test_filters_name_things_by_id_by_name_or_by_a_part_of_it(
    controller: Running, inventory: Inventory, admin: Browser, query: str, found: list[str]
) -> None:
    await keep(controller, inventory, 5)
    answer = await admin.get(f"{FLOWS}?{query}")
    assert answer.status_code == 200
    assert past_flows(answer.text) == found


async def test_a_name_that_several_have_is_asked_about(controller: Running, inventory: Inventory, admin: Browser) -> None:
    await keep(controller, inventory, 2)
    text = (await admin.get(FLOWS + "?service=ci-&time=24h")).text
    assert "Which service?" in text
    assert f'href="?service={inventory.accounts[1].id}&amp;time=24h"' in text
    assert "There is no key with" in (await admin.get(FLOWS + "?key=nobody")).text


async def test_names_are_offered_while_typing(inventory: Inventory, admin: Browser) -> None:
    answer = await admin.get("/activity/names/service?service=ci", hx_request="true")
    assert re.findall('value="([^"]+)"', answer.text) == ["ci-runners", "ci-deploy"]
    assert (await admin.get("/activity/names/cat")).status_code == 404


async def test_older_and_newer_lead_through_all_flows_and_back(controller: Running, inventory: Inventory, admin: Browser) -> None:
    await keep(controller, inventory, 120)
    seen: list[str] = []
    place, texts = FLOWS, []
    while place:
        texts.append((await admin.get(place)).text)
        seen += past_flows(texts[-1])
        older = re.search(r'href="(\?[^"]+)" rel="next"', texts[-1])
        place = FLOWS + older.group(1).replace("&amp;", "&") if older else ""
    assert seen == [str(n) for n in range(119, -1, -1)]
    assert len(texts) == 3
    newer = re.search(r'href="(\?[^"]+)" rel="prev"', texts[2])
    assert newer is not None
    assert past_flows((await admin.get(FLOWS + newer.group(1))).text) == past_flows(texts[1])
    assert 'hx-trigger="live:flows' in texts[0]
    assert "live:flows" not in texts[1]  # who reads older flows is not disturbed


async def test_a_denial_says_why_what_to_do_and_how_it_is_now(controller: Running, inventory: Inventory, admin: Browser) -> None:
    denied = inventory.event("denied", "d", resource=None, failure="not-granted", time_ms=7)
    await controller.write(lambda tx: inventory.keep(tx, denied))
    text = (await admin.get(FLOWS + "/1")).text
    assert "The service was not granted this address and port" in text
    assert "grant it the resource" in text
    assert "It would still be refused now" in text
    assert "No resource serves secret.internal" in text
    assert "not-granted" in text


async def test_an_export_holds_what_the_filter_shows_and_needs_the_session_only(
    controller: Running, inventory: Inventory, support: Browser
) -> None:
    await keep(controller, inventory, 5)
    answer = await support.get(FLOWS + "/export?format=csv&service=ci-deploy")
    assert answer.headers["content-disposition"] == 'attachment; filename="network-events.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["resource_domain"] for row in rows] == ["f1", "f3"]
    lines = (await support.get(FLOWS + "/export?format=json&result=closed")).text.splitlines()
    assert [json.loads(line)["event"]["resource"]["address"] for line in lines] == ["f0", "f1", "f2", "f3", "f4"]
    assert (await support.get(FLOWS + "/export?format=xml")).status_code == 400
    assert (await support.get(FLOWS + "/export?service=nobody")).status_code == 400
    assert (await Browser(controller).get(FLOWS + "/export")).status_code == 303


async def test_a_cut_shows_who_waits_until_when_and_then_what_ended(
    controller: Running, inventory: Inventory, admin: Browser
) -> None:
    account, resource = inventory.accounts[0], inventory.resources[0]
    await controller.write(lambda tx: access.grant(tx, ACTOR, resource, account) and access.revoke(tx, ACTOR, resource, account))
    waiting = await admin.get(CUTS + "/1")
    assert "Orders, for ci-runners" in waiting.text
    assert "by ada@example.com" in waiting.text.replace("  ", " ")
    assert "0 of 1 answered" in waiting.text
    assert "could flow until" in waiting.text
    assert 'hx-trigger="live:cuts' in waiting.text
    flow = {
        "flow": "f", "session": "s", "service_account": account.uuid, "key": "k", "resource": resource.id,
        "host": "orders.internal", "port": 443, "protocol": "tcp", "stopped_after_ms": 4.2,
    }  # fmt: skip
    told = {"stopped_at_ms": 1_700_000_000_000, "took_ms": 6.5, "flows": [flow], "token": "t"}
    await controller.write(lambda tx: cuts.answer(tx, 1, inventory.connector.id, **told))
    answered = await admin.get(CUTS + "/1")
    assert "could flow until" not in answered.text
    assert "live:cuts" not in answered.text
    for words in ("orders.internal:443", "4 ms", "by the connector"):
        assert words in answered.text
    assert "Orders, for ci-runners" in (await admin.get(CUTS)).text
    receipt = (await admin.get(CUTS + "/1/receipt")).json()
    assert receipt["receipts"][0]["flows"] == [flow]


async def test_an_ended_flow_whose_destination_nobody_told_is_said_so(
    controller: Running, inventory: Inventory, admin: Browser
) -> None:
    account, resource = inventory.accounts[0], inventory.resources[0]
    await controller.write(lambda tx: access.grant(tx, ACTOR, resource, account) and access.revoke(tx, ACTOR, resource, account))
    told = {"stopped_at_ms": 1, "took_ms": 1.0, "flows": [{"flow": "1"}, {"flow": "2", "host": "", "port": 443}]}
    await controller.write(lambda tx: cuts.answer(tx, 1, inventory.connector.id, **told))
    text = (await admin.get(f"{CUTS}/1")).text
    assert text.count("destination not known") == 2
    assert "?" not in re.sub("<[^>]*>", "", text.partition("Flows that ended")[2].partition("About")[0])


async def test_a_cut_of_what_was_deleted_since_is_still_told(controller: Running, admin: Browser) -> None:
    scopes = ("account gone", "key gone", "session gone", "resource 99", "access gone 99", "connector 99", "of a later version")
    values = {"epoch": 1, "revision": 1, "reason": "cut", "token": "", "actor": {"type": "System", "id": None, "info": None}}
    await controller.write(lambda tx: [tx.cuts.add(scope=scope, **values) for scope in scopes])
    for number, _ in enumerate(scopes, 1):
        answer = await admin.get(f"{CUTS}/{number}")
        assert answer.status_code == 200
    assert (await admin.get(CUTS)).text.count("that was deleted") == 6


def hour(age: int, kind: str, failure: str, flows: int) -> FlowHourRow:
    return FlowHourRow(1, (100 - age) * HOUR_MS, kind, failure, flows, 10, 20)


def test_a_trend_has_every_flow_once_in_its_time_and_result() -> None:
    rows = [
        hour(0, "closed", "", 5), hour(0, "established", "", 9), hour(0, "closed", "cut", 2), hour(1, "denied", "not-granted", 3),
        hour(1, "failed", "refused", 1), hour(23, "closed", "", 7), hour(24, "closed", "", 100),
    ]  # fmt: skip
    trend = flow_trend(rows, 100 * HOUR_MS + 5, 1, 24)
    assert [trend.buckets[place].counts for place in (-1, -2, 0)] == [(5, 2, 0, 0), (0, 0, 1, 3), (7, 0, 0, 0)]
    assert (trend.totals, trend.flows, trend.busiest) == ((12, 2, 1, 3), 18, "7 flows an hour")
    assert [(word, kind, count) for word, _, kind, count in trend.reasons] == [
        (FlowFailure.NOT_GRANTED.value, "denied", 3), ("cut", "closed", 2), ("refused", "failed", 1),
    ]  # fmt: skip
    assert sum(sum(bucket.counts) for bucket in flow_trend(rows, 100 * HOUR_MS, 6, 28).buckets) == 118


@pytest.mark.parametrize(
    ("value", "top"), [(0, 2), (1.2, 2), (2, 2), (5, 6), (9.1, 10), (10, 10), (12.4, 20), (100, 100), (101, 200), (8_123, 10_000)]
)
def test_a_scale_ends_at_a_round_number_whose_half_is_round(value: float, top: float) -> None:
    assert round_above(value) == top


def test_a_chart_tells_its_scale_to_eyes_and_in_its_label() -> None:
    drawn = plot([Bar("one", (12.4,)), Bar("two", (20.0,))], ["accent"], "Cuts", duration_in_words)
    assert re.findall("<span>([^<]*)</span>", drawn) == ["20 ms", "10 ms", "0 ms"]
    assert 'aria-label="Cuts. The scale goes from 0 ms to 20 ms."' in drawn
    assert re.findall('class="accent"[^>]* height="([^"]*)"', drawn) == ["62.00", "100.00"]


async def test_trends_show_charts_with_words_beside_them(controller: Running, inventory: Inventory, support: Browser) -> None:
    await keep(controller, inventory, 5)
    now = int(controller.clock() * 1000)
    denied = inventory.event("denied", "d", resource=None, failure="not-granted", time_ms=now)
    await controller.write(lambda tx: inventory.keep(tx, denied))
    for word in ("24h", "7d", "30d", "nonsense"):
        text = (await support.get("/activity/trends?time=" + word)).text
        assert "6 in all, 1 denied, 0 failed" in text
        assert "3 keys expire" in text
        assert "The scale goes from 0 to " in text
        assert "The service was not granted this address and port" in text
