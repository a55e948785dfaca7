"""The first page: what needs attention, setting up, and the map of who reaches what."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest

from klinket.controller.app import (
    access,
    defaults,
    group_access,
    groups,
    inventory_map,
    remote_networks,
    resources,
    service_accounts,
    service_keys,
    sinks,
)
from klinket.controller.app import connectors as connector_use_cases
from klinket.controller.app.flow_totals import HOUR_MS
from klinket.controller.app.ports import Transaction
from klinket.controller.console.network import map_layout
from klinket.controller.peers import ConnectorPeer, Outbox
from klinket.domain.audit import SYSTEM
from klinket.domain.identifiers import ConnectorId, Kid, Thumbprint
from klinket.domain.sink import SinkKind
from tests.unit.controller.console.conftest import Browser
from tests.unit.controller.console.test_console_connectors import add as add_connector
from tests.unit.controller.console.test_console_connectors import report
from tests.unit.controller.console.test_console_resources import UUID, flow, squeezed
from tests.unit.controller.running import Running

pytestmark = pytest.mark.sqlite_only


def attach(running: Running, *ids: int) -> None:
    for id in ids:
        peer = ConnectorPeer(ConnectorId(id), Thumbprint("jkt"), Outbox(None), relays=(1,))  # type: ignore[arg-type]
        running.peers.connectors[id] = peer


def set_up(tx: Transaction) -> None:
    """Make one of everything: a network with a connector, a resource, a service with a key that may reach it."""
    defaults.ensure(tx)
    report(tx, add_connector(tx))
    row = resources.create(tx, SYSTEM, name="Database", address="db.internal", remote_network_id=1)
    account = service_accounts.create(tx, SYSTEM, name="ci", uuid=UUID)
    service_keys.create(tx, SYSTEM, account, days=365, name="runner", kid=Kid("k"), public_key="PEM")
    access.grant(tx, SYSTEM, row, account)


# ---- setting up


async def test_the_steps_lead_on_and_are_marked_as_done(controller: Running, admin: Browser) -> None:
    text = (await admin.get("/")).text
    assert "Set up acme" in text
    assert "0 of 6 done" in text
    steps = (
        "/network/remote-networks/new",
        "/network/connectors/new",
        "/network/resources/new",
        "/team/services/new",
        "/team/services",
    )
    for step in steps:
        assert f'href="/console{step}"' in text
    await controller.write(add_connector)
    text = (await admin.get("/")).text
    assert "1 of 6 done" in text  # a connector that never started is not done
    assert 'href="/console/network/connectors/1/tokens"' in text
    assert 'href="/console/network/resources/new?network=1"' in text
    await controller.write(lambda tx: report(tx, connector_use_cases.get(tx, 1, 1)))
    assert "2 of 6 done" in (await admin.get("/")).text


async def test_what_is_set_up_says_so_no_more(controller: Running, admin: Browser) -> None:
    await controller.write(set_up)
    attach(controller, 1)
    text = (await admin.get("/")).text
    assert "done" not in squeezed(text)
    assert "All is well" in text


# ---- attention


async def needs(controller: Running, admin: Browser) -> dict[str, str]:
    """Return titles and texts of what needs attention."""
    text = (await admin.get("/")).text
    return dict(re.findall(r"<strong>([^<]+)</strong><span>([^<]+)</span></a></li>", text))


async def test_connectors_that_are_away_old_or_have_a_wrong_clock(controller: Running, admin: Browser) -> None:
    def fill(tx: Transaction) -> None:
        set_up(tx)
        report(tx, add_connector(tx, "old"), version="1.0.29")
        report(tx, add_connector(tx, "late"), time_ms=tx.now_ms - 9_000)
        add_connector(tx, "never started")

    await controller.write(fill)
    attach(controller, 2, 3)
    found = await needs(controller, admin)
    assert found == {
        "1 connector is offline": "office-1",
        "1 connector is too old for services": "old: below 1.0.30, services get nothing new in their remote networks",
        "1 connector has a wrong clock": "late: more than 5.0 s off",
    }
    assert next(iter(found)) == "1 connector is offline"  # the worst first
    controller.peers.connectors.clear()
    assert (await needs(controller, admin))["1 remote network is out of reach"].startswith("office: no connector is online")


async def test_keys_that_expire_soon(controller: Running, admin: Browser) -> None:
    def fill(tx: Transaction) -> None:
        set_up(tx)
        account = service_accounts.get(tx, 1, 1)
        for number, days in enumerate((3, 29, 31)):
            service_keys.create(tx, SYSTEM, account, days=days, name=f"key-{number}", kid=Kid(f"k{number}"), public_key="PEM")

    await controller.write(fill)
    attach(controller, 1)
    assert await needs(controller, admin) == {"2 keys expire soon": "key-0, key-1; the first in 2 d 23 h"}


async def test_cuts_that_wait_for_receipts(controller: Running, admin: Browser) -> None:
    await controller.write(set_up)
    attach(controller, 1)
    await controller.write(lambda tx: resources.update(tx, SYSTEM, resources.get(tx, 1, 1), {"is_active": False}))
    (title, told), *_ = (await needs(controller, admin)).items()
    assert title == "1 cut is not confirmed"
    assert told.startswith("office-1 has not answered yet; in 2 min")
    controller.offset = 600
    assert await needs(controller, admin) == {}  # no grant is alive any more: nothing can flow


async def test_sinks_that_get_nothing(controller: Running, admin: Browser) -> None:
    def fill(tx: Transaction) -> None:
        set_up(tx)
        settings = {"url": "https://hook.example/"}
        row = sinks.create(
            tx, SYSTEM, name="hook", kind=SinkKind.WEBHOOK, settings=settings, streams=["audit"], sealed_secret=None
        )
        tx.sinks.change(row.id, attempts=3, last_error="connection refused")

    await controller.write(fill)
    attach(controller, 1)
    assert await needs(controller, admin) == {"1 sink gets no events": "hook: connection refused"}


@pytest.mark.parametrize(("before", "now", "is_told"), [(0, 10, True), (10, 14, False), (10, 15, True), (0, 9, False)])
async def test_denials_that_rise(controller: Running, admin: Browser, before: int, now: int, is_told: bool) -> None:
    def fill(tx: Transaction) -> None:
        set_up(tx)
        hour = tx.now_ms - tx.now_ms % HOUR_MS
        for begin, flows in ((hour - 2 * HOUR_MS, now), (hour - 30 * HOUR_MS, before)):
            tx.flow_hours.add(
                hour_ms=begin, kind="denied", failure="not-granted", flows=flows, bytes_from_client=0, bytes_to_client=0
            )

    await controller.write(fill)
    attach(controller, 1)
    told = {"Denials are rising": f"{now} in 24 hours, {before} in the 24 hours before"}
    assert await needs(controller, admin) == (told if is_told else {})


# ---- map


async def test_the_map_shows_who_reaches_what_and_what_flows_now(controller: Running, admin: Browser) -> None:
    def fill(tx: Transaction) -> None:
        set_up(tx)
        group_access.grant(tx, SYSTEM, resources.get(tx, 1, 1), groups.get(tx, 1, 1))
        flow(tx, "established")

    await controller.write(fill)
    attach(controller, 1)
    text = (await admin.get("/")).text
    assert '<path class="live"' in text
    assert "ci to Database: 1 live now" in text
    assert "Everyone to Database: a group" in text
    assert 'aria-label="Connector office-1: Online"' in text
    assert text.count('href="/console/network/resources/1"') == 2  # on the map, and in the list for small screens
    assert 'href="/console/team/groups/1"' in text


async def test_of_many_the_busiest_are_shown_and_the_rest_counted(controller: Running, admin: Browser) -> None:
    def fill(tx: Transaction) -> None:
        set_up(tx)
        for number in range(40):
            row = resources.create(tx, SYSTEM, name=f"r{number}", address=f"r{number}.internal", remote_network_id=1)
            account = service_accounts.create(tx, SYSTEM, name=f"s{number}", uuid=f"{number:036d}")
            access.grant(tx, SYSTEM, row, account)
            access.grant(tx, SYSTEM, resources.get(tx, 1, 1), account)
        for number in range(9):
            remote_networks.create(tx, SYSTEM, name=f"n{number}", location="AWS", network_type="REGULAR", is_active=True)
        flow(tx, "established", resource=41)

    await controller.write(fill)
    found = await controller.read(inventory_map.take)
    network = found.networks[0]
    assert [row.name for row in network.resources][:2] == ["r39", "Database"]
    assert len(network.resources) < network.resource_count == 41
    assert (len(found.networks), found.more_networks) == (inventory_map.MAX_NETWORKS, 4)
    assert len(found.services) == inventory_map.MAX_SERVICES
    assert found.more_services == 41 - inventory_map.MAX_SERVICES
    text = squeezed((await admin.get("/")).text)
    assert f"and {41 - len(network.resources)} more" in text
    assert f"and {found.more_services} more" in text
    assert "and 4 more remote networks" in text


async def test_nothing_on_the_map_overlaps(controller: Running) -> None:
    def fill(tx: Transaction) -> None:
        set_up(tx)
        for number in range(8):
            add_connector(tx, f"c{number}", network="office" if number % 2 else f"n{number}")
            row = resources.create(tx, SYSTEM, name="x" * 99, address=f"r{number}.internal", remote_network_id=1 + number % 3)
            access.grant(tx, SYSTEM, row, service_accounts.get(tx, 1, 1))

    await controller.write(fill)
    found = await controller.read(inventory_map.take)
    drawn = map_layout.layout(found, {1}, 0)
    edges = [(box.y, box.y + box.height) for box in drawn.boxes]
    assert all(end < begin for (_, end), (begin, _) in pairwise(edges))
    assert edges[-1][1] <= drawn.height
    for box in drawn.boxes:
        inside: list[Any] = [*box.chips, *box.places]
        assert all(box.y < one.y < one.y + map_layout.ROW - 8 < box.y + box.height for one in inside)
        assert all(chip.x + map_layout.CHIP_WIDTH - 8 <= map_layout.WIDTH for chip in box.chips)
    assert len(map_layout.cut("x" * 99, map_layout.NAME_CHARS)) == map_layout.NAME_CHARS


async def test_names_on_the_map_are_text(controller: Running, admin: Browser) -> None:
    await controller.write(lambda tx: add_connector(tx, "<b>bold</b>", network="<i>net</i>"))
    text = (await admin.get("/")).text
    assert "<b>bold" not in text
    assert "<i>net" not in text
    assert "&lt;i&gt;net" in text
