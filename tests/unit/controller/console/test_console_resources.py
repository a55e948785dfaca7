"""Network > Resources: list, page, form, access."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from klinket.controller.app import access, connectors, defaults, flow_events, group_access, groups, resources, service_accounts
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ResourceRow
from klinket.domain.audit import SYSTEM
from klinket.domain.flow import FlowFailure
from klinket.wire.control import FlowEvent
from tests.unit.controller.console.conftest import Browser
from tests.unit.controller.console.test_console_connectors import add as add_connector
from tests.unit.controller.console.test_console_connectors import report
from tests.unit.controller.running import Running

pytestmark = pytest.mark.sqlite_only
LIST = "/network/resources"
DAY_MS = 24 * 3_600_000
UUID = "00000000-0000-4000-8000-000000000001"


def add(tx: Transaction, name: str = "Database", **values: Any) -> ResourceRow:
    """Make a resource, and the connector and service that go with it."""
    if not tx.connectors.find():
        defaults.ensure(tx)
        add_connector(tx)
        service_accounts.create(tx, SYSTEM, name="ci", uuid=UUID)
    return resources.create(tx, SYSTEM, name=name, **{"address": "db.internal", "remote_network_id": 1, **values})


def flow(tx: Transaction, kind: str, number: int = 1, **values: Any) -> None:
    """Let the connector report an event of resource 1."""
    facts: dict[str, Any] = {
        "flow": f"flow-{number}", "time_ms": tx.now_ms, "session": "s", "service_account": UUID, "key": "k", "resource": 1,
        "host": "db.internal", "port": 5432, "protocol": "tcp", "resource_ip": "10.0.0.9", "event": kind, **values,
    }  # fmt: skip
    flow_events.keep(tx, 1, number, [FlowEvent(**facts)])


def fields(**values: str) -> dict[str, str]:
    return {
        "name": "Database", "address": "db.internal", "network": "1", "tcp": "SOME", "tcp_ports": "5432", "udp": "NONE",
        "udp_ports": "", "is_visible": "on", "tags": "env=prod", **values,
    }  # fmt: skip


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))


def given(*steps: Callable[[Transaction], object]) -> Callable[[Transaction], None]:
    def fill(tx: Transaction) -> None:
        for step in steps:
            step(tx)

    return fill


# ---- list


async def test_an_empty_list_says_the_next_step(controller: Running, admin: Browser, support: Browser) -> None:
    assert "Add remote network" in (await admin.get(LIST)).text
    await controller.write(add_connector)
    assert "Add the first one" in (await admin.get(LIST)).text
    assert "Add the first one" not in (await support.get(LIST)).text


@pytest.mark.parametrize(("query", "names"), [
    ("q=ORDERS", ["Orders"]), ("q=10.20", ["Range"]), ("q=db.acme", ["Orders"]), ("q=nothing", []), ("network=2", ["Range"]),
    ("network=99999999999999", []), ("tag=env=prod", ["Orders"]), ("tag=env", ["Orders", "Range"]), ("tag=en", []),
    ("state=disabled", ["Range"]),
])  # fmt: skip
async def test_resources_are_found_by_text_network_tag_and_state(
    controller: Running, admin: Browser, query: str, names: list[str]
) -> None:
    def fill(tx: Transaction) -> None:
        add(tx, "Orders", alias="db.acme.internal", tags=[{"key": "env", "value": "prod"}])
        add_connector(tx, "other", "cloud")
        row = add(tx, "Range", address="10.20.0.0/16", remote_network_id=2, tags=[{"key": "env", "value": "test"}])
        resources.update(tx, SYSTEM, row, {"is_active": False})

    await controller.write(fill)
    text = (await admin.get(f"{LIST}?{query}")).text
    assert re.findall(r'href="/console/network/resources/\d+">(\w+)<', text) == names


async def test_the_list_tells_ports_access_and_live_flows(controller: Running, admin: Browser) -> None:
    def fill(tx: Transaction) -> None:
        row = add(tx, protocols={"tcp": {"policy": "RESTRICTED", "ports": [{"start": 1, "end": 9}]}, "allowIcmp": False})
        access.grant(tx, SYSTEM, row, service_accounts.get(tx, 1, 1))
        flow(tx, "established")

    await controller.write(fill)
    text = (await admin.get(LIST)).text
    assert "TCP 1-9; UDP all ports" in text
    assert "1 service" in text
    assert 'aria-label="1 flows in 24 hours"' in text
    assert re.search(r'data-label="Live flows" class="number">1<', text)


# ---- form


async def test_one_is_added_with_ports_and_tags(controller: Running, devops: Browser) -> None:
    await controller.write(add_connector)
    assert "Only these ports" in (await devops.get(LIST + "/new?network=1")).text
    sent = fields(alias="db.acme.internal", udp="SOME", udp_ports="53 1000-2000", tags="env=prod\n\nteam=a=b")
    added = await devops.post(LIST + "/new", sent)
    assert added.headers["location"] == "/console/network/resources/1"
    row = await controller.read(lambda tx: resources.get(tx, 1, 1))
    assert row.protocols == {
        "allowIcmp": False,
        "tcp": {"policy": "RESTRICTED", "ports": [{"start": 5432, "end": 5432}]},
        "udp": {"policy": "RESTRICTED", "ports": [{"start": 53, "end": 53}, {"start": 1000, "end": 2000}]},
    }
    assert row.tags == [{"key": "env", "value": "prod"}, {"key": "team", "value": "a=b"}]
    form = (await devops.get(LIST + "/1/edit")).text
    assert 'value="53, 1000-2000"' in form
    assert "env=prod\nteam=a=b" in form


@pytest.mark.parametrize(("wrong", "told"), [
    ({"tcp_ports": ""}, "which TCP ports?"),
    ({"tcp_ports": "http"}, "not a port or port range"),
    ({"tcp": "?"}, "choose all ports, only some, or none"),
    ({"address": "10.0.0.1/8"}, "Invalid IP or FQDN"),
    ({"alias": "bare"}, "Alias must be a valid DNS name"),
    ({"tags": "env"}, "not a tag"),
    ({"network": ""}, "choose one"),
    ({"network": "99"}, "does not exist"),
    ({"routing_mode": "SIDEWAYS"}, "no such way"),
    ({"address": "*.internal", "is_browser_shortcut_enabled": "on"}, "cannot have a browser shortcut"),
])  # fmt: skip
async def test_what_is_wrong_is_said_and_nothing_typed_is_lost(
    controller: Running, admin: Browser, wrong: dict[str, str], told: str
) -> None:
    await controller.write(add_connector)
    answer = await admin.post(LIST + "/new", fields(name="Typed name", **wrong))
    assert answer.status_code in (400, 404)
    assert told in answer.text
    assert 'value="Typed name"' in answer.text
    assert await controller.read(lambda tx: tx.resources.count()) == 0


async def test_of_two_who_edit_the_same_the_second_is_told(controller: Running, admin: Browser, devops: Browser) -> None:
    await controller.write(add)
    seen = admin.seen(await admin.get(LIST + "/1/edit"))
    controller.offset = 1
    assert (await devops.post(LIST + "/1/edit", fields(name="theirs", seen=seen))).status_code == 303
    second = await admin.post(LIST + "/1/edit", fields(name="mine", seen=seen))
    assert second.status_code == 409
    assert 'value="mine"' in second.text
    assert (await controller.read(lambda tx: resources.get(tx, 1, 1))).name == "theirs"


async def test_the_policy_is_for_admins_to_set(controller: Running, admin: Browser, devops: Browser) -> None:
    await controller.write(add)
    seen = devops.seen(await devops.get(LIST + "/1/edit"))
    await devops.post(LIST + "/1/edit", fields(policy="1", seen=seen))
    assert (await controller.read(lambda tx: resources.get(tx, 1, 1))).security_policy_id is None
    seen = admin.seen(await admin.get(LIST + "/1/edit"))
    await admin.post(LIST + "/1/edit", fields(policy="1", seen=seen))
    assert (await controller.read(lambda tx: resources.get(tx, 1, 1))).security_policy_id == 1


async def test_a_change_that_ends_more_than_was_confirmed_is_asked_about_again(controller: Running, admin: Browser) -> None:
    await controller.write(given(add, lambda tx: flow(tx, "established")))
    seen = admin.seen(await admin.get(LIST + "/1/edit"))
    for confirmed in ("0", "-1", "many"):
        assert (await admin.post(LIST + "/1/edit", fields(seen=seen, confirmed=confirmed, tcp_ports="443"))).status_code in (
            400,
            409,
            422,
        )
    assert await controller.read(lambda tx: tx.cuts.find()) == []


async def test_a_change_that_ends_no_live_flow_is_not_asked_about(controller: Running, admin: Browser) -> None:
    await controller.write(given(add, lambda tx: flow(tx, "established")))
    seen = admin.seen(await admin.get(LIST + "/1/edit"))
    assert (await admin.post(LIST + "/1/edit", fields(seen=seen, tcp_ports="5432"))).status_code == 303
    assert len(await controller.read(lambda tx: tx.cuts.find())) == 1


async def test_narrowing_ends_flows_and_links_the_receipt(controller: Running, admin: Browser) -> None:
    await controller.write(given(add, lambda tx: flow(tx, "established")))
    form = await admin.get(LIST + "/1/edit")
    assert "1 flow lives there now" in form.text
    asked = await admin.post(LIST + "/1/edit", fields(seen=admin.seen(form), tcp_ports="443"))
    assert asked.status_code == 409
    assert "Save, and end 1 flow<" in asked.text
    assert await controller.read(lambda tx: tx.cuts.find()) == []
    await admin.post(LIST + "/1/edit", fields(seen=admin.seen(asked), confirmed="1", tcp_ports="443"))
    assert "/console/activity/cuts/1" in (await admin.get(LIST + "/1")).text


# ---- disable, delete


async def test_disabling_says_what_ends_and_can_be_undone(controller: Running, devops: Browser) -> None:
    await controller.write(given(add, lambda tx: flow(tx, "established")))
    assert "Its 1 live flow ends at once" in (await devops.get(LIST + "/1")).text
    await devops.post(LIST + "/1/disable")
    page = (await devops.get(LIST + "/1")).text
    assert 'action="/console/network/resources/1/enable"' in page
    assert "Enable it again" in page
    assert "/console/activity/cuts/1" in page
    await devops.post(LIST + "/1/enable")
    assert (await controller.read(lambda tx: resources.get(tx, 1, 1))).is_active


async def test_deleting_says_who_loses_access(controller: Running, admin: Browser) -> None:
    await controller.write(lambda tx: access.grant(tx, SYSTEM, add(tx), service_accounts.get(tx, 1, 1)))
    assert "1 service or group loses access" in (await admin.get(LIST + "/1")).text
    assert (await admin.post(LIST + "/1/delete")).headers["location"] == "/console" + LIST
    assert await controller.read(lambda tx: (tx.resources.count(), tx.access.count())) == (0, 0)


# ---- page


async def test_the_last_dial_and_the_activity_are_told_in_words(controller: Running, admin: Browser) -> None:
    await controller.write(given(add, lambda tx: flow(tx, "established")))
    assert "reached 10.0.0.9 , port 5432, for ci" in squeezed((await admin.get(LIST + "/1")).text)
    closed = {"duration_ms": 65_000, "bytes_from_client": 1500, "bytes_to_client": 2_000_000}
    await controller.write(lambda tx: flow(tx, "closed", 2, flow="flow-1", **closed))
    failed = {"failure": FlowFailure.REFUSED.value, "resource_ip": None}
    await controller.write(lambda tx: flow(tx, "failed", 3, **failed))
    text = squeezed((await admin.get(LIST + "/1")).text)
    assert "Failed just now The resource refused the connection: nothing listens on that port" in text
    assert "1 min 5 s, 1.5 kB sent, 2.0 MB received" in text
    assert "2 attempts, 1 failed" in text


async def test_the_policy_is_named_and_said_not_to_apply_to_services(controller: Running, support: Browser) -> None:
    await controller.write(add)
    text = squeezed((await support.get(LIST + "/1")).text)
    assert "Default Policy applies to users" in text
    assert "Policies do not apply to services" in text


async def test_which_other_resource_serves_the_same_hosts_is_told(controller: Running, admin: Browser) -> None:
    await controller.write(given(add, lambda tx: add(tx, "Everything", address="*.internal"), lambda tx: add(tx, "Twin")))
    mine = squeezed((await admin.get(LIST + "/1")).text)
    assert "Everything *.internal This one serves this one is more specific" in mine
    assert "Twin db.internal This one serves same address, this one is older" in mine
    twin = squeezed((await admin.get(LIST + "/3")).text)
    assert "Database db.internal Database serves same address, it is older" in twin


async def test_support_sees_and_changes_nothing(controller: Running, support: Browser) -> None:
    await controller.write(lambda tx: access.grant(tx, SYSTEM, add(tx), service_accounts.get(tx, 1, 1)))
    text = (await support.get(LIST + "/1")).text
    assert "ci" in text
    for word in ("Remove", "Disable", "Delete resource", "Edit</a>", "Add services"):
        assert word not in text


# ---- access


async def access_of(controller: Running) -> list[tuple[int, int | None]]:
    return await controller.read(lambda tx: [(row.service_account_id, row.expires_at_ms) for row in tx.access.find()])


def settings_of(tx: Transaction) -> list[tuple[object, ...]]:
    columns = ("group_id", "access_mode", "access_duration_seconds", "approval_mode", "security_policy_id")
    return tx.group_access.pick(columns)


async def test_services_and_groups_get_access_with_an_end(controller: Running, admin: Browser) -> None:
    await controller.write(given(add, lambda tx: groups.create(tx, SYSTEM, name="Platform", security_policy_id=None)))
    shown = (await admin.get(LIST + "/1/access?q=plat")).text
    assert "Platform" in shown
    assert "No service fits" in shown
    sent = {"principal": ["service-1", "group-2"], "end": "week"}
    assert (await admin.post(LIST + "/1/access", sent)).headers["location"] == "/console/network/resources/1"
    now = round(controller.clock() * 1000)
    ((account, ends),) = await access_of(controller)
    assert account == 1
    assert ends is not None
    assert abs(ends - now - 7 * DAY_MS) < 60_000
    assert await controller.read(lambda tx: [(row.group_id, row.expires_at_ms) for row in tx.group_access.find()]) == [(2, ends)]
    text = squeezed((await admin.get(LIST + "/1")).text)
    assert "2 services and groups may reach it now" in text
    await admin.post(LIST + "/1/access", {"principal": "service-1", "end": "never"})
    assert await access_of(controller) == [(1, None)]


@pytest.mark.parametrize(("sent", "told"), [
    ({}, "nobody was chosen"),
    ({"principal": "service-99"}, "does not exist"),
    ({"principal": "user-1"}, "does not exist"),
    ({"principal": "service-1", "until": "soon"}, "not a day"),
    ({"principal": "service-1", "until": "2001-01-01"}, "1 hour to 1 year ahead"),
    ({"principal": "service-1", "end": "x"}, "no such end"),
    ({"principal": ["service-1", "service-99"]}, "does not exist"),
])  # fmt: skip
async def test_what_is_wrong_with_access_is_said_and_nothing_of_it_is_done(
    controller: Running, admin: Browser, sent: dict[str, Any], told: str
) -> None:
    await controller.write(add)
    answer = await admin.post(LIST + "/1/access", sent)
    assert answer.status_code in (400, 404)
    assert told in answer.text
    assert await access_of(controller) == []


async def test_the_version_gate_is_explained_where_it_refuses(controller: Running, admin: Browser) -> None:
    await controller.write(given(add, lambda tx: report(tx, connectors.get(tx, 1, 1), version="1.0.29")))
    answer = await admin.post(LIST + "/1/access", {"principal": "service-1"})
    assert answer.status_code == 409
    text = squeezed(answer.text)
    assert "Services need connectors of version 1.0.30 or later; too old: office-1 (1.0.29)" in text
    assert "Upgrade it, or delete what is not used any more" in text
    assert 'href="/console/network/connectors/1"' in answer.text
    assert await access_of(controller) == []
    group = await admin.post(LIST + "/1/access", {"principal": "group-1"})
    assert group.status_code == 303  # groups are not services


async def test_removed_access_comes_back_as_it_was(controller: Running, admin: Browser) -> None:
    def fill(tx: Transaction) -> None:
        row = add(tx)
        access.grant(tx, SYSTEM, row, service_accounts.get(tx, 1, 1), tx.now_ms + DAY_MS)
        group_access.grant(
            tx, SYSTEM, row, groups.get(tx, 1, 1), expires_at_ms=None, security_policy_id=1,
            access_mode="AUTO_LOCK", access_duration_seconds=7200, approval_mode="AUTOMATIC",
        )  # fmt: skip
        flow(tx, "established")

    await controller.write(fill)
    before = await access_of(controller)
    own = await controller.read(settings_of)
    assert "1 live flow of it ends at once" in squeezed((await admin.get(LIST + "/1")).text)
    for principal in ("service-1", "group-1"):
        await admin.post(LIST + "/1/access/remove", {"principal": principal})
        text = (await admin.get(LIST + "/1")).text
        assert ("/console/activity/cuts/1" in text) is (principal == "service-1")
        form = re.search(r'<form method="post" action="/console/network/resources/1/access">(.*?)</form>', text, re.DOTALL)
        assert form is not None
        undo = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form.group(1)))
        assert (await admin.post(LIST + "/1/access", undo)).status_code == 303
    assert await access_of(controller) == before
    assert await controller.read(settings_of) == own == [(1, "AUTO_LOCK", 7200, "AUTOMATIC", 1)]


async def test_access_that_would_have_ended_soon_cannot_come_back(controller: Running, admin: Browser) -> None:
    def fill(tx: Transaction) -> None:
        row = access.grant(tx, SYSTEM, add(tx), service_accounts.get(tx, 1, 1), tx.now_ms + DAY_MS)
        tx.access.change(row.id, expires_at_ms=tx.now_ms + 600_000)

    await controller.write(fill)
    await admin.post(LIST + "/1/access/remove", {"principal": "service-1"})
    page = (await admin.get(LIST + "/1")).text
    assert "ci may not reach it any more" in page
    assert "Undo" not in page


async def test_access_is_for_admins(controller: Running, devops: Browser) -> None:
    await controller.write(add)
    for path in ("/1/access", "/1/access/remove"):
        assert (await devops.post(LIST + path, {"principal": "service-1"})).status_code == 403
    assert (await devops.get(LIST + "/1/access")).status_code == 403
