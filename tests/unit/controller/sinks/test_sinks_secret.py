"""A sink's secret is for the place it was given for: whoever may edit sinks cannot have it sent elsewhere."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from klinket.domain.audit import AuditAction
from tests.unit.controller.running import Running
from tests.unit.controller.sinks.conftest import Receiver, made, quoted, round_of, state
from tests.unit.controller.sinks.test_sinks_others import MailServer

PEOPLE = 'sender: "a@b.example", recipients: ["c@d.example"]'
AUTHORITY = quoted(Receiver().authority)
MAIL = f'name: "s", kind: SMTP, streams: [AUDIT], address: "m.example:587", user: "ops", secret: "the-password", {PEOPLE}'
HOOK = 'name: "s", kind: WEBHOOK, streams: [AUDIT], url: "https://a.example/hook?key=in-the-url", secret: "the-shared-secret"'


async def changed(controller: Running, arguments: str) -> dict[str, Any]:
    id = (await state(controller))["id"]
    query = f"mutation {{ sinkUpdate(id: {quoted(id)}, {arguments}) {{ ok error entity {{ lastError }} }} }}"
    (payload,) = (await controller.query(query, extension=True)).values()
    assert payload["ok"] is True, payload
    return dict(payload["entity"])


async def sealed(controller: Running) -> bytes | None:
    (row,) = await controller.read(lambda tx: tx.sinks.find())
    return row.sealed_secret


@pytest.mark.parametrize(
    ("sink", "change"),
    [
        (MAIL, 'address: "evil.example:587"'),
        (MAIL, 'address: "m.example:465"'),
        (MAIL, 'user: "other"'),
        (MAIL, f"authority: {AUTHORITY}"),
        (HOOK, 'url: "https://evil.example/hook?key=in-the-url"'),
        (HOOK, 'url: "https://a.example/elsewhere"'),
        (HOOK, f"authority: {AUTHORITY}"),
    ],
)
async def test_a_sink_that_goes_elsewhere_loses_its_secret_and_says_so(controller: Running, sink: str, change: str) -> None:
    assert (await made(controller, sink))["ok"] is True
    assert "sinkUpdate(id: ..., secret: ...)" in (await changed(controller, change))["lastError"]
    assert await sealed(controller) is None
    assert (await controller.audit())[-1].detail["secret"] == "dropped"
    await round_of(controller)
    told = await state(controller)
    assert (told["attempts"], "the sink has no secret" in told["lastError"]) == (1, True), "nothing is sent without one"


@pytest.mark.parametrize(
    ("sink", "change"),
    [
        (MAIL, 'name: "other", isEnabled: false'),
        (MAIL, 'address: "m.example:587", user: "ops", recipients: ["x@d.example"]'),
        (HOOK, "streams: [NETWORK]"),
    ],
)
async def test_other_changes_keep_it(controller: Running, sink: str, change: str) -> None:
    await made(controller, sink)
    before = await sealed(controller)
    await changed(controller, change)
    assert before is not None
    assert await sealed(controller) == before


async def test_a_secret_that_is_given_again_goes_to_the_new_place(controller: Running, receiver: Receiver) -> None:
    server = MailServer(receiver)
    await made(controller, MAIL)
    async with receiver.listening(server.handle, tls=False):
        there = f'address: "{receiver.address}", authority: {quoted(receiver.authority)}'
        await changed(controller, there)
        await round_of(controller)
        assert server.commands == [], "a new place gets no word before it has a secret of its own"
        await changed(controller, 'secret: "another"')
        await round_of(controller)
        assert (await state(controller))["lastError"] is None
    assert any("AUTH" in line for line in server.commands)
    assert len(receiver.got) == 1


async def test_the_audit_tells_where_a_sink_went_and_no_secret(controller: Running) -> None:
    await made(controller, HOOK)
    await changed(
        controller, f'url: "https://b.example/hook?key=in-the-url", authority: {AUTHORITY}, secret: "another-shared-secret"'
    )
    event = (await controller.audit())[-1]
    assert event.action == AuditAction.EDIT.value
    (target,) = event.targets
    before, after = event.detail["before"]["where"], target["where"]
    assert before.startswith("https://a.example (")
    assert after.startswith("https://b.example (")
    assert "hook" not in before + after
    (row,) = await controller.read(lambda tx: tx.sinks.find())
    assert event.detail["before"]["authoritySha256"] is None
    assert target["authoritySha256"] == hashlib.sha256(row.settings["authority"].encode()).hexdigest()
    assert event.detail["secret"] == "given"
    for word in ("in-the-url", "shared-secret", "CERTIFICATE"):
        assert word not in repr((event.targets, event.detail))
