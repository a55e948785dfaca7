"""Network > Remote networks."""

from __future__ import annotations

import pytest

from klinket.domain.audit import AuditAction
from tests.unit.controller.console.conftest import Browser
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
