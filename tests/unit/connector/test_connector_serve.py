"""A running connector against a real controller, relay and client: cuts, receipts, and what must not end it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from klinket.connector import addresses
from klinket.connector.channel import ConnectorChannel
from klinket.connector.config import ConnectorConfig
from klinket.connector.serve import Connector
from klinket.connector.state import ConnectorState
from klinket.controller import web
from klinket.controller.app import cuts
from klinket.controller.channels import Channels
from klinket.controller.trust import KeyPurpose
from klinket.domain.cut import Floors
from klinket.domain.errors import ControllerUnreachable, InvalidInput
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.domain.grant import Principal
from klinket.domain.identifiers import ConnectorId, FlowId, Kid, ServiceAccountUuid, SessionId
from klinket.net import channel, clock
from klinket.net.tasks import TaskSet
from klinket.wire import access_token, control, signing
from klinket.wire.head_token import verify_head
from klinket.wire.identity import ConnectorIdentity
from tests.eventually import PATIENCE, eventually
from tests.unit.whole import Whole, everything, tasks_named


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Whole]:
    async with everything(tmp_path) as made:
        yield made


async def receipts(whole: Whole) -> list[dict[str, Any]]:
    """Return the connectors' answers to the newest cut, when all have answered."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await whole.controller.read(cuts.receipts)
            if found and all(one["state"] == "answered" for one in found[0]["receipts"]):
                return list(found[0]["receipts"])
            await asyncio.sleep(0.02)


async def test_a_cut_resets_a_live_flow_and_its_receipt_names_it(whole: Whole) -> None:
    flow = await whole.flow(await whole.client())
    await whole.controller.revoke_key(whole.key)
    assert await flow.is_reset()
    (receipt,) = await receipts(whole)
    (ended,) = receipt["flows"]
    assert (ended["host"], ended["port"]) == ("127.0.0.1", whole.resource.destination.port)
    assert ended["stopped_after_ms"] < 1000
    assert whole.connector._core.flows == 0


async def test_a_cut_is_a_head_that_is_shown_from_then_on_and_kept(whole: Whole) -> None:
    keys = whole.controller.trust.keys[KeyPurpose.HEAD]
    for number in range(3):
        await whole.controller.add_resource(whole.office, f"new {number}", f"new-{number}.internal")
    await whole.controller.revoke_key(whole.key)
    await receipts(whole)
    (cut,) = await whole.controller.read(lambda tx: tx.cuts.find())
    await eventually(lambda: whole.connector._state.kept_head()[0] >= (cut.epoch, cut.revision))
    shown = whole.connector._channel.head
    assert shown == whole.connector._state.kept_head()[1]
    assert verify_head(shown, keys, network="acme") >= (cut.epoch, cut.revision)


async def test_the_newest_cut_that_is_forgotten_stays_on_disk(whole: Whole) -> None:
    connector = whole.connector
    await whole.controller.revoke_key(whole.key)
    await receipts(whole)
    (cut,) = list(connector._core.floors)
    connector._core.floors.forget(cut.issued_at + 1)
    connector._keep(connector._head)
    (token,) = connector._state.kept_cuts()[1]
    connector._core.floors = Floors()  # as after a restart, long after
    connector._cut_tokens.clear()
    connector._receipts.keep(())
    connector._clock.set(round((cut.issued_at + 86_400) * 1000))
    connector._apply(token)
    assert not len(connector._core.floors)
    assert connector._core.floors.outlived((cut.epoch, cut.revision - 1))
    assert not connector._core.floors.outlived(cut.stamp)


async def test_an_answer_that_got_lost_is_given_again_with_the_flows_it_named(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = await whole.flow(await whole.client())
    real, lost = channel.send, []

    async def send(connection: Any, text: str) -> None:
        if "cut-receipt" in text and not lost:
            lost.append(text)
            await connection.close()
            raise ControllerUnreachable("the line broke")
        await real(connection, text)

    monkeypatch.setattr(channel, "send", send)
    await whole.controller.revoke_key(whole.key)
    assert await flow.is_reset()
    (receipt,) = await receipts(whole)
    assert lost
    assert len(receipt["flows"]) == 1, "not an empty one: it would say that nothing was live"


async def test_a_receipt_that_was_signed_anew_is_sent_on_the_same_channel_and_one_that_was_sent_is_not(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    its = whole.connector._channel
    receipts = [control.CutReceipt(id=1, stopped_at_ms=1, took_ms=1.0, flows=[], token=token) for token in ("ahead", "anew")]
    said: list[str] = []

    async def configure(_: control.ConnectorConfiguration) -> list[control.CutReceipt]:
        return receipts

    async def note(_: Any, text: str) -> None:
        said.append(text)

    monkeypatch.setattr(its, "_configure", configure)
    monkeypatch.setattr(channel, "send", note)
    configuration, tasks = whole.connector._configuration, TaskSet("test")
    assert configuration is not None
    await its._message(None, configuration, tasks, {"ahead"})  # type: ignore[arg-type]
    await tasks.aclose()
    assert [json.loads(text)["token"] for text in said if "cut-receipt" in text] == ["anew"]


async def test_a_deleted_connector_ends_its_flows_at_once_and_serves_nobody(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await whole.client()
    flow = await whole.flow(client)
    # The client is not to do it: it is told as well, and would reset its side.
    monkeypatch.setattr(client, "_configure", lambda _: None)
    client._channel._configure = lambda _: None
    await whole.controller.change(
        "mutation ($c: ID!) { connectorDelete(id: $c) { ok error } }",
        c=whole.connector_id,
    )
    assert await flow.is_reset()
    await eventually(lambda: whole.connector._core.flows == 0)
    await eventually(lambda: not whole.connector._relays)
    assert whole.connector._core.next_deadline() is None, "no grant counts any more"
    await eventually(lambda: whole.resource.resets == [True])


async def test_one_renewal_runs_however_many_configurations_come(whole: Whole) -> None:
    (peer,) = whole.controller.peers.connectors.values()
    for _ in range(5):
        before = whole.connector._configuration
        await whole.controller.dispatch.configure_connector(peer)
        await eventually(lambda before=before: whole.connector._configuration is not before)
    await eventually(lambda: len(tasks_named(": renew configuration")) == 1)


@pytest.mark.parametrize("kind", [RuntimeError, OSError])
async def test_no_error_ends_the_channel_for_good(
    whole: Whole, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: type[Exception]
) -> None:
    failures = [kind("a defect, or a full disk")]
    real = Connector._apply

    def apply(self: Connector, token: str, head: str = "") -> control.CutReceipt | None:
        if failures:
            raise failures.pop()
        return real(self, token, head)

    monkeypatch.setattr(Connector, "_apply", apply)
    flow = await whole.flow(await whole.client())
    await whole.controller.revoke_key(whole.key)
    assert await flow.is_reset()
    await receipts(whole)
    assert "the channel failed" in caplog.text


async def test_a_disk_that_keeps_no_cuts_does_not_keep_the_receipt_back(
    whole: Whole, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    flow = await whole.flow(await whole.client())
    monkeypatch.setattr(ConnectorState, "keep_cuts", full)
    await whole.controller.revoke_key(whole.key)
    assert await flow.is_reset()
    (receipt,) = await receipts(whole)
    assert len(receipt["flows"]) == 1
    assert "cannot be kept on disk" in caplog.text


async def test_flow_events_are_on_disk_while_no_channel_is_there(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = await whole.flow(await whole.client())
    monkeypatch.setattr(channel, "CONNECT_SECONDS", 0.0)  # nobody attaches any more
    for peer in list(whole.controller.peers.connectors.values()):
        peer.outbox.finish()
    await eventually(lambda: not tasks_named("connector channel: heartbeat"))
    await flow.echo()  # a live flow goes on
    flow.program.close()
    state = whole.state / "connector" / "flow-events"
    await eventually(lambda: any(b'"closed"' in path.read_bytes() for path in state.glob("*.json")))


async def test_an_access_token_of_a_time_when_the_controllers_clock_was_ahead_is_replaced(
    whole: Whole,
) -> None:
    credentials = whole.connector._credentials
    assert credentials is not None
    trust, hour = whole.controller.trust, 3600.0
    identity = ConnectorIdentity("acme", ConnectorId(credentials.connector))
    jkt = signing.thumbprint(whole.connector._key.public_key())
    ahead = clock.wall() + hour
    credentials.access_token = access_token.issue(trust.signers[KeyPurpose.ACCESS], identity, jkt, now=ahead, lifetime=hour)
    credentials.expires_at_ms += round(hour * 1000)
    whole.connector._channel.abort()
    await eventually(lambda: whole.connector._credentials not in (None, credentials))
    await eventually(lambda: bool(whole.controller.peers.connectors))
    await (await whole.flow(await whole.client())).echo()


async def test_many_flow_events_wait_until_the_controller_has_believed_the_proof(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    prove, events = Channels._prove, whole.connector._events
    attached, are_spooled = asyncio.Event(), asyncio.Event()

    async def slowly(self: Channels, socket: Any) -> Any:
        found = await prove(self, socket)
        attached.set()
        await are_spooled.wait()
        await asyncio.sleep(0.3)  # what comes now comes from somebody who is not believed yet
        return found

    async def never(*_: object) -> None:
        """No heartbeat: a controller reads no further than the first message until it is believed."""

    monkeypatch.setattr(Channels, "_prove", slowly)
    monkeypatch.setattr(ConnectorChannel, "_beat", never)
    whole.connector._channel.abort()
    await eventually(lambda: not tasks_named("connector channel: heartbeat"))
    async with asyncio.timeout(PATIENCE):
        await attached.wait()
    principal = Principal(ServiceAccountUuid("a" * 36), Kid("k" * 28), SessionId("s" * 22))
    for number in range(400):
        destination = Destination(f"{number}.{'long-' * 10}name.internal", 443, TransportProtocol.TCP)
        events.refused(FlowId(f"{number:022}"), principal, destination, 1, FlowFailure.NOT_GRANTED)
    await events.spool()
    (spooled,) = (whole.state / "connector" / "flow-events").glob("*.json")
    assert spooled.stat().st_size > web.MAX_UNPROVEN_MESSAGE_BYTES
    are_spooled.set()
    await eventually(lambda: not list((whole.state / "connector" / "flow-events").glob("*.json")))


async def test_own_addresses_are_looked_up_again_and_kept_when_they_cannot_be(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "OWN_ADDRESSES_SECONDS", 0.01)
    answers = [["192.0.2.9"], []]
    looked: list[int] = []

    def own_addresses() -> list[str]:
        looked.append(1)
        return answers.pop(0) if len(answers) > 1 else answers[0]

    monkeypatch.setattr(addresses, "own_addresses", own_addresses)
    looking = asyncio.ensure_future(addresses.follow(whole.connector._own))
    await eventually(lambda: len(looked) > 3)
    looking.cancel()
    assert whole.connector._own == {"192.0.2.9"}


def settings(tmp_path: Path, authority: str | None = None) -> ConnectorConfig:
    return ConnectorConfig(
        controller="https://127.0.0.1:1", access_token="a", refresh_token="r", state=tmp_path, controller_ca=authority
    )


def test_a_cut_before_the_first_configuration_waits_for_it(tmp_path: Path) -> None:
    assert Connector(settings(tmp_path))._cut(control.Cut(id=1, token="...")) is None


def test_an_authority_that_is_none_stops_a_connector_at_its_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        Connector(settings(tmp_path, "not PEM"))
