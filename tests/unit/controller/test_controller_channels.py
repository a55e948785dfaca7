"""Live channels: proof first, then messages of one's own role only; what breaks the protocol ends that channel, quietly."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from cryptography import x509

from klinket.controller import channel_pace, channels, connector_channels
from klinket.controller.app.store_errors import StoreOverloaded
from klinket.controller.trust import KeyPurpose
from klinket.domain.errors import ProtocolError
from klinket.domain.identifiers import RemoteNetworkId
from klinket.net.certificate_request import certificate_request
from klinket.net.uptime import own_time
from klinket.wire import control, signing
from klinket.wire.grant_token import verify_grant
from tests.unit.controller.running import Enrolled, Running, Session

EVENT = control.FlowEvent(event="established", flow="f" * 32, time_ms=1, session="s", service_account="a", key="k", resource=1,
                          host="h", port=1, protocol="tcp")  # fmt: skip


async def logged_in(controller: Running) -> Session:
    return await controller.log_in((await controller.add_key(await controller.add_account()))[1])


async def enrolled(controller: Running) -> Enrolled:
    return await controller.enrol(
        await controller.connector_tokens(await controller.add_connector(await controller.add_network()))
    )


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged as an error, or with a traceback."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info]


# ---- before anybody is believed


async def test_who_has_proved_nothing_does_not_learn_for_how_long_the_machine_has_been_up(live: Running) -> None:
    async with live.channel() as channel:
        assert channel.challenge is not None
        assert channel.challenge.boot
        assert abs(channel.challenge.uptime_ms - own_time() * 1000) > 1_000_000


async def test_a_binary_frame_ends_a_channel_without_a_traceback(live: Running, caplog: pytest.LogCaptureFixture) -> None:
    async with live.channel() as channel:
        await channel.connection.send(b"\x00\x01")
        assert (await channel.take(control.Refused)).code == ProtocolError.code
        assert await channel.closed() == 1008
    assert errors(caplog) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"type": "no-such"}', '{"type": "heartbeat", "sequence": 1, "time_ms": 1}'])
async def test_anything_but_an_attach_is_refused_at_first(live: Running, text: str, caplog: pytest.LogCaptureFixture) -> None:
    async with live.channel() as channel:
        await channel.connection.send(text)
        assert (await channel.take(control.Refused)).code == ProtocolError.code
        assert await channel.closed() == 1008
    assert errors(caplog) == []


async def test_who_does_not_prove_itself_in_time_is_closed(live: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "ATTACH_SECONDS", 0.05)
    async with live.channel() as channel:
        await channel.closed()
    assert not live.peers.clients


async def test_a_proof_by_another_key_or_for_another_challenge_is_refused(live: Running) -> None:
    session = await logged_in(live)
    for key, nonce in ((signing.generate_private_key(), None), (session.key, "another")):
        async with live.channel() as channel:
            await channel.attach(session.token, key, nonce=nonce)
            assert (await channel.take(control.Refused)).code == "invalid-token"
    assert not live.peers.clients


async def test_a_store_that_cannot_take_more_makes_a_peer_come_again_not_end(
    live: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector = await enrolled(live)
    async with live.attached(connector) as channel:
        await channel.take(control.ConnectorConfiguration)

        async def write(_: Any) -> Any:
            raise StoreOverloaded("full")

        monkeypatch.setattr(connector_channels, "STORE_PATIENCE_SECONDS", 0.0)
        monkeypatch.setattr(live.store, "write", write)
        await channel.send(control.FlowEvents(batch=1, events=[EVENT]))
        assert await channel.closed() == 1013
        monkeypatch.undo()


# ---- clients


async def test_a_session_that_was_ended_is_refused(live: Running) -> None:
    session = await logged_in(live)
    async with live.attached(session) as channel:
        await channel.take(control.ClientConfiguration)
        await channel.send(control.EndSession())
        await channel.closed()
    async with live.attached(session) as channel:
        assert (await channel.take(control.Refused)).code == "session-ended"


async def test_a_newer_channel_of_a_session_replaces_the_older(live: Running) -> None:
    session = await logged_in(live)
    async with live.attached(session) as older:
        await older.take(control.ClientConfiguration)
        async with live.attached(session) as newer:
            await newer.take(control.ClientConfiguration)
            await older.closed()
            assert await newer.is_alive()
            assert list(live.peers.clients) == [session.id]


@pytest.mark.parametrize("exceeded", ["REFUSE", "ALERT"])
async def test_a_first_attachment_long_after_its_login_has_to_find_a_seat(live: Running, exceeded: str) -> None:
    key, file = await live.add_key(await live.add_account())
    await live.query(
        "mutation ($k: ID!, $e: SeatsExceeded) { serviceKeySetSeats(id: $k, seats: 1, seatsExceeded: $e) { ok } }",
        extension=True, k=key, e=exceeded,
    )  # fmt: skip
    late = await live.log_in(file)
    live.offset += 61
    first = await live.log_in(file)
    async with live.attached(first) as channel:
        await channel.take(control.ClientConfiguration)
        async with live.attached(late) as other:
            if exceeded == "REFUSE":
                assert (await other.take(control.Refused)).code == "throttled"
            else:
                await other.take(control.ClientConfiguration)
                warned = await live.read(lambda tx: [row.detail for row in tx.audit.find(action="warn")])
                assert [detail["session"] for detail in warned] == [late.id]
    if exceeded == "REFUSE":
        live.offset += 61
        async with live.attached(late) as other:
            await other.take(control.ClientConfiguration)


async def test_a_session_that_comes_back_needs_no_new_seat(live: Running) -> None:
    key, file = await live.add_key(await live.add_account())
    first = await live.log_in(file)
    async with live.attached(first) as channel:
        await channel.take(control.ClientConfiguration)
    live.offset += 61
    async with live.attached(await live.log_in(file)) as channel:
        await channel.take(control.ClientConfiguration)
        await live.query(
            "mutation ($k: ID!) { serviceKeySetSeats(id: $k, seats: 1, seatsExceeded: REFUSE) { ok } }", extension=True, k=key
        )
        async with live.attached(first) as back:
            await back.take(control.ClientConfiguration)


async def test_renewals_come_with_a_fresh_grant(live: Running) -> None:
    network = await live.add_network()
    account = await live.add_account(resources=[await live.add_resource(network)])
    session = await live.log_in((await live.add_key(account))[1])
    async with live.attached(session) as channel:
        first = await channel.take(control.ClientConfiguration)
        live.offset = 30
        await channel.send(control.Renew())
        second = await channel.take(control.ClientConfiguration)
    assert second.valid_until_ms - first.valid_until_ms == pytest.approx(30_000, abs=2_000)
    assert first.grants[0].token != second.grants[0].token


async def test_a_certificate_is_renewed_for_the_same_key_only(live: Running) -> None:
    session = await logged_in(live)
    async with live.attached(session) as channel:
        await channel.take(control.ClientConfiguration)
        await channel.send(control.RenewCertificate(request=certificate_request(session.key)))
        renewed = await channel.take(control.CertificateRenewed)
        assert x509.load_pem_x509_certificate(renewed.certificate.encode()).public_key() == session.key.public_key()
        await channel.send(control.RenewCertificate(request=certificate_request(signing.generate_private_key())))
        assert (await channel.take(control.Refused)).code == "invalid-token"


async def test_a_client_may_not_send_what_a_connector_sends(live: Running) -> None:
    session = await logged_in(live)
    async with live.attached(session) as channel:
        await channel.take(control.ClientConfiguration)
        await channel.send(control.FlowEvents(batch=1, events=[]))
        assert (await channel.take(control.Refused)).code == ProtocolError.code
    assert await live.read(lambda tx: tx.flow_events.find()) == []


async def test_a_silent_peer_is_dropped(live: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    session = await logged_in(live)
    monkeypatch.setattr(control, "CHANNEL_SILENCE_SECONDS", 0.2)
    async with live.attached(session) as channel:
        await channel.take(control.ClientConfiguration)
        await channel.closed()
    assert not live.peers.clients


# ---- how fast


async def test_a_stolen_key_that_attaches_too_often_is_slowed_and_its_owner_elsewhere_is_not(
    live: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector = await enrolled(live)
    for _ in range(channel_pace.ATTACH_BURST):
        async with live.attached(connector) as channel:
            await channel.take(control.ConnectorConfiguration)
    async with live.attached(connector) as channel:
        assert await channel.closed() == 1013
    monkeypatch.setattr(channel_pace, "source_of", lambda address: "198.51.100.9")  # as if from there
    async with live.attached(connector) as channel:
        await channel.take(control.ConnectorConfiguration)


async def test_messages_beyond_the_pace_wait_and_none_is_lost() -> None:
    pace, loop = channel_pace.ChannelPace(), asyncio.get_running_loop()
    began = loop.time()
    for _ in range(channel_pace.MESSAGE_BURST):
        await pace.message("connector 7", "192.0.2.1", control.Renew())
    assert loop.time() - began < 1 / channel_pace.MESSAGES_PER_SECOND
    for holder, address in (("connector 7", "192.0.2.2"), ("connector 8", "192.0.2.1")):  # others have their own
        await asyncio.wait_for(pace.message(holder, address, control.Renew()), 0.1)
    waiting = asyncio.ensure_future(pace.message("connector 7", "192.0.2.1", control.Renew()))
    await asyncio.sleep(0)
    assert not waiting.done()
    # What came of its cuts, and of its flows, does not wait behind them.
    await asyncio.wait_for(pace.message("connector 7", "192.0.2.1", control.CutReceipt(id=1, stopped_at_ms=1, took_ms=1.0)), 0.1)
    await asyncio.wait_for(pace.message("connector 7", "192.0.2.1", control.FlowEvents(batch=1, events=[EVENT])), 0.1)
    await asyncio.wait_for(waiting, 10)


async def test_flow_events_are_counted_one_by_one_and_not_by_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_pace, "EVENT_BURST", 10)
    pace = channel_pace.ChannelPace()
    await asyncio.wait_for(pace.message("connector 7", "192.0.2.1", control.FlowEvents(batch=1, events=[EVENT] * 1000)), 0.1)
    waiting = asyncio.ensure_future(pace.message("connector 7", "192.0.2.1", control.FlowEvents(batch=2, events=[EVENT])))
    await asyncio.sleep(0)
    assert not waiting.done()
    await asyncio.wait_for(waiting, 10)


async def test_messages_with_few_flow_events_are_paced_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_pace, "EVENT_BURST", 500)
    monkeypatch.setattr(channel_pace, "EVENTS_PER_SECOND", 10.0)
    pace = channel_pace.ChannelPace()
    for number in range(5):
        await asyncio.wait_for(pace.message("connector 7", "192.0.2.1", control.FlowEvents(batch=number, events=[])), 0.1)
    waiting = asyncio.ensure_future(pace.message("connector 7", "192.0.2.1", control.FlowEvents(batch=6, events=[EVENT])))
    await asyncio.sleep(0)
    assert not waiting.done()
    await asyncio.wait_for(waiting, 10)


# ---- connectors


async def test_a_connector_with_replaced_tokens_is_refused(live: Running) -> None:
    id = await live.add_connector(await live.add_network())
    connector = await live.enrol(await live.connector_tokens(id))
    await live.connector_tokens(id)
    async with live.attached(connector) as channel:
        assert (await channel.take(control.Refused)).code == "connector-tokens-dead"


async def test_a_report_is_stored_and_answered(live: Running) -> None:
    connector = await enrolled(live)
    async with live.attached(connector) as channel:
        await channel.take(control.ConnectorConfiguration)
        await channel.send(
            control.Heartbeat(sequence=5, time_ms=0, version="1.80.0", hostname="edge", private_ips=["10.0.0.1"], relays=[3])
        )
        assert (await channel.take(control.HeartbeatAnswer)).sequence == 5
        assert live.peers.online() == {connector.id: (3,)}
        async with asyncio.timeout(10):
            while (row := await live.read(lambda tx: tx.connectors.get(connector.id))) is None or row.version is None:
                await asyncio.sleep(0.01)
    assert (row.version, row.hostname, row.private_ips) == ("1.80.0", "edge", ["10.0.0.1"])


async def test_flow_events_are_acknowledged_when_stored_and_stored_once(live: Running) -> None:
    connector = await enrolled(live)
    async with live.attached(connector) as channel:
        await channel.take(control.ConnectorConfiguration)
        for _ in range(2):
            await channel.send(control.FlowEvents(batch=7, events=[EVENT]))
            assert (await channel.take(control.FlowEventsStored)).batch == 7
    assert len(await live.read(lambda tx: tx.flow_events.find())) == 1


async def test_a_connector_that_goes_is_offline_for_clients(live: Running) -> None:
    network = await live.add_network()
    account = await live.add_account(resources=[await live.add_resource(network)])
    session = await live.log_in((await live.add_key(account))[1])
    connector = await live.enrol(await live.connector_tokens(await live.add_connector(network)))
    async with live.attached(session) as client:
        assert [one.online for one in (await client.take(control.ClientConfiguration)).connectors] == [False]
        async with live.attached(connector) as edge:
            await edge.take(control.ConnectorConfiguration)
            await edge.send(control.Heartbeat(sequence=1, time_ms=0, version="1.80.0", relays=[1]))
            assert [one.online for one in (await client.wait_for(control.ClientConfiguration)).connectors] == [True]
        async with asyncio.timeout(10):
            while (await client.wait_for(control.ClientConfiguration)).connectors[0].online:
                pass


# ---- narrowed sessions


async def test_grants_are_as_narrow_as_a_client_asks_and_it_is_told_of_everything(live: Running) -> None:
    office, lab = await live.add_network("office"), await live.add_network("lab")
    resources = [
        await live.add_resource(office, "Database"),
        await live.add_resource(office, "Web", "web.internal"),
        await live.add_resource(lab, "Bench", "bench.lab"),
    ]
    _, key_file = await live.add_key(await live.add_account("narrow", resources))
    session = await live.log_in(key_file)
    for only, granted in (([], {"Database", "Web", "Bench"}), (["db.internal"], {"Database"}), (["nothing.example"], set())):
        async with live.channel() as channel:
            await channel.attach(session.token, session.key, only=only)
            configuration = await channel.take(control.ClientConfiguration)
        assert {entry.name for entry in configuration.resources} == {"Database", "Web", "Bench"}
        found = set()
        for grant in configuration.grants:
            claims = verify_grant(
                grant.token,
                live.trust.keys[KeyPurpose.GRANT],
                network=live.trust.network,
                remote_network=RemoteNetworkId(grant.remote_network),
                now=live.clock(),
            )
            assert claims.resources
            found |= {resource.name for resource in claims.resources}
        assert found == granted


@pytest.mark.parametrize("only", [["x"] * (control.MAX_ONLY + 1), ["x" * (control.MAX_ONLY_CHARACTERS + 1)]])
async def test_an_attach_that_names_too_much_is_refused(live: Running, only: list[str]) -> None:
    session = await logged_in(live)
    async with live.channel() as channel:
        await channel.attach(session.token, session.key, only=only)
        assert (await channel.take(control.Refused)).code == "protocol-error"
