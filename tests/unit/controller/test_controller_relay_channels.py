"""The controller's end of a relay's channel: a token first; reports are stored and answered with the ticket keys."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from websockets.exceptions import ConnectionClosed

from klinket.controller.app import relays, signing_keys, snapshot
from klinket.controller.app.rows import RelayRow
from klinket.controller.app.store_errors import StoreOverloaded
from klinket.controller.trust import KeyPurpose
from klinket.domain.audit import SYSTEM
from klinket.domain.errors import Conflict, ControllerUnreachable
from klinket.net.channel import controller_context
from klinket.net.clock import PeerClock
from klinket.net.sockets import HostPort
from klinket.relay.channel import keep_channel
from klinket.relay.config import RelayConfig
from klinket.wire import relay as wire
from tests.eventually import PATIENCE, eventually
from tests.unit.controller.running import NETWORK, Running

REPORT = wire.RelayReport(address="relay.example:4000", certificate_sha256="ab" * 32, version="0.1.0")


async def relay_token(controller: Running) -> str:
    return (await controller.write(lambda tx: relays.create_or_replace(tx, SYSTEM, name="one", entropy=os.urandom)))[1]


async def row_of(controller: Running) -> RelayRow:
    (row,) = await controller.read(lambda tx: tx.relays.find())
    return row


async def test_a_report_is_stored_and_answered_with_the_keys_that_sign_tickets(live: Running) -> None:
    async with live.relay_channel(await relay_token(live)) as channel:
        await channel.connection.send(wire.encode(REPORT))
        answer = wire.decode_configuration(await channel.text())
    row = await row_of(live)
    assert (row.address, row.certificate_sha256) == (REPORT.address, REPORT.certificate_sha256)
    assert (answer.relay, answer.network) == (row.id, NETWORK)
    assert answer.ticket_keys == live.trust.keys[KeyPurpose.TICKET].to_jwks()
    assert "d" not in answer.ticket_keys["keys"][0]  # type: ignore[index]


@pytest.mark.parametrize("token", ["", "x", "kl_relay_" + "0" * 47])
async def test_a_wrong_token_is_refused_before_the_channel_opens(live: Running, token: str) -> None:
    with pytest.raises(ControllerUnreachable):
        async with live.relay_channel(token):
            pass


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\x01",
        "",
        "{",
        "[]",
        '{"type": "relay-report"}',
        wire.encode(wire.RelayReport(address="no port", certificate_sha256="", version="")),
        wire.encode(wire.RelayReport(address="relay.example:99999", certificate_sha256="", version="")),
    ],
)
async def test_a_report_that_is_not_understood_ends_the_channel_without_a_traceback(
    live: Running, sent: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with live.relay_channel(await relay_token(live)) as channel:
        await channel.connection.send(sent)
        assert await channel.closed() == 1013
    assert (await row_of(live)).address is None
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info] == []
    assert not live.peers.relays


async def test_a_newer_channel_of_a_relay_replaces_the_older(live: Running) -> None:
    token = await relay_token(live)
    async with live.relay_channel(token) as older:
        await older.connection.send(wire.encode(REPORT))
        await older.text()
        async with live.relay_channel(token) as newer:
            await newer.connection.send(wire.encode(REPORT))
            await newer.text()
            await older.closed()
            await newer.connection.send(wire.encode(REPORT))
            assert wire.decode_configuration(await newer.text()).network == NETWORK


async def test_a_replaced_token_ends_the_channel_it_opened(live: Running) -> None:
    token = await relay_token(live)
    async with live.relay_channel(token) as channel:
        await channel.connection.send(wire.encode(REPORT))
        await channel.text()
        replacement = await relay_token(live)
        assert await channel.closed() == 1008
    async with live.relay_channel(replacement) as channel:
        await channel.connection.send(wire.encode(REPORT))
        await channel.text()
        await live.add_network()
        await channel.connection.send(wire.encode(REPORT))
        await channel.text()  # other changes leave it alone


async def test_a_report_under_a_replaced_token_is_refused(live: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async def later(_: Any) -> None:
        """Stand for a round that has not reached relays yet."""

    monkeypatch.setattr(type(live.dispatch), "_refresh_relays", later)
    async with live.relay_channel(await relay_token(live)) as channel:
        await channel.connection.send(wire.encode(REPORT))
        await channel.text()
        await relay_token(live)
        await channel.connection.send(wire.encode(structs.replace(REPORT, address="evil.example:4000")))
        assert await channel.closed() == 1008
    assert (await row_of(live)).address == REPORT.address


async def test_a_store_that_cannot_take_more_makes_a_relay_come_again(live: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async def write(_: Any) -> Any:
        raise StoreOverloaded("full")

    async with live.relay_channel(await relay_token(live)) as channel:
        monkeypatch.setattr(live.store, "write", write)
        await channel.connection.send(wire.encode(REPORT))
        assert await channel.closed() == 1013
        with pytest.raises(ConnectionClosed):
            await channel.connection.send("anything")
        monkeypatch.undo()


async def test_a_removed_relay_loses_its_channel_and_nobody_is_told_of_it_any_more(live: Running) -> None:
    token = await relay_token(live)
    async with live.relay_channel(token) as channel:
        await channel.connection.send(wire.encode(REPORT))
        await channel.text()
        row = await row_of(live)
        await live.write(lambda tx: relays.delete(tx, SYSTEM, row))
        assert await channel.closed() == 1008
    assert (await live.read(snapshot.take)).relays == ()
    with pytest.raises(ControllerUnreachable):
        async with live.relay_channel(token):
            pass
    event = await live.last_event()
    assert (event.action, event.targets[0]["name"]) == ("delete", "one")


async def test_a_relay_that_the_controller_runs_itself_is_not_removed(controller: Running) -> None:
    await relay_token(controller)
    row = await row_of(controller)
    with pytest.raises(Conflict, match="run by the controller itself"):
        await controller.write(lambda tx: relays.delete(tx, SYSTEM, row, kept=["one"]))
    assert await row_of(controller) == row


async def test_a_relay_is_created_once(controller: Running) -> None:
    await relay_token(controller)
    with pytest.raises(Conflict, match="exists already"):
        await controller.write(lambda tx: relays.create(tx, SYSTEM, name=" one ", entropy=os.urandom))


async def test_a_relay_hears_of_a_new_key_with_its_next_report_and_keeps_the_old_one(live: Running) -> None:
    old, seal = live.trust.signers[KeyPurpose.TICKET].kid, live.master.seal
    async with live.relay_channel(await relay_token(live)) as channel:
        await channel.connection.send(wire.encode(REPORT))
        await channel.text()
        made = await live.write(lambda tx: signing_keys.rotate(tx, SYSTEM, KeyPurpose.TICKET, seal=seal, entropy=os.urandom))
        async with asyncio.timeout(PATIENCE):
            while len(live.trust.keys[KeyPurpose.TICKET]) < 2:
                await asyncio.sleep(0.01)
        await channel.connection.send(wire.encode(REPORT))
        answer = wire.decode_configuration(await channel.text())
    assert {key["kid"] for key in answer.ticket_keys["keys"]} == {old, made.kid}  # type: ignore[attr-defined]
    assert live.trust.signers[KeyPurpose.TICKET].kid == old
    assert wire.RELAY_REPORT_SECONDS * 1000 < signing_keys.PUBLISHED_MS / 10


async def test_attached_relays_are_told_the_time_when_it_has_changed(live: Running) -> None:
    async with live.relay_channel(await relay_token(live)) as channel:
        await channel.connection.send(wire.encode(REPORT))
        before = wire.decode_configuration(await channel.text())
        live.offset += 3600
        await live.controller.clock_watch.look()
        after = wire.decode_configuration(await channel.text())
    assert 3_600_000 <= after.time_ms - before.time_ms < 3_700_000


async def test_a_relay_whose_token_is_dead_says_what_to_do_and_takes_a_new_one_over(
    live: Running, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    token = tmp_path / "token"
    token.write_text(await relay_token(live))
    new = await relay_token(live)  # replaces it
    anywhere = HostPort("127.0.0.1", 0)
    config = RelayConfig(
        listen=anywhere, advertise=anywhere, controller=live.config.public_url, token="", state=tmp_path, token_file=token
    )  # fmt: skip
    attached: list[bool] = []
    keeping = keep_channel(
        config, controller_context(live.authority), PeerClock(), lambda: REPORT, lambda _: None, asyncio.Event(), attached.append
    )
    task = asyncio.create_task(keeping)
    try:
        await eventually(lambda: "does not take this relay's token" in caplog.text)
        assert "klinket issue relay-token NAME, into --token-file" in caplog.text
        token.write_text(new)
        await eventually(lambda: attached)
    finally:
        task.cancel()
        await asyncio.wait([task])
