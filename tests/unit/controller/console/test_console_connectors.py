"""Network > Connectors."""

from __future__ import annotations

import html
import json
import re

import pytest

from klinket.connector import config
from klinket.controller.app import connectors, remote_networks
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ConnectorRow
from klinket.controller.console.network.deploy import slug
from klinket.domain.audit import SYSTEM, AuditAction
from klinket.wire import control
from tests.unit.controller.console.conftest import Browser
from tests.unit.controller.running import Running, everything_stored

pytestmark = pytest.mark.sqlite_only
LIST = "/network/connectors"


def add(tx: Transaction, name: str = "office-1", network: str = "office") -> ConnectorRow:
    found = tx.remote_networks.find(name=network)
    row = (
        found[0]
        if found
        else remote_networks.create(tx, SYSTEM, name=network, location="AWS", network_type="REGULAR", is_active=True)
    )
    return connectors.create(tx, SYSTEM, row, name=name, has_status_notifications=True)


def report(tx: Transaction, row: ConnectorRow, **told: object) -> None:
    tx.connectors.change(row.id, enrolled_jkt="jkt", access_token_hash=f"hash {row.id}")
    given = {"version": "1.80.0", "hostname": "gw.example", "public_ip": "198.51.100.7", "private_ips": ["10.0.0.5"], **told}
    connectors.heartbeat(tx, row.id, "jkt", **given)  # type: ignore[arg-type]


def live(tx: Transaction, row: ConnectorRow, count: int) -> None:
    event = {
        "connection": {"protocol": "tcp", "resource_port": 5432},
        "resource": {"address": "db.internal", "applied_rule": "*.internal"},
        "service_account": {"name": "ci"},
        "connector": {"name": row.name},
    }
    for number in range(count):
        tx.live_flows.add(
            connector_id=row.id, flow=f"f{number}", established_at_ms=tx.now_ms, session="s",
            service_account_id=None, service_key_id=None, resource_id=None, event=event,
        )  # fmt: skip


async def test_an_empty_list_says_the_next_step(controller: Running, admin: Browser, support: Browser) -> None:
    assert "Add remote network" in (await admin.get(LIST)).text
    await controller.write(add)
    await controller.write(lambda tx: tx.connectors.remove(name="office-1"))
    assert "Add the first one" in (await admin.get(LIST)).text
    assert "Add the first one" not in (await support.get(LIST)).text


async def test_connectors_are_found_by_name_host_and_network(controller: Running, admin: Browser) -> None:
    def fill(tx: Transaction) -> None:
        report(tx, add(tx, "alpha"), hostname="one.example")
        report(tx, add(tx, "beta", "cloud"), hostname="two.example")

    await controller.write(fill)
    for query, names in (
        ("q=ALPH", ["alpha"]),
        ("q=two", ["beta"]),
        ("network=2", ["beta"]),
        ("q=none", []),
        ("network=x", ["alpha", "beta"]),
    ):
        text = (await admin.get(f"{LIST}?{query}")).text
        assert re.findall(r'href="/console/network/connectors/\d+">(\w+)<', text) == names, query


async def test_one_is_added_and_its_tokens_are_shown_once(controller: Running, devops: Browser) -> None:
    await controller.write(add)
    added = await devops.post(LIST + "/new", {"network": "1", "name": "gate"})
    place = added.headers["location"]
    assert place == "/console/network/connectors/2/tokens"
    assert "Generate tokens" in (await devops.get(place)).text
    shown = await devops.post(place)
    assert shown.status_code == 200
    assert shown.headers["cache-control"] == "no-store"
    document = json.loads(html.unescape(re.search(r'id="tokens-text">(.*?)</code>', shown.text, re.DOTALL).group(1)))  # type: ignore[union-attr]
    found = await controller.read(lambda tx: connectors.by_tokens(tx, document["access_token"], document["refresh_token"]))
    assert found.id == 2
    assert (document["url"], document["controller_ca"]) == (controller.config.public_url, controller.authority)
    assert document["access_token"] not in (await devops.get(place)).text
    stored = everything_stored(controller.config.database)
    assert document["access_token"].encode() not in stored
    assert document["refresh_token"].encode() not in stored


async def test_the_shown_file_lets_a_connector_in_and_no_command_holds_a_token(controller: Running, admin: Browser) -> None:
    await controller.write(add)
    shown = html.unescape((await admin.post(LIST + "/1/tokens")).text)
    for text in re.findall(r"<code id=\"snippet-\w+\">(.*?)</code>", shown, re.DOTALL):
        argv = [line for line in text.splitlines() if re.search(r"docker|kubectl|klinket", line)]
        assert argv
        assert not any("access_token" in line for line in argv)
    text = re.search(r"TOKENS'\n(.*?)\nTOKENS", shown, re.DOTALL).group(1)  # type: ignore[union-attr]
    file = controller.config.state / "tokens.json"
    file.write_text(text)
    settings = config.load(file, None, None, controller.config.state / "connector")
    tokens = {"access_token": settings.access_token, "refresh_token": settings.refresh_token}
    assert settings.controller == controller.config.public_url
    enrolled = await controller.enrol(tokens)
    assert enrolled.id == 1


async def test_it_turns_healthy_on_the_page(live: Running, admin: Browser) -> None:
    await live.write(add)
    place = LIST + "/1/tokens"
    shown = html.unescape((await admin.post(place)).text)
    assert "Never connected" in shown
    document = json.loads(re.search(r'id="tokens-text">(.*?)</code>', shown, re.DOTALL).group(1))  # type: ignore[union-attr]
    enrolled = await live.enrol({name: document[name] for name in ("access_token", "refresh_token")})
    async with live.attached(enrolled) as channel:
        await channel.wait_for(control.ConnectorConfiguration)
        now = round(live.clock() * 1000)
        beat = control.Heartbeat(
            sequence=1, time_ms=now + 9_000, version="1.80.0", hostname="gw", private_ips=["10.0.0.5"], started_ms=now - 3_723_000
        )
        await channel.send(beat)
        await channel.wait_for(control.HeartbeatAnswer)
        await channel.is_alive()
        assert "Online" in (await admin.get(place)).text
        row = await live.read(lambda tx: tx.connectors.get(1))
        assert row is not None
        assert row.hostname is not None
    assert "Online" not in (await admin.get(LIST + "/1")).text


async def test_replacing_tokens_says_what_ends_and_ends_it(controller: Running, admin: Browser) -> None:
    def fill(tx: Transaction) -> None:
        row = add(tx)
        report(tx, row)
        live(tx, row, 3)

    await controller.write(fill)
    assert "The 3 live flows it carries end now" in " ".join((await admin.get(LIST + "/1/tokens")).text.split())
    await admin.post(LIST + "/1/tokens")
    cut = (await controller.read(lambda tx: tx.cuts.find()))[0]
    assert cut.scope == "connector 1"
    assert cut.actor["info"] == {"name": "admin@example.com"}


async def test_the_page_tells_state_clock_and_uptime(controller: Running, admin: Browser) -> None:
    def fill(tx: Transaction) -> None:
        row = add(tx)
        report(tx, row, time_ms=tx.now_ms - 9_000, started_ms=tx.now_ms - 3_723_000)
        live(tx, row, 12)

    await controller.write(fill)
    text = (await admin.get(LIST + "/1")).text
    assert "<code>ALIVE</code>" in text
    assert "9.0 s behind the controller" in text
    assert "198.51.100.7" in text
    assert "and 2 more live flows" in text
    assert "The 12 live flows it carries end at once" in text
    controller.offset = 60
    text = (await admin.get(LIST + "/1")).text
    assert "<code>DEAD_HEARTBEAT_TOO_OLD</code>" in text
    assert "Offline" in text


async def test_the_page_tells_whether_it_meets_clients_through_nats(live: Running, admin: Browser) -> None:
    enrolled = await live.enrol(await live.connector_tokens(await live.add_connector(await live.add_network())))
    for punches, shown in ((True, "meets clients"), (False, "turned off")):
        async with live.attached(enrolled) as channel:
            await channel.send(control.Heartbeat(sequence=1, time_ms=1, version="1.80.0", punches=punches))
            await channel.wait_for(control.HeartbeatAnswer)
            await channel.send(control.Renew())
            await channel.wait_for(control.ConnectorConfiguration)
            assert f"<dt>Through NATs</dt><dd>{shown}</dd>" in (await admin.get(f"{LIST}/{enrolled.id}")).text


async def test_one_that_is_too_old_for_services_is_explained(controller: Running, admin: Browser) -> None:
    await controller.write(lambda tx: report(tx, add(tx), version="1.0.29"))
    assert "Too old for services" in (await admin.get(LIST)).text
    text = (await admin.get(LIST + "/1")).text
    assert "version 1.0.30 or later" in text
    assert "(1.0.29)" in text


async def test_renaming_does_not_overwrite_another_admins(controller: Running, admin: Browser, devops: Browser) -> None:
    await controller.write(add)
    seen = admin.seen(await admin.get(LIST + "/1"))
    controller.offset = 1
    await controller.write(lambda tx: report(tx, connectors.get(tx, 1, 1)))
    seen = admin.seen(await admin.get(LIST + "/1"))
    controller.offset = 2
    assert (await devops.post(LIST + "/1", {"name": "theirs", "seen": seen})).status_code == 303
    second = await admin.post(LIST + "/1", {"name": "mine", "seen": seen})
    assert second.status_code == 409
    assert 'value="mine"' in second.text
    row = await controller.read(lambda tx: tx.connectors.get(1))
    assert row is not None
    assert (row.name, row.has_status_notifications) == ("theirs", False)


async def test_deleting_ends_what_it_carries_and_links_the_receipt(controller: Running, admin: Browser, support: Browser) -> None:
    await controller.write(lambda tx: report(tx, add(tx)))
    assert "Delete connector" not in (await support.get(LIST + "/1")).text
    assert (await support.post(LIST + "/1/delete")).status_code == 403
    assert (await admin.post(LIST + "/1/delete")).headers["location"] == "/console" + LIST
    text = (await admin.get(LIST)).text
    assert "Connector office-1 deleted" in text
    assert "/console/activity/cuts/1" in text
    assert (await controller.audit())[-1].action == AuditAction.DELETE.value


async def test_what_is_wrong_with_a_new_one_is_said(controller: Running, admin: Browser) -> None:
    await controller.write(add)
    assert "choose one" in (await admin.post(LIST + "/new", {"name": "x"})).text
    taken = await admin.post(LIST + "/new", {"name": "office-1", "network": "1"})
    assert taken.status_code == 409
    assert "exists already" in taken.text
    made_up = await admin.post(LIST + "/new", {"name": "", "network": "1"})
    assert made_up.status_code == 303


@pytest.mark.parametrize(("name", "plain"), [
    ("Office 1", "office-1"), ("$(rm -rf /)", "rm-rf"), ("büro", "b-ro"), ("7up", "connector-7up"), ("日本", "connector-5"),
    ("x" * 99, "x" * 40),
])  # fmt: skip
def test_names_in_commands_hold_nothing_a_shell_reads(name: str, plain: str) -> None:
    assert slug(name, 5) == plain


async def test_another_key_for_a_connector_that_has_one_is_an_admins_to_give(
    controller: Running, admin: Browser, devops: Browser
) -> None:
    connector = await controller.add_connector(await controller.add_network())
    path = "/network/connectors/1/tokens"
    assert (await devops.post(path)).status_code == 200
    await controller.enrol(await controller.connector_tokens(connector))
    assert (await devops.post(path)).status_code == 403
    assert (await controller.read(lambda tx: tx.connectors.find()))[0].enrolled_jkt is not None
    assert (await admin.post(path)).status_code == 200
    assert (await controller.last_event()).detail == {"tokens": "issued", "alarm": "connector-key-replaced"}
