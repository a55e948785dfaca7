"""Settings: API tokens, network, relays, sinks, certificates and keys."""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path

import pytest
from cryptography import x509

from klinket.controller.app import api_tokens, relays
from klinket.controller.app.rows import ApiTokenRow, RelayRow, SinkRow
from klinket.controller.app.signing_keys import PUBLISHED_MS
from klinket.controller.console.settings import network
from klinket.controller.relay_process import NAME as OWN_RELAY
from klinket.controller.trust import KeyPurpose
from klinket.domain.audit import SYSTEM
from klinket.net.sockets import HostPort
from tests.unit.controller.console.conftest import Browser
from tests.unit.controller.running import Running

pytestmark = pytest.mark.sqlite_only
TOKENS, RELAYS, SINKS, TRUST = "/settings/api-tokens", "/settings/relays", "/settings/sinks", "/settings/trust"
WEBHOOK = {"name": "SIEM", "url": "https://siem.example.com/events", "streams": "audit"}


# ---- API tokens


async def token_named(controller: Running, name: str) -> ApiTokenRow:
    (row,) = await controller.read(lambda tx: tx.api_tokens.find(name=name))
    return row


async def test_a_token_is_shown_once_and_opens_the_api(controller: Running, admin: Browser) -> None:
    ranges = "192.0.2.0/24\n2001:db8::/32"
    sent = {"name": "report", "scope": "read", "expirationTime": "30", "allowedRanges": ranges}
    answer = await admin.post(TOKENS + "/new", sent)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    text = re.search(r'id="token">(kl_[^<]+)<', answer.text)
    assert text is not None
    row = await token_named(controller, "report")
    assert row.allowed_ranges == ["192.0.2.0/24", "2001:db8::/32"]
    assert row.scopes == ["read"]
    assert row.expires_at_ms is not None
    used = await controller.post("/api/graphql/", {"query": "{ __typename }"}, headers={"X-API-KEY": text.group(1)})
    assert used.status_code == 200
    assert text.group(1) not in (await admin.get(f"{TOKENS}/{row.id}")).text
    again = await admin.post(TOKENS + "/new", sent)  # as when the answer is loaded again
    assert again.status_code == 409
    assert text.group(1).encode() not in controller.everything_stored()


async def test_a_token_is_disabled_enabled_changed_and_deleted(controller: Running, admin: Browser) -> None:
    await admin.post(TOKENS + "/new", {"name": "report", "scope": "provision", "expirationTime": "0", "allowedRanges": ""})
    row = await token_named(controller, "report")
    place = f"{TOKENS}/{row.id}"
    await admin.post(place + "/disable")
    page = await admin.get(place)
    assert "Disabled" in page.text
    assert "Undo" in page.text
    await admin.post(place + "/enable")
    page = await admin.get(place)
    fields = {"name": "weekly", "scope": "read", "allowedRanges": "192.0.2.7, 192.0.2.8", "seen": admin.seen(page)}
    assert (await admin.post(place, fields)).status_code == 303
    changed = await token_named(controller, "weekly")
    assert (changed.scopes, changed.allowed_ranges) == (["read"], ["192.0.2.7/32", "192.0.2.8/32"])
    assert (await admin.post(place, fields)).status_code == 409  # what was seen is not what is there any more
    await admin.post(place + "/delete")
    assert await controller.read(lambda tx: tx.api_tokens.find(name="weekly")) == []


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"allowedRanges": "192.0.2.1/24"}, "192.0.2.1/24"),
        ({"expirationTime": "400"}, "0 (never) to 365"),
        ({"scope": "x"}, "scopes"),
    ],
)
async def test_what_is_wrong_with_a_token_is_said(admin: Browser, wrong: dict[str, str], told: str) -> None:
    sent = {"name": "report", "scope": "read", "expirationTime": "30", "allowedRanges": "", **wrong}
    answer = await admin.post(TOKENS + "/new", sent)
    assert answer.status_code == 400
    assert told in answer.text
    assert 'value="report"' in answer.text


async def test_tokens_are_made_only_by_who_has_just_proved_who_they_are(controller: Running, admin: Browser) -> None:
    await controller.write(lambda tx: [tx.console_sessions.change(row.id, proved_at_ms=0) for row in tx.console_sessions.find()])
    for path in (TOKENS + "/new", RELAYS + "/new", "/team/users/new"):
        for answer in (await admin.get(path), await admin.post(path, {"name": "x"})):
            assert answer.headers["location"].startswith("/console/prove"), path
    assert await controller.read(lambda tx: tx.api_tokens.find(name="x")) == []


# ---- network


async def test_the_network_page_says_what_is_set_by_which_option(controller: Running, support: Browser) -> None:
    text = (await support.get("/settings/network")).text
    for shown in (controller.config.public_url, "--public-url", "--grant-seconds", "2 min", "--flow-days", "30 days"):
        assert shown in text, shown
    assert str(controller.config.state) not in text


def test_every_option_that_the_network_page_names_exists() -> None:
    from klinket.cli.controller import controller as command

    known = {word for parameter in command.params for word in parameter.opts}
    config = network.ControllerConfig(
        network="acme", state=Path("/x"), listen=HostPort("127.0.0.1", 1), public_url="https://x.example"
    )
    named = {word for listed in network.settings_of(config).values() for one in listed for word in one.option.split(", ") if word}
    assert named <= known
    assert len(named) > 10


# ---- relays


async def relay_named(controller: Running, name: str) -> RelayRow:
    (row,) = await controller.read(lambda tx: tx.relays.find(name=name))
    return row


def relay_token(text: str) -> str:
    found = re.search(r'id="token">(kl_relay_[^<]+)<', text)
    assert found is not None
    return found.group(1)


async def test_a_relay_gets_a_token_once_with_what_starts_it(controller: Running, admin: Browser) -> None:
    answer = await admin.post(RELAYS + "/new", {"name": "frankfurt-1"})
    token, row = relay_token(answer.text), await relay_named(controller, "frankfurt-1")
    assert (await controller.read(lambda tx: relays.by_token(tx, token))).id == row.id
    assert f"klinket relay --controller {controller.config.public_url} --ca controller-ca.pem" in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert token not in (await admin.get(f"{RELAYS}/{row.id}")).text
    assert "Never seen" in (await admin.get(RELAYS)).text
    assert (await admin.post(RELAYS + "/new", {"name": "frankfurt-1"})).status_code == 409


async def test_a_token_is_replaced_once_however_often_the_answer_is_loaded(controller: Running, admin: Browser) -> None:
    first = relay_token((await admin.post(RELAYS + "/new", {"name": "one"})).text)
    row = await relay_named(controller, "one")
    seen = {"seen": str(row.updated_at_ms)}
    controller.offset = 1
    second = relay_token((await admin.post(f"{RELAYS}/{row.id}/token", seen)).text)
    assert first != second
    assert (await admin.post(f"{RELAYS}/{row.id}/token", seen)).status_code == 409
    assert (await controller.read(lambda tx: relays.by_token(tx, second))).id == row.id


async def test_a_relay_is_removed(controller: Running, admin: Browser) -> None:
    await admin.post(RELAYS + "/new", {"name": "one"})
    row = await relay_named(controller, "one")
    assert "nobody will reach anything over a relay" in (await admin.get(f"{RELAYS}/{row.id}")).text
    assert (await admin.post(f"{RELAYS}/{row.id}/delete")).headers["location"] == "/console" + RELAYS
    assert await controller.read(lambda tx: tx.relays.count()) == 0


async def test_the_relay_that_the_controller_runs_stays(controller: Running, admin: Browser) -> None:
    object.__setattr__(controller.config, "relay", HostPort("127.0.0.1", 8444))
    row = (await controller.write(lambda tx: relays.create(tx, SYSTEM, name=OWN_RELAY, entropy=os.urandom)))[0]
    page = await admin.get(f"{RELAYS}/{row.id}")
    assert "The controller runs this relay itself" in page.text
    for path in ("/delete", "/token"):
        answer = await admin.post(f"{RELAYS}/{row.id}{path}", {"seen": str(row.updated_at_ms)})
        assert answer.status_code == 409, path


# ---- sinks


async def sink_named(controller: Running, name: str) -> SinkRow:
    (row,) = await controller.read(lambda tx: tx.sinks.find(name=name))
    return row


async def test_a_webhook_gets_a_secret_that_is_shown_once(controller: Running, admin: Browser) -> None:
    answer = await admin.post(SINKS + "/new/webhook", {**WEBHOOK, "secret": "", "authority": ""})
    found = re.search(r'id="secret">([0-9a-f]{48})<', answer.text)
    assert found is not None
    row = await sink_named(controller, "SIEM")
    assert row.sealed_secret is not None
    assert controller.master.open(row.sealed_secret, "sink secret").decode() == found.group(1)
    for path in (SINKS, f"{SINKS}/{row.id}"):
        assert found.group(1) not in (await admin.get(path)).text


async def test_sinks_of_every_kind_are_made(controller: Running, admin: Browser) -> None:
    syslog = {"name": "logs", "address": "logs.example.com:6514", "streams": "network"}
    mail = {
        "name": "mail", "address": "mail.example.com:587", "sender": "klinket@example.com", "user": "klinket",
        "recipients": "a@example.com\nb@example.com", "streams": "warnings", "secret": "a password",
    }  # fmt: skip
    assert (await admin.post(SINKS + "/new/syslog", syslog)).status_code == 303
    assert (await admin.post(SINKS + "/new/smtp", mail)).status_code == 303
    row = await sink_named(controller, "mail")
    assert row.settings["recipients"] == ["a@example.com", "b@example.com"]
    page = (await admin.get(f"{SINKS}/{row.id}")).text
    assert "a password" not in page
    assert "Kept as it is unless you type a new one" in page
    assert (await admin.get(SINKS + "/new/file")).status_code == 404


async def test_a_changed_receiver_loses_the_secret_and_the_page_says_so(controller: Running, admin: Browser) -> None:
    await admin.post(SINKS + "/new/webhook", {**WEBHOOK, "secret": "a secret of 16 or more"})
    row = await sink_named(controller, "SIEM")
    fields = {**WEBHOOK, "streams": "network", "seen": str(row.updated_at_ms)}
    await admin.post(f"{SINKS}/{row.id}", fields)
    changed = await sink_named(controller, "SIEM")
    assert changed.streams == ["network"]
    assert changed.sealed_secret == row.sealed_secret
    fields = {**WEBHOOK, "url": "https://other.example.com/", "seen": str(changed.updated_at_ms)}
    await admin.post(f"{SINKS}/{row.id}", fields)
    assert "give it again" in (await admin.get(f"{SINKS}/{row.id}")).text
    assert (await sink_named(controller, "SIEM")).sealed_secret is None


async def test_a_sink_is_tested_disabled_enabled_and_deleted(controller: Running, admin: Browser) -> None:
    await admin.post(SINKS + "/new/webhook", {**WEBHOOK, "secret": "a secret of 16 or more"})
    place = f"{SINKS}/{(await sink_named(controller, 'SIEM')).id}"
    await admin.post(place + "/test")
    assert (await controller.last_event()).detail == {"test": True}
    page = (await admin.get(place)).text
    assert "2 events" in page  # its own creation, and the test
    await admin.post(place + "/disable")
    assert "Undo" in (await admin.get(place)).text
    assert (await admin.post(place + "/test")).status_code == 400
    await admin.post(place + "/enable")
    assert (await sink_named(controller, "SIEM")).is_enabled
    await admin.post(place + "/delete")
    assert await controller.read(lambda tx: tx.sinks.count()) == 0


async def test_a_failing_sink_shows_why(controller: Running, admin: Browser) -> None:
    await admin.post(SINKS + "/new/webhook", {**WEBHOOK, "secret": "a secret of 16 or more"})
    row = await sink_named(controller, "SIEM")
    await controller.write(lambda tx: tx.sinks.change(row.id, attempts=3, last_error="certificate <expired>"))
    page = (await admin.get(f"{SINKS}/{row.id}")).text
    assert "Failing" in page
    assert "certificate &lt;expired&gt;" in page


@pytest.mark.parametrize(
    ("kind", "wrong", "field"),
    [
        ("webhook", {"url": "http://siem.example.com/"}, "url"),
        ("webhook", {"secret": "short"}, "secret"),
        ("syslog", {"address": "logs"}, "address"),
        ("smtp", {"address": "m.example:25", "sender": "nobody"}, "sender"),
        ("syslog", {"address": "l.example:1", "streams": ""}, "streams"),
    ],
)
async def test_what_is_wrong_with_a_sink_is_said(admin: Browser, kind: str, wrong: dict[str, str], field: str) -> None:
    sent = {"name": "one", "url": "https://x.example/", "streams": "audit", "recipients": "a@example.com", **wrong}
    answer = await admin.post(f"{SINKS}/new/{kind}", sent)
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert f'name="{field}"' in answer.text
    assert 'value="one"' in answer.text


async def test_only_admins_see_tokens_and_sinks(devops: Browser, support: Browser) -> None:
    for browser in (devops, support):
        for path in (TOKENS, SINKS):
            assert (await browser.get(path)).status_code == 403


# ---- certificates and keys


async def test_authorities_and_public_keys_are_shown_and_downloaded(controller: Running, support: Browser) -> None:
    text = (await support.get(TRUST)).text
    assert "Rotate" not in text
    for purpose, authority in controller.trust.authorities.items():
        answer = await support.get(f"{TRUST}/authorities/{purpose.value}")
        assert x509.load_pem_x509_certificate(answer.content) == authority.certificate
        assert "PRIVATE" not in answer.text
        assert answer.headers["content-disposition"].startswith("attachment")
    answer = await support.get(TRUST + "/keys.json")
    assert json.loads(answer.text) == controller.trust.jwks()
    assert '"d"' not in answer.text
    assert (await support.get(TRUST + "/authorities/x")).status_code == 404


async def test_a_key_is_rotated_by_a_button_while_everything_runs(live: Running, admin: Browser) -> None:
    before = live.trust.signers[KeyPurpose.GRANT].kid
    answer = await admin.post(f"{TRUST}/keys/grant/rotate")
    assert answer.headers["location"] == "/console" + TRUST
    page = (await admin.get(TRUST)).text
    assert "signs in 5 min" in page
    assert "Signs soon" in page
    assert (await admin.post(f"{TRUST}/keys/grant/rotate")).status_code == 409
    async with asyncio.timeout(10):
        while len(live.trust.keys[KeyPurpose.GRANT]) < 2:
            await asyncio.sleep(0.02)
    assert live.trust.signers[KeyPurpose.GRANT].kid == before
    live.offset = PUBLISHED_MS / 1000 + 1
    assert live.trust.signers[KeyPurpose.GRANT].kid != before
    assert "Verifies" in (await admin.get(TRUST)).text
    event = await live.last_event()
    assert (event.targets[0]["type"], event.actor["info"]) == ("signingKey", {"name": "admin@example.com"})


async def test_an_unknown_purpose_is_refused(admin: Browser) -> None:
    assert (await admin.post(f"{TRUST}/keys/coffee/rotate")).status_code == 400


def test_scopes_of_the_form_are_those_of_tokens() -> None:
    from klinket.controller.console.settings.api_tokens import SCOPES

    assert tuple(SCOPES) == api_tokens.ALL_SCOPES
