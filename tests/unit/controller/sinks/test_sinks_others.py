"""Syslog over TLS, e-mail over STARTTLS, files and standard output."""

from __future__ import annotations

import asyncio
import email
import ipaddress
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from email import policy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import dictionaries, integers, sampled_from, text

from klinket.controller.app import key_hygiene, sinks
from klinket.controller.app.ports import Transaction
from klinket.controller.sinks.smtp import in_words
from klinket.controller.sinks.syslog import message
from klinket.domain.address import IPNetwork
from klinket.domain.audit import SYSTEM, AuditAction, AuditEvent
from klinket.domain.sink import SinkKind
from klinket.domain.special_ranges import SPECIAL
from klinket.net import outbound
from tests.eventually import eventually
from tests.unit.controller.running import Running
from tests.unit.controller.sinks.conftest import LOOPBACK, Receiver, made, quoted, round_of, state

FRAME = re.compile(rb"(\d+) (<(\d+)>1 (\S+) (\S+) klinket - (\S+) - \xef\xbb\xbf)")


async def test_syslog_gets_one_rfc_5424_message_an_event(controller: Running, receiver: Receiver) -> None:
    async def handle(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        receiver.got.append(await reader.read())

    async with receiver.listening(handle):
        authority = quoted(receiver.authority)
        where = f'address: "{receiver.address}", authority: {authority}'
        payload = await made(controller, f'name: "log", kind: SYSLOG, streams: [AUDIT], {where}')
        assert payload["ok"] is True, payload
        await controller.add_network("büro")
        await round_of(controller)
        assert (await state(controller))["lastError"] is None
        for _ in range(100):
            if receiver.got:
                break
            await asyncio.sleep(0.05)
    (content,) = receiver.got
    words = []
    while content:
        head = FRAME.match(content)
        assert head is not None, content[:100]
        end = head.end(1) + 1 + int(head[1])
        event = json.loads(content[head.end() : end])
        assert head[4].decode() == event["time"]
        assert int(head[3]) == 13 * 8 + 5
        words.append((head[6].decode(), event["targets"][0]["name"]))
        content = content[end:]
    assert words == [("create", "log"), ("create", "büro")]


@given(dictionaries(text(max_size=20), text(max_size=50), max_size=5), sampled_from(["create", "refuse", "a b\n"]))
def test_any_event_is_one_syslog_frame(detail: dict[str, str], action: str) -> None:
    event = {"event_type": "audit_log", "event": {"time": "2026-11-25T00:00:00+00:00", "action": action, "detail": detail}}
    frame = message(event, "host\nname")
    length, _, rest = frame.partition(b" ")
    assert int(length) == len(rest)
    assert b"\n" not in frame
    head = FRAME.match(frame)
    assert head is not None
    assert json.loads(frame[head.end() :]) == event["event"]


class MailServer:
    """Enough of SMTP (RFC 5321) with STARTTLS and AUTH PLAIN to take a message."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.commands: list[str] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        secure = False

        async def say(line: str) -> None:
            writer.write(line.encode() + b"\r\n")
            await writer.drain()

        await say("220 mail.example")
        while line := (await reader.readline()).decode().strip():
            word = line.split(" ")[0].upper()
            self.commands.append(f"{'tls' if secure else 'plain'} {line}")
            if word == "EHLO":
                await say(
                    "250-mail.example\r\n250-AUTH PLAIN\r\n250 STARTTLS" if not secure else "250-mail.example\r\n250 AUTH PLAIN"
                )
            elif word == "STARTTLS":
                await say("220 go on")
                await writer.start_tls(self.receiver.context)
                secure = True
            elif word == "AUTH":
                await say("235 welcome")
            elif word == "DATA":
                await say("354 go on")
                self.receiver.got.append(await reader.readuntil(b"\r\n.\r\n"))
                await say("250 taken")
            elif word == "QUIT":
                await say("221 bye")
                return
            else:
                await say("250 fine")


async def test_a_warning_is_mailed_in_words_over_tls_only(controller: Running, receiver: Receiver) -> None:
    server = MailServer(receiver)
    async with receiver.listening(server.handle, tls=False):
        where = f'address: "{receiver.address}", authority: {quoted(receiver.authority)}, user: "klinket", secret: "pw"'
        people = 'sender: "klinket@example.com", recipients: ["ops@example.com", "sec@example.com"]'
        payload = await made(controller, f'name: "mail", kind: SMTP, streams: [WARNINGS], {where}, {people}')
        assert payload["ok"] is True, payload
        account = await controller.add_account()
        await controller.add_key(account, 30, "runner")
        controller.offset = 24 * 86_400
        await controller.write(key_hygiene.warn_of_expiry)
        await round_of(controller)
        assert (await state(controller))["lastError"] is None
    assert [line for line in server.commands if line.startswith("plain")] == [server.commands[0], "plain STARTTLS"]
    (content,) = receiver.got
    mail = email.message_from_bytes(content, policy=policy.default)
    assert mail["To"] == "ops@example.com, sec@example.com"
    assert mail["Subject"].startswith("klinket: serviceAccountKey 'runner' of 'ci' expires within 7 days")


def audit_event(action: str, detail: dict[str, Any]) -> dict[str, Any]:
    content = {"action": action, "time": "2026-01-01T00:00:00.000Z", "source": "192.0.2.9", "detail": detail}
    target = {"type": "serviceAccountKey", "name": "k2", "serviceAccount": {"name": "ci"}}
    return {"event_type": "audit_log", "event": {**content, "targets": [target]}}


@pytest.mark.parametrize(
    ("action", "detail", "words", "severity"),
    [
        ("warn", {"code": "seats-exceeded"}, "warn seats-exceeded: serviceAccountKey 'k2' of 'ci', from 192.0.2.9", 4),
        ("alarm", {"code": "canary-key"}, "alarm canary-key: serviceAccountKey 'k2' of 'ci', from 192.0.2.9", 1),
        (
            "refuse",
            {"alarm": "connector-enrolled-elsewhere"},
            "alarm connector-enrolled-elsewhere: serviceAccountKey 'k2' of 'ci', from 192.0.2.9",
            1,
        ),
        ("refuse", {"code": "throttled"}, "refuse throttled: serviceAccountKey 'k2' of 'ci', from 192.0.2.9", 4),
    ],
)
def test_each_warning_has_words_and_a_severity_of_its_own(action: str, detail: dict[str, Any], words: str, severity: int) -> None:
    event = audit_event(action, detail)
    assert in_words(event) == words
    assert f"<{13 * 8 + severity}>".encode() in message(event, "host")


async def test_what_is_refused_with_an_alarm_is_among_the_warnings(controller: Running, receiver: Receiver) -> None:
    def refuse(tx: Transaction) -> None:
        for detail in ({"alarm": "connector-enrolled-elsewhere"}, {"code": "throttled"}):
            tx.record(AuditEvent(AuditAction.REFUSE, SYSTEM, (), detail))

    async def handle(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        receiver.got.append(await reader.read())

    async with receiver.listening(handle):
        where = f'address: "{receiver.address}", authority: {quoted(receiver.authority)}'
        await made(controller, f'name: "log", kind: SYSLOG, streams: [WARNINGS], {where}')
        await controller.write(refuse)
        await round_of(controller)
        await eventually(lambda: bool(receiver.got))
    (content,) = receiver.got
    assert content.count(b"connector-enrolled-elsewhere") == 1
    assert b"throttled" not in content


async def test_mail_is_not_sent_where_tls_is_refused(controller: Running, receiver: Receiver) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example\r\n")
        while line := await reader.readline():
            receiver.got.append(line)
            writer.write(b"250 mail.example\r\n")

    async with receiver.listening(handle, tls=False):
        where = f'address: "{receiver.address}", user: "klinket", secret: "geheim"'
        people = 'sender: "a@b.example", recipients: ["c@d.example"]'
        payload = await made(controller, f'name: "mail", kind: SMTP, streams: [AUDIT], {where}, {people}')
        assert payload["ok"] is True, payload
        await round_of(controller)
    assert "STARTTLS" in (await state(controller))["lastError"]
    assert not any(b"AUTH" in line or b"MAIL" in line for line in receiver.got)


def local(path: Path, limit: int = 65_536) -> dict[SinkKind, dict[str, Any]]:
    return {SinkKind.FILE: {"path": str(path), "max_bytes": limit, "kept_files": 2}}


async def test_the_event_file_is_appended_and_rotated(controller: Running, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    await controller.write(lambda tx: sinks.ensure_local(tx, local(path, 2_000)))
    for number in range(6):
        await controller.add_network(f"network {number}")
        await round_of(controller)
    files = sorted(tmp_path.glob("events.jsonl*"))
    assert [file.name for file in files] == ["events.jsonl", "events.jsonl.1", "events.jsonl.2"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    lines = [json.loads(line) for file in reversed(files) for line in file.read_text().splitlines()]
    numbers = [line["event"]["number"] for line in lines]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert lines[-1]["event"]["targets"][0]["name"] == "network 5"


async def test_a_file_that_cannot_be_written_is_told_and_tried_again(controller: Running, tmp_path: Path) -> None:
    await controller.write(lambda tx: sinks.ensure_local(tx, local(tmp_path / "missing" / "events.jsonl")))
    await round_of(controller)
    assert "No such file" in (await state(controller))["lastError"]
    (tmp_path / "missing").mkdir()
    controller.offset += 2
    await round_of(controller)
    assert (tmp_path / "missing" / "events.jsonl").read_text().count("\n") == 1


async def test_the_event_file_is_never_a_link(controller: Running, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("as it was")
    (tmp_path / "events.jsonl").symlink_to(tmp_path / "precious")
    await controller.write(lambda tx: sinks.ensure_local(tx, local(tmp_path / "events.jsonl")))
    await round_of(controller)
    assert (tmp_path / "precious").read_text() == "as it was"
    assert (await state(controller))["attempts"] == 1


async def test_an_option_that_is_left_out_takes_its_sink_away(controller: Running, tmp_path: Path) -> None:
    await controller.write(lambda tx: sinks.ensure_local(tx, {**local(tmp_path / "a"), SinkKind.STDOUT: {}}))
    assert len(await controller.read(lambda tx: tx.sinks.find())) == 2
    await controller.write(lambda tx: sinks.ensure_local(tx, {SinkKind.STDOUT: {}}))
    (left,) = await controller.read(lambda tx: tx.sinks.find())
    assert left.kind == "stdout"
    before = len(await controller.audit())
    await controller.write(lambda tx: sinks.ensure_local(tx, {SinkKind.STDOUT: {}}))
    assert len(await controller.audit()) == before


async def test_standard_output_gets_json_lines(controller: Running, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    await controller.write(lambda tx: sinks.ensure_local(tx, {SinkKind.STDOUT: {}}))
    await round_of(controller)
    lines = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [line["event_type"] for line in lines] == ["audit_log"]


def test_a_peer_that_drips_is_cut_off() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TimeoutError, match="longer than"), outbound.bounded(ours, 0.2):
        ours.settimeout(10)
        begun = time.monotonic()
        while time.monotonic() - begun < 10:
            if not ours.recv(1):
                raise ConnectionResetError("ended")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("10.0.0.1", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("168.63.129.16", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fd00::1", False),
        ("fe80::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("::127.0.0.1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b::808:808", True),
        ("2002:7f00:1::", False),
        ("fec0::1", False),
        ("64:ff9b:1::808:808", False),
        ("2a00::5efe:7f00:1", False),
        ("2a00::200:5efe:a9fe:a9fe", False),
        ("2a00::5efe:808:808", True),
        ("2001:0:808:808::80ff:fffe", False),
        ("::ffff:0:127.0.0.1", False),
        ("::ffff:0:8.8.8.8", False),
        ("3fff::1", False),
        ("5f00::1", False),
        ("1::1", False),
        ("4000::1", False),
    ],
)
def test_what_is_public(address: str, public: bool) -> None:
    assert outbound.is_public(ipaddress.ip_address(address)) is public


@given(sampled_from(SPECIAL), integers(0, 2**128 - 1), sampled_from(["plain", "mapped", "nat64", "isatap"]))
def test_nothing_special_is_public_in_any_form(network: IPNetwork, number: int, form: str) -> None:
    address = network[number % network.num_addresses]
    if isinstance(address, ipaddress.IPv4Address):
        around = {"mapped": 0xFFFF << 32, "nat64": 0x64FF9B << 96, "isatap": (0x2A00 << 112) | (0x5EFE << 32)}
        if form in around:
            address = ipaddress.IPv6Address(around[form] | int(address))
    assert not outbound.is_public(address)


def _names(monkeypatch: pytest.MonkeyPatch, found: Callable[[], Any]) -> None:
    monkeypatch.setattr(outbound.socket, "getaddrinfo", lambda *_, **__: found())


def test_all_addresses_of_a_name_share_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    # A listener whose queue is full drops further SYNs: as silent as a host that is not there.
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        silent = (socket.AF_INET, socket.SOCK_STREAM, 0, "", full.getsockname())
        _names(monkeypatch, lambda: [silent] * 100)
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            outbound.dial("silent.example", 443, LOOPBACK, 0.5)
        assert time.monotonic() - begun < 5, "not 100 times 5 s"


def test_a_look_up_that_does_not_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    _names(monkeypatch, lambda: ended.wait(30) and [])
    try:
        with pytest.raises(TimeoutError, match="look-up"):
            outbound.dial("slow.example", 443, LOOPBACK, 0.2)
    finally:
        ended.set()


def test_a_handshake_that_does_not_end_is_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            outbound.dial_tls("127.0.0.1", mute.getsockname()[1], LOOPBACK, None, 0.5)
        assert time.monotonic() - begun < outbound.IDLE_SECONDS, "it is the deadline that ends it"
