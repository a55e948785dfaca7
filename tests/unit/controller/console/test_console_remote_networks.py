"""Network > Remote networks."""

from __future__ import annotations

import pytest

from klinket.controller.app import resources
from klinket.controller.app.ports import Transaction
from klinket.domain.audit import SYSTEM, AuditAction
from tests.unit.controller.console.conftest import Browser
from tests.unit.controller.console.test_console_connectors import add as add_connector
from tests.unit.controller.console.test_console_connectors import live as live_flows
from tests.unit.controller.console.test_console_connectors import report
from tests.unit.controller.running import Running

pytestmark = pytest.mark.sqlite_only
LIST = "/network/remote-networks"


async def test_an_empty_list_says_the_next_step(admin: Browser, support: Browser) -> None:
    assert "Add the first one" in (await admin.get(LIST)).text
    assert "Add the first one" not in (await support.get(LIST)).text


async def test_one_is_added_changed_and_deleted_as_the_user_who_did_it(controller: Running, devops: Browser) -> None:
    added = await devops.post(LIST + "/new", {"name": "office", "location": "ON_PREMISE"})
    assert added.status_code == 303
    place = added.headers["location"]
    page = await devops.get(place)
    assert "Remote network office created" in page.text
    assert "created" not in (await devops.get(place)).text  # it is said once
    fields = {"name": "office Berlin", "location": "AWS", "is_active": "on", "seen": devops.seen(page)}
    assert (await devops.post(place, fields)).status_code == 303
    assert "office Berlin" in (await devops.get(LIST)).text
    assert (await devops.post(place + "/delete")).headers["location"] == "/console" + LIST
    events = [(row.action, row.actor["type"], row.actor["info"]) for row in (await controller.audit())[-3:]]
    who = ("User", {"name": "devops@example.com"})
    assert events == [(action.value, *who) for action in (AuditAction.CREATE, AuditAction.EDIT, AuditAction.DELETE)]


async def test_what_is_wrong_is_said_at_the_field_and_nothing_typed_is_lost(admin: Browser) -> None:
    answer = await admin.post(LIST + "/new", {"name": " ", "location": "AZURE"})
    assert answer.status_code == 400
    assert 'aria-invalid="true"' in answer.text
    assert '<option value="AZURE" selected>' in answer.text


async def test_of_two_who_change_the_same_the_second_is_told(controller: Running, admin: Browser, devops: Browser) -> None:
    place = (await admin.post(LIST + "/new", {"name": "office", "location": "AWS"})).headers["location"]
    page = await admin.get(place)
    seen = admin.seen(page)
    controller.offset = 1
    first = await devops.post(place, {"name": "theirs", "location": "AWS", "is_active": "on", "seen": seen})
    second = await admin.post(place, {"name": "mine", "location": "AWS", "is_active": "on", "seen": seen})
    assert (first.status_code, second.status_code) == (303, 409)
    assert "somebody has changed this meanwhile" in second.text
    assert "mine" in second.text
    assert [row.name for row in await controller.read(lambda tx: tx.remote_networks.find())] == ["theirs"]


async def test_markup_in_a_name_is_text(admin: Browser) -> None:
    await admin.post(LIST + "/new", {"name": "<b>office</b>", "location": "AWS"})
    text = (await admin.get(LIST)).text
    assert "<b>office" not in text
    assert "&lt;b&gt;office" in text


async def test_a_page_shows_what_is_inside_and_why_nothing_is_reached(controller: Running, admin: Browser) -> None:
    def fill(tx: Transaction) -> None:
        report(tx, add_connector(tx), version="1.0.29")
        for number in range(14):
            resources.create(tx, SYSTEM, name=f"r{number}", address=f"r{number}.internal", remote_network_id=1)

    await controller.write(fill)
    text = (await admin.get(LIST + "/1")).text
    assert "No connector is online: nothing in this network is reached" in text
    assert "(1.0.29)" in text
    assert "All 14 resources" in text
    assert 'href="/console/network/connectors/new?network=1"' in text
    assert "To delete it, delete first its <a" in text
    assert "1 connector</a> and <a" in text
    assert "14 resources</a>" in text


async def test_disabling_says_what_ends_and_can_be_undone(controller: Running, devops: Browser) -> None:
    def fill(tx: Transaction) -> None:
        row = add_connector(tx)
        resources.create(tx, SYSTEM, name="Database", address="db.internal", remote_network_id=1)
        live_flows(tx, row, 2)

    await controller.write(fill)
    assert "The 2 live flows in it end at once" in (await devops.get(LIST + "/1")).text
    await devops.post(LIST + "/1/disable")
    text = (await devops.get(LIST + "/1")).text
    assert "Enable it again" in text
    assert "/console/activity/cuts/1" in text
    await devops.post(LIST + "/1/enable")
    assert (await controller.read(lambda tx: tx.remote_networks.get(1))).is_active  # type: ignore[union-attr]


async def test_a_location_is_one_of_those_there_are(controller: Running, admin: Browser) -> None:
    answer = await admin.post(LIST + "/new", {"name": "office", "location": "MOON"})
    assert answer.status_code == 400
    assert "there is no location" in answer.text
