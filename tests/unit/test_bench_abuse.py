"""What `./dev bench abuse` sends to the console, and that it stays on loopback."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import parse_qs

import pytest

from bench import abuse, abuse_attacks, abuse_console
from bench.abuse_attacks import ATTACKS, Attack

URL = "https://127.0.0.1:8443"


def test_every_row_has_its_attack_and_every_attack_its_row() -> None:
    assert {row.attack for row in abuse.ROWS if row.attack} == set(ATTACKS)


def test_a_guess_is_a_whole_form_of_somebody_there_is_every_other_time() -> None:
    sent = [abuse_console.guess(URL, number) for number in range(4)]
    emails = []
    for one in sent:
        head, body = one.split(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        emails.append(parse_qs(body.decode())["email"][0])
    assert emails[1] == emails[3] == abuse_console.EMAIL
    assert len(set(emails)) == 3


@pytest.mark.parametrize("source", [abuse.ATTACKER, abuse.HONEST])
async def test_attackers_dial_loopback_only_from_loopback(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    dialled: list[Any] = []

    async def note(host: str, port: int, **given: Any) -> None:
        dialled.extend([host, given["local_addr"][0]])

    monkeypatch.setattr(abuse_attacks.asyncio, "open_connection", note)
    await Attack({"controller": 1}, source, 1.0, {}).dial("controller")
    assert all(socket.inet_aton(one)[0] == 127 for one in dialled)
