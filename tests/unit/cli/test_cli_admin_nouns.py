"""`klinket admin`: networks, services, keys, what they reach, and `--wait`, against a controller that listens."""

from __future__ import annotations

import asyncio
import json
import os

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from klinket.controller.app import relays
from klinket.controller.trust import KeyPurpose
from klinket.domain.audit import SYSTEM
from klinket.domain.identifiers import ConnectorId
from klinket.wire import control, signing
from klinket.wire.cut_token import verify_cut
from klinket.wire.identity import ConnectorIdentity
from klinket.wire.key_file import parse_key_file
from klinket.wire.receipt_token import sign_receipt
from tests.unit.cli.conftest import Admin


async def test_networks_and_connectors_are_renamed_and_updated(admin: Admin) -> None:
    made = await admin.json("network", "create", "  of fice ", "--location", "aws")
    assert made["name"] == "of fice"
    assert (await admin.json("network", "rename", "of fice", "office"))["name"] == "office"
    changed = await admin.json("network", "update", "office", "--location", "on_premise", "--inactive")
    assert (changed["location"], changed["isActive"], changed["networkType"]) == ("ON_PREMISE", False, "REGULAR")
    await admin.ok("connector", "create", "--network", "office", "one")
    assert (await admin.json("connector", "rename", "one", "office-1"))["name"] == "office-1"
    assert (await admin.json("connector", "update", "office-1", "--no-notify"))["hasStatusNotificationsEnabled"] is False
    assert (await admin.fails("connector", "update", "office-1"))[0] == 2
    assert (await admin.fails("network", "update", "office"))[0] == 2
    told = await admin.ok("connector", "tokens", "office-1", "--out", str(admin.folder / "to kens.json"))
    assert f"klinket connector --tokens-file '{admin.folder}/to kens.json' --state DIR" in told


async def test_a_resource_takes_every_option_of_the_api(admin: Admin) -> None:
    await admin.running.add_network()
    made = await admin.json(
        "resource", "create", "db", "--network", "office", "--address", "db.internal", "--alias", "db.acme.internal",
        "--tcp", "5432,80,80,8000-8999", "--tag", "team=payments", "--tag", "env=prod", "--hidden", "--browser-shortcut",
        "--policy", await _policy(admin), "--access-policy", "auto-lock:30d", "--approval", "manual",
    )  # fmt: skip
    assert (made["tcp"], made["udp"], made["icmp"]) == ("5432,80,8000-8999", "none", False)
    assert made["tags"] == {"team": "payments", "env": "prod"}
    assert (made["visible"], made["browserShortcut"], made["approval"]) == (False, True, "MANUAL")
    assert made["accessPolicy"] == {"mode": "AUTO_LOCK", "durationSeconds": 30 * 86_400}
    assert (made["policy"], made["routing"], made["alias"]) == ("Default Policy", "THROUGH_TWINGATE", "db.acme.internal")
    await admin.running.add_network("other")
    changed = await admin.json(
        "resource", "update", "db", "--alias", "", "--no-tags", "--policy", "", "--visible", "--udp", "53",
        "--access-policy", "manual", "--network", "other", "--name", "database",
    )  # fmt: skip
    assert (changed["alias"], changed["tags"], changed["policy"], changed["visible"]) == (None, {}, None, True)
    assert (changed["tcp"], changed["udp"]) == ("5432,80,8000-8999", "53")
    assert (changed["network"], changed["name"]) == ("other", "database")
    await admin.ok("resource", "update", "database", "--tcp", "all", "--udp", "all", "--icmp")
    assert (await admin.json("resource", "update", "database", "--routing", "bypass"))["routing"] == "BYPASS_TWINGATE"


async def _policy(admin: Admin) -> str:
    assert "Default Policy" in [row["name"] for row in await admin.json("policy", "list")]
    return "Default Policy"


async def test_groups_and_services_get_and_lose_a_resource(admin: Admin) -> None:
    await admin.running.add_resource(await admin.running.add_network())
    await admin.running.add_account("ci")
    await admin.ok("group", "create", "engineers")
    granted = await admin.json(
        "resource", "grant", "Database", "--group", "engineers", "--service", "ci", "--expires", "30d",
        "--policy", "Default Policy", "--access-policy", "access-request:8h",
    )  # fmt: skip
    rows = {row["name"]: row for row in granted["access"]}
    assert (rows["engineers"]["__typename"], rows["engineers"]["policy"]) == ("Group", "Default Policy")
    assert rows["engineers"]["accessPolicy"] == {"mode": "ACCESS_REQUEST", "durationSeconds": 8 * 3600}
    assert rows["ci"]["policy"] is None
    assert rows["ci"]["expiresAt"] == (await admin.json("service", "show", "ci"))["access"][0]["expiresAt"]
    assert "Database (until " in await admin.ok("service", "show", "ci")
    left = await admin.json("resource", "ungrant", "Database", "--service", "ci")
    assert [row["name"] for row in left["access"]] == ["engineers"]
    assert (await admin.fails("resource", "grant", "Database"))[0] == 2


async def test_keys_are_listed_with_their_last_use_and_by_what_is_due(admin: Admin) -> None:
    account = await admin.running.add_account("ci")
    _, key_file = await admin.running.add_key(account, days=20, name="soon")
    await admin.running.add_key(account, days=200, name="late")
    await admin.running.add_key(await admin.running.add_account("other"), name="never")
    await admin.running.log_in(key_file)
    rows = {row["name"]: row for row in await admin.json("service", "key", "list", "--all")}
    assert set(rows) == {"soon", "late", "never"}
    assert rows["soon"]["lastUse"]["hostname"] == "runner-1"
    assert rows["soon"]["lastUse"]["address"] == "192.0.2.7"
    assert rows["soon"]["lastUse"]["clientVersion"] == "0.1.0"
    assert rows["late"]["lastUse"] is None
    assert "runner-1" in await admin.ok("service", "key", "list", "ci")
    assert [row["name"] for row in await admin.json("service", "key", "list", "--expiring", "30d")] == ["soon"]
    assert await admin.json("service", "key", "list", "--idle") == []
    admin.running.offset = 40 * 86_400.0
    assert [row["name"] for row in await admin.json("service", "key", "list", "--idle")] == ["late", "never"]
    assert [row["name"] for row in await admin.json("service", "key", "list", "ci", "--status", "expired")] == ["soon"]
    assert (await admin.fails("service", "key", "list", "ci", "--all"))[0] == 2
    assert (await admin.json("service", "key", "show", "ci", "late"))["status"] == "ACTIVE"


async def test_a_key_is_rotated_and_its_file_is_secret(admin: Admin) -> None:
    await admin.running.add_key(await admin.running.add_account("ci"))
    out = admin.folder / "new.json"
    made = await admin.json("service", "key", "rotate", "ci", "runner", "--days", "90", "--new-name", "next", "--out", str(out))
    assert made["name"] == "next"
    assert out.stat().st_mode & 0o777 == 0o600
    await admin.running.log_in(parse_key_file(out.read_text()))
    assert (await admin.json("service", "key", "show", "ci", "runner"))["status"] == "REVOKED"
    code, text = await admin.fails("service", "key", "rotate", "ci", "runner")
    assert code == 80, text


async def test_an_own_public_key_is_taken_in(admin: Admin) -> None:
    await admin.running.add_account("ci")
    pem = signing.generate_private_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    file = admin.folder / "ci.pub"
    file.write_bytes(pem)
    out = admin.folder / "key.json"
    made = await admin.json("service", "key", "register", "ci", "--public-key", str(file), "--name", "hsm", "--out", str(out))
    assert made["name"] == "hsm"
    assert json.loads(out.read_text())["key_id"] == (await admin.json("service", "key", "show", "ci", "hsm"))["keyId"]
    assert "private key" not in out.read_text().lower().replace("private_key", "")
    code, text = await admin.fails("service", "key", "register", "ci", "--public-key", str(admin.folder / "none"))
    assert code == 2
    assert "--public-key" in text


async def test_a_sink_is_made_tried_changed_and_deleted(admin: Admin) -> None:
    url = ["--url", "https://siem.example.com/klinket"]
    made = await admin.json("sink", "create", "siem", "--kind", "webhook", *url, "--stream", "audit")
    assert (made["streams"], made["where"], bool(made["secret"])) == (["AUDIT"], url[1], True)
    changed = await admin.json("sink", "update", "siem", "--disable", "--stream", "network", "--name", "log")
    assert (changed["isEnabled"], changed["streams"], changed["name"]) == (False, ["NETWORK"], "log")
    assert "log" in await admin.ok("sink", "list")
    secret = admin.folder / "password"
    secret.write_text("hunter2\n")
    mail = await admin.json(
        "sink", "create", "mail", "--kind", "smtp", "--address", "mail.example.com:465", "--sender", "klinket@example.com",
        "--recipient", "ops@example.com", "--user", "klinket", "--secret-file", str(secret), "--stream", "warnings",
    )  # fmt: skip
    assert (mail["recipients"], mail["secret"]) == (["ops@example.com"], None)
    assert (await admin.json("sink", "show", "mail"))["kind"] == "SMTP"
    assert (await admin.json("sink", "test", "mail"))["name"] == "mail"
    assert await admin.json("sink", "delete", "log") == {"ok": True}
    assert [row["name"] for row in await admin.json("sink", "list")] == ["mail"]
    assert (await admin.fails("sink", "update", "mail"))[0] == 2


async def test_sessions_are_listed_and_ended(admin: Admin) -> None:
    _, key_file = await admin.running.add_key(await admin.running.add_account("ci"))
    await admin.running.log_in(key_file)
    (one,) = await admin.json("session", "list", "--service", "ci", "--key", "runner")
    assert (one["service"], one["key"], one["hostname"]) == ("ci", "runner", "runner-1")
    ended = await admin.json("session", "end", one["id"], "--wait")
    assert ended["endedAt"]
    assert [cut["scope"] for cut in ended["cuts"]] == [f"session {one['id']}"]
    assert await admin.json("session", "list") == []
    assert len(await admin.json("session", "list", "--ended")) == 1
    assert (await admin.fails("session", "end", "nonsense"))[0] == 81


async def test_a_service_is_told_why_it_does_not_reach_an_address(admin: Admin) -> None:
    resource = await admin.running.add_resource(await admin.running.add_network())
    await admin.running.add_account("ci", [resource])
    code, text = await admin.fails("explain", "ci", "elsewhere.internal:5432")
    assert code == 68
    assert "ci does not reach elsewhere.internal:5432" in text
    told = json.loads((await admin.run("explain", "ci", "db.internal:5432", "--json")).stdout)
    assert told["resourceName"] == "Database"
    assert (await admin.fails("explain", "ci", "db.internal"))[0] == 2


async def test_cuts_are_told_by_name(admin: Admin) -> None:
    await admin.running.add_connector(await admin.running.add_network(), "office-1")
    key, _ = await admin.running.add_key(await admin.running.add_account("ci"))
    await admin.running.revoke_key(key)
    table = await admin.ok("cut", "list")
    assert "Everything reached with key runner of ci" in table
    (cut,) = await admin.json("cut", "list")
    assert cut["scope"].startswith("key key-")
    one = await admin.json("cut", "show", str(cut["id"]))
    assert one.pop("signature")
    assert one == cut
    shown = await admin.ok("cut", "show", str(cut["id"]))
    assert "API read and write and provision" in shown
    code, text = await admin.fails("cut", "show", "99")
    assert code == 81
    assert text == "Cut with id '99' does not exist (see what there is: klinket admin cut list)"


async def test_wait_shows_what_the_connector_answered(admin: Admin) -> None:
    running = admin.running
    network = await running.add_network()
    connector = await running.add_connector(network, "office-1")
    await running.add_account("ci", [await running.add_resource(network)])
    edge = await running.enrol(await running.connector_tokens(connector))
    async with running.attached(edge) as channel:
        await channel.take(control.ConnectorConfiguration)

        async def answer() -> None:
            cut = await channel.wait_for(control.Cut)
            keys = running.trust.keys[KeyPurpose.CUT]
            verified = verify_cut(cut.token, keys, network=running.trust.network, now=running.clock())
            identity, at = ConnectorIdentity(running.trust.network, ConnectorId(edge.id)), running.clock()
            token = sign_receipt(edge.key, identity, verified, [], stopped_at=at, took=0.0005)
            stopped_at_ms = round(at * 1000)
            await channel.send(control.CutReceipt(id=cut.id, stopped_at_ms=stopped_at_ms, took_ms=0.5, flows=[], token=token))

        told, _ = await asyncio.gather(admin.json("service", "ungrant", "ci", "Database", "--wait"), answer())
        assert [cut["what"] for cut in told["cuts"]] == ["Database, for ci"]
        assert [(one["connector"], one["took_ms"]) for one in told["cuts"][0]["receipts"]] == [("office-1", 0.5)]
        told, _ = await asyncio.gather(admin.ok("connector", "delete", "office-1", "--wait"), answer())
    assert "deleted connector office-1" in told
    assert "took ms" in told


@pytest.mark.parametrize(
    "words",
    [
        ["service", "key", "revoke", "ci", "runner"],
        ["service", "delete", "ci"],
        ["service", "ungrant", "ci", "Database"],
        ["resource", "ungrant", "Database", "--service", "ci"],
        ["resource", "disable", "Database"],
        ["resource", "delete", "Database"],
        ["resource", "update", "Database", "--tcp", "80"],
        ["connector", "delete", "office-1"],
    ],
    ids=" ".join,
)
async def test_wait_names_a_connector_that_does_not_answer(admin: Admin, words: list[str]) -> None:
    running = admin.running
    network = await running.add_network()
    connector = await running.add_connector(network, "office-1")
    await running.enrol(await running.connector_tokens(connector))
    account = await running.add_account("ci", [await running.add_resource(network)])
    await running.add_key(account)
    code, text = await admin.fails(*words, "--wait", "--timeout", "0.2")
    assert code == 93, text
    assert "no answer within 0.2 s from: office-1" in text
    assert "at the latest; see klinket admin cut show 1" in text


async def test_wait_says_that_there_was_nothing_to_cut(admin: Admin) -> None:
    await admin.running.add_resource(await admin.running.add_network())
    await admin.running.add_account("ci")
    assert "there was nothing to cut" in await admin.ok("service", "ungrant", "ci", "Database", "--wait")
    assert (await admin.json("service", "ungrant", "ci", "Database", "--wait"))["cuts"] == []
    assert (await admin.fails("service", "ungrant", "ci", "Database", "--timeout", "3"))[0] == 2


async def test_relays_are_listed_and_removed(admin: Admin) -> None:
    assert "klinket issue relay-token" in await admin.ok("relay", "list")
    await admin.running.write(lambda tx: relays.create_or_replace(tx, SYSTEM, name="frankfurt-1", entropy=os.urandom))
    (row,) = await admin.json("relay", "list")
    assert (row["name"], row["isOnline"]) == ("frankfurt-1", False)
    assert (await admin.json("relay", "show", "frankfurt-1"))["id"] == row["id"]
    assert "end its process" in await admin.ok("relay", "remove", "frankfurt-1")
    assert await admin.json("relay", "list") == []
    assert (await admin.fails("relay", "remove", "frankfurt-1"))[0] == 81


async def test_limits_of_a_service_are_shown_set_and_set_back(admin: Admin) -> None:
    await admin.running.add_account("ci")
    assert (await admin.json("service", "limits", "ci"))["own"] == []
    changed = await admin.json("service", "limits", "ci", "--logins-per-second", "0.5", "--max-flows", "7")
    assert (changed["loginsPerSecond"], changed["maxFlows"], changed["own"]) == (0.5, 7, ["loginsPerSecond", "maxFlows"])
    assert (await admin.json("service", "limits", "ci", "--max-flows", "default"))["own"] == ["loginsPerSecond"]
    _, text = await admin.fails("service", "limits", "ci", "--max-flows", "0")
    assert "maxFlows must be a whole number from 1" in text
    _, text = await admin.fails("service", "limits", "ci", "--login-burst", "many")
    assert text.startswith("--login-burst: ")
    _, text = await admin.fails("service", "limits", "ci", "--max-flows", "-5")
    assert "a number from 1 to 50,000, not '-5'" in text
    text = (await admin.fails("service", "limits", "ci", "--bytes-per-second", "10MB"))[1]
    assert "--bytes-per-second: not a whole number: '10MB'" in text
    lines = [line.split() for line in (await admin.ok("service", "limits", "ci")).splitlines()]
    assert ["Sessions", "at", "a", "time", "1,000", "default", "--max-sessions"] in lines
    assert ["Logins", "a", "second", "after", "that", "0.5", "for", "this", "account", "--logins-per-second"] in lines
    assert ["sessions", "now", "0"] in lines


async def test_keys_get_seats_and_canaries_are_generated(admin: Admin) -> None:
    await admin.running.add_account("ci")
    out = str(admin.folder / "ci.json")
    made = ("service", "key", "generate", "ci", "--name", "runner", "--seats", "1", "--seats-exceeded", "refuse")
    assert (await admin.json(*made, "--out", out))["name"] == "runner"
    await admin.ok("service", "key", "generate", "ci", "--name", "bait", "--canary")
    rows = {row["name"]: row for row in await admin.json("service", "key", "list", "ci")}
    assert (rows["runner"]["seats"], rows["runner"]["seatsExceeded"], rows["runner"]["isCanary"]) == (1, "REFUSE", False)
    assert (rows["bait"]["seats"], rows["bait"]["isCanary"]) == (None, True)
    changed = await admin.json("service", "key", "seats", "ci", "runner", "2")
    assert (changed["seats"], changed["seatsExceeded"]) == (2, "REFUSE")  # what is not said stays
    assert "a login beyond is refused" in await admin.ok("service", "key", "seats", "ci", "runner", "3")
    alerts = ("service", "key", "seats", "ci", "runner", "3", "--seats-exceeded", "alert")
    assert "a login beyond raises a warning" in await admin.ok(*alerts)
    assert (await admin.json("service", "key", "seats", "ci", "runner", "none"))["seats"] is None
    assert (await admin.fails("service", "key", "seats", "ci", "runner", "0"))[0] != 0
    assert (await admin.fails("service", "key", "generate", "ci", "--canary", "--seats", "1"))[0] == 2
    code, text = await admin.fails("service", "key", "generate", "ci", "--out", str(admin.folder / "nowhere" / "ci.json"))
    assert code == 2
    assert "the folder of " in text
    code, text = await admin.fails("service", "key", "generate", "ci", "--seats-exceeded", "refuse")
    assert code == 2
    assert "--seats-exceeded needs --seats" in text
