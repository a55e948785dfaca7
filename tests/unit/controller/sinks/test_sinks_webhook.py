"""Webhooks: signed, in order, at least once, never to private ranges that nobody listed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from klinket.controller.sinks.webhook import signature
from tests.unit.controller.running import Running
from tests.unit.controller.sinks.conftest import Receiver, made, quoted, round_of, state

SECRET = "0123456789abcdef"


class Hook:
    """Answers each POST with the next status, and keeps head and body."""

    def __init__(self, receiver: Receiver, *statuses: int) -> None:
        self.receiver = receiver
        self.statuses = list(statuses)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in head.split("\r\n")[1:]}
        body = await reader.readexactly(int(headers["content-length"]))
        self.receiver.got.append((head.split(" ")[1], headers, body))
        status = self.statuses.pop(0) if self.statuses else 204
        location = "Location: https://elsewhere.example\r\n" if status == 302 else ""
        writer.write(f"HTTP/1.1 {status} X\r\n{location}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()

    def events(self) -> list[dict[str, Any]]:
        return [event for _, _, body in self.receiver.got for event in json.loads(body)["events"]]


async def webhook(controller: Running, receiver: Receiver, streams: str = "[AUDIT]", more: str = "") -> dict[str, Any]:
    where = f"url: {quoted(f'https://{receiver.address}/hook?x=1')}, authority: {quoted(receiver.authority)}"
    return await made(controller, f'name: "siem", kind: WEBHOOK, streams: {streams}, {where}, secret: "{SECRET}"{more}')


async def test_what_happens_from_now_on_is_delivered_signed(controller: Running, receiver: Receiver) -> None:
    await controller.add_network("before")
    hook = Hook(receiver)
    async with receiver.listening(hook.handle):
        payload = await webhook(controller, receiver)
        assert payload["ok"] is True, payload
        assert payload["secret"] is None
        await controller.add_network("after")
        await round_of(controller)
        await round_of(controller)
    ((path, headers, body),) = receiver.got
    assert path == "/hook?x=1"
    assert headers["klinket-signature"] == signature(SECRET.encode(), headers["klinket-timestamp"], body)
    events = [event["event"] for event in hook.events()]
    assert [(event["action"], event["targets"][0]["type"]) for event in events] == [
        ("create", "sink"),
        ("create", "remoteNetwork"),
    ]
    assert events[1]["previous"] == events[0]["digest"]
    assert SECRET.encode() not in body
    assert (await state(controller))["waiting"] == 0
    assert SECRET.encode() not in controller.everything_stored()


async def test_a_failed_delivery_is_repeated_later_and_nothing_is_lost(controller: Running, receiver: Receiver) -> None:
    hook = Hook(receiver, 500)
    async with receiver.listening(hook.handle):
        await webhook(controller, receiver)
        await round_of(controller)
        failed = await state(controller)
        assert failed["attempts"] == 1
        assert "answered 500" in failed["lastError"]
        assert failed["nextTryAt"] is not None
        await round_of(controller)
        assert len(receiver.got) == 1, "it waits before it tries again"
        controller.offset += 2
        await controller.add_network()
        await round_of(controller)
    assert [body["event"]["targets"][0]["type"] for body in hook.events()] == ["sink", "sink", "remoteNetwork"]
    good = await state(controller)
    assert (good["attempts"], good["lastError"], good["waiting"]) == (0, None, 0)


async def test_a_receiver_that_is_away_does_not_hold_up_the_next_one(controller: Running, receiver: Receiver) -> None:
    hook = Hook(receiver)
    await made(
        controller, 'name: "away", kind: WEBHOOK, streams: [AUDIT], url: "https://127.0.0.1:9/", secret: "0123456789abcdef"'
    )
    async with receiver.listening(hook.handle):
        await webhook(controller, receiver)
        await round_of(controller)
    assert len(receiver.got) == 1


async def test_a_redirect_is_not_followed(controller: Running, receiver: Receiver) -> None:
    async with receiver.listening(Hook(receiver, 302).handle):
        await webhook(controller, receiver)
        await round_of(controller)
    assert "answered 302" in (await state(controller))["lastError"]
    assert len(receiver.got) == 1


async def test_a_receiver_that_does_not_prove_who_it_is_gets_nothing(controller: Running, receiver: Receiver) -> None:
    async with receiver.listening(Hook(receiver).handle):
        other = quoted(Receiver().authority)
        await made(
            controller,
            f'name: "siem", kind: WEBHOOK, streams: [AUDIT], url: "https://{receiver.address}/", authority: {other}, '
            'secret: "0123456789abcdef"',
        )
        await round_of(controller)
    assert "CERTIFICATE_VERIFY_FAILED" in (await state(controller))["lastError"]
    assert receiver.got == []


async def test_private_ranges_are_refused_unless_they_are_listed(controller: Running, receiver: Receiver) -> None:
    async with receiver.listening(Hook(receiver).handle):
        await webhook(controller, receiver)
        await round_of(controller, allowed=())
    assert "127.0.0.1, which is not public" in (await state(controller))["lastError"]
    assert receiver.got == []


async def test_warnings_alone(controller: Running, receiver: Receiver) -> None:
    hook = Hook(receiver)
    async with receiver.listening(hook.handle):
        payload = await webhook(controller, receiver, "[WARNINGS]")
        await controller.add_network()
        await round_of(controller)
        assert receiver.got == []
        assert (await state(controller))["waiting"] == 0
        await controller.query("mutation ($s: ID!) { sinkTest(id: $s) { ok } }", extension=True, s=payload["entity"]["id"])
        await round_of(controller)
    assert [event["event"]["detail"] for event in hook.events()] == [{"test": True}]


async def test_a_secret_is_made_up_and_shown_once(controller: Running) -> None:
    payload = await made(controller, 'name: "siem", kind: WEBHOOK, streams: [AUDIT, NETWORK], url: "https://hooks.example.com/"')
    assert len(payload["secret"]) == 48
    assert payload["entity"]["streams"] == ["AUDIT", "NETWORK"]
    assert payload["secret"].encode() not in controller.everything_stored()


async def test_a_disabled_sink_gets_what_it_missed_when_it_is_enabled(controller: Running, receiver: Receiver) -> None:
    hook = Hook(receiver)
    change = "mutation ($s: ID!, $e: Boolean) { sinkUpdate(id: $s, isEnabled: $e) { ok error } }"
    async with receiver.listening(hook.handle):
        id = (await webhook(controller, receiver))["entity"]["id"]
        await controller.query(change, extension=True, s=id, e=False)
        await round_of(controller)
        assert receiver.got == []
        await controller.query(change, extension=True, s=id, e=True)
        await round_of(controller)
    assert len(hook.events()) == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ('name: "", kind: WEBHOOK, streams: [AUDIT], url: "https://a.example/"', "name"),
        ('name: "x", kind: WEBHOOK, streams: [], url: "https://a.example/"', "at least one"),
        ('name: "x", kind: WEBHOOK, streams: [AUDIT]', "url is needed"),
        ('name: "x", kind: WEBHOOK, streams: [AUDIT], url: "http://a.example/"', "must be https"),
        ('name: "x", kind: WEBHOOK, streams: [AUDIT], url: "https://user:pw@a.example/"', "without a name or password"),
        ('name: "x", kind: WEBHOOK, streams: [AUDIT], url: "https://a.example:99999/"', "not a URL"),
        ('name: "x", kind: WEBHOOK, streams: [AUDIT], url: "https://[bad"', "not a URL"),
        ('name: "x", kind: WEBHOOK, streams: [AUDIT], url: "https://a.example/\\n"', "control characters"),
        ('name: "x", kind: WEBHOOK, streams: [AUDIT], url: "https://a.example/", secret: "short"', "secret is 16 to 500"),
        ('name: "x", kind: WEBHOOK, streams: [AUDIT], url: "https://a.example/", authority: "nonsense"', "PEM"),
        ('name: "x", kind: SYSLOG, streams: [AUDIT], address: "logs.example"', "HOST:PORT"),
        ('name: "x", kind: SYSLOG, streams: [AUDIT], address: "logs.example:0"', "HOST:PORT"),
        ('name: "x", kind: SMTP, streams: [WARNINGS], address: "m.example:587", sender: "a@b.example"', "recipients"),
        (
            'name: "x", kind: SMTP, streams: [WARNINGS], address: "m.example:587", sender: "a@b.example\\r\\nBcc: c", '
            'recipients: ["d@e.example"]',
            "control characters",
        ),
        ('name: "x", kind: FILE, streams: [AUDIT]', "klinket controller"),
        ('name: "x", kind: STDOUT, streams: [AUDIT]', "klinket controller"),
    ],
)
async def test_what_is_no_sink_is_refused_by_name(controller: Running, arguments: str, told: str) -> None:
    payload = await made(controller, arguments)
    assert payload["ok"] is False
    assert told in payload["error"]
    assert await controller.read(lambda tx: tx.sinks.find()) == []


async def test_two_sinks_have_two_names(controller: Running) -> None:
    one = 'name: "siem", kind: WEBHOOK, streams: [AUDIT], url: "https://a.example/"'
    await made(controller, one)
    assert (await made(controller, one))["error"] == "a sink with this name exists already"
