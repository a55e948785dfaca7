"""What a commit sets off: cuts first, then what changed for whom; and no failure ends it."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

import pytest

from klinket.controller import configuration
from klinket.controller import dispatch as module
from klinket.controller.app import cuts, relays, signing_keys, snapshot
from klinket.controller.app.rows import CutRow
from klinket.controller.app.signing_keys import PUBLISHED_MS
from klinket.controller.graphql.global_id import to_global_id
from klinket.controller.store.engine import open_store
from klinket.controller.trust import KeyPurpose
from klinket.domain.account_limits import DEFAULTS
from klinket.domain.audit import SYSTEM
from klinket.domain.errors import ConnectorTokensDead, ServiceKeyRevoked
from klinket.domain.identifiers import ConnectorId
from klinket.wire import control, signing
from klinket.wire.cut_token import verify_cut
from klinket.wire.identity import ConnectorIdentity
from klinket.wire.receipt_token import sign_receipt
from tests.eventually import PATIENCE, eventually
from tests.unit.controller.running import Enrolled, Running, Session

DAY = 86_400.0


async def stored_cuts(controller: Running) -> list[CutRow]:
    return await controller.read(lambda tx: tx.cuts.find())


async def enrolled(controller: Running, network: str, name: str = "office-1") -> Enrolled:
    return await controller.enrol(await controller.connector_tokens(await controller.add_connector(network, name)))


async def granted(controller: Running, days: int = 0) -> tuple[str, str, str, Session]:
    """Return ids of network, resource and key, and a session that may reach the resource."""
    network = await controller.add_network()
    resource = await controller.add_resource(network)
    account = await controller.add_account(resources=[resource])
    key, key_file = await controller.add_key(account, days)
    return network, resource, key, await controller.log_in(key_file)


# ---- clients


async def test_access_reaches_an_attached_client_and_other_changes_do_not_disturb_it(live: Running) -> None:
    network, _, _, session = await granted(live)
    async with live.attached(session) as client:
        first = await client.take(control.ClientConfiguration)
        await live.add_account("another")
        await live.add_key(await live.add_account("a third"))
        other = await live.add_resource(network, "Other", "other.internal")
        assert await client.is_alive()  # nothing else was said in between
        await live.change(
            "mutation ($a: ID!, $r: [ID]) { serviceAccountUpdate(id: $a, addedResourceIds: $r) { ok error } }",
            a=to_global_id("ServiceAccount", 1),
            r=[other],
        )
        second = await client.take(control.ClientConfiguration)
    assert [one.name for one in first.resources] == ["Database"]
    assert {one.name for one in second.resources} == {"Database", "Other"}
    assert second.revision > first.revision


async def test_the_cut_goes_out_before_the_client_is_told(live: Running) -> None:
    network, _, key, session = await granted(live)
    connector = await enrolled(live, network)
    async with live.attached(connector) as edge, live.attached(session) as client:
        await edge.take(control.ConnectorConfiguration)
        await client.take(control.ClientConfiguration)
        await live.revoke_key(key)
        sent = await edge.take(control.Cut)
        assert (await client.wait_for(control.SessionEnded)).code == ServiceKeyRevoked.code
        assert await client.closed() == 1008
    assert [cut.id for cut in await stored_cuts(live)] == [sent.id]


async def test_a_client_that_cannot_be_told_does_not_keep_the_others_from_being_told(
    live: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network = await live.add_network()
    accounts = [await live.add_account(name) for name in ("bad", "good")]
    keys = [(await live.add_key(account))[1] for account in accounts]
    bad, good = [await live.log_in(key) for key in keys]
    async with live.attached(bad) as one, live.attached(good) as other:
        await one.take(control.ClientConfiguration)
        await other.take(control.ClientConfiguration)
        real = configuration.for_client

        def for_client(snapshot: Any, trust: Any, principal: Any, *more: Any, **named: Any) -> Any:
            if principal.session == bad.id:
                raise ValueError("no configuration for this one")
            return real(snapshot, trust, principal, *more, **named)

        monkeypatch.setattr(configuration, "for_client", for_client)
        resource = await live.add_resource(network)
        for account in accounts:
            await live.change(
                "mutation ($a: ID!, $r: [ID]) { serviceAccountUpdate(id: $a, addedResourceIds: $r) { ok error } }",
                a=account,
                r=[resource],
            )
        assert [found.name for found in (await other.take(control.ClientConfiguration)).resources] == ["Database"]
    assert "could not be told" in caplog.text


async def test_a_round_that_fails_is_tried_again(
    live: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)
    real, left = snapshot.take, [OSError("disk I/O error"), OSError("disk I/O error")]

    def take(*given: Any) -> Any:
        if left:
            raise left.pop()
        return real(*given)

    monkeypatch.setattr(snapshot, "take", take)
    before = live.dispatch.snapshot.stamp
    await live.add_network()
    await eventually(lambda: live.dispatch.snapshot.stamp > before)
    assert not left
    assert caplog.text.count("peers could not be told of a change") == 2


# ---- connectors


async def test_a_new_relay_reaches_attached_connectors_at_once(live: Running) -> None:
    connector = await enrolled(live, await live.add_network())
    async with live.attached(connector) as edge:
        assert (await edge.take(control.ConnectorConfiguration)).relays == []

        def add(tx: Any) -> None:
            row, _ = relays.create_or_replace(tx, SYSTEM, name="relay-1", entropy=lambda count: b"r" * count)
            relays.report(
                tx, row.id, row.token_hash, address="relay.example:4000", certificate_sha256="ab" * 32, source="192.0.2.9"
            )

        await live.write(add)
        told = await edge.take(control.ConnectorConfiguration)
        assert [relay.address for relay in told.relays] == ["relay.example:4000"]
        assert [ticket.relay for ticket in told.tickets] == [told.relays[0].id]
        await live.add_network("another")
        assert await edge.is_alive()  # a change that does not concern it says nothing


async def test_limits_of_an_account_reach_attached_connectors_at_once(live: Running) -> None:
    account = await live.add_account()
    connector = await enrolled(live, await live.add_network())
    query = "mutation ($a: ID!, $l: AccountLimitsInput!) { accountLimitsSet(serviceAccountId: $a, limits: $l) { ok error } }"
    async with live.attached(connector) as edge:
        first = await edge.take(control.ConnectorConfiguration)
        assert (first.limits.max_flows, first.own_limits) == (DEFAULTS.max_flows, [])
        await live.query(query, extension=True, a=account, l={"loginBurst": 3})
        assert await edge.is_alive()  # what is the controller's to enforce says nothing
        await live.query(query, extension=True, a=account, l={"maxFlows": 5})
        (own,) = (await edge.take(control.ConnectorConfiguration)).own_limits
        assert own.service_account == (await live.read(lambda tx: tx.service_accounts.find()))[0].uuid
        assert (own.limits.max_flows, own.limits.new_flows_burst) == (5, DEFAULTS.new_flows_burst)
        assert own.limits.bytes_per_second == first.limits.bytes_per_second == 0
        await live.query(query, extension=True, a=account, l={"bytesPerSecond": 50_000})
        assert (await edge.take(control.ConnectorConfiguration)).own_limits[0].limits.bytes_per_second == 50_000
        await live.query(query, extension=True, a=account, l={"maxFlows": None, "bytesPerSecond": None})
        assert (await edge.take(control.ConnectorConfiguration)).own_limits == []


async def test_a_cut_ordered_while_the_first_configuration_is_made_follows_it(
    live: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, _, key, _ = await granted(live)
    connector = await enrolled(live, network)
    real, once = cuts.in_force, [True]
    loop = asyncio.get_running_loop()

    def in_force(tx: Any) -> Any:
        found = real(tx)
        if once:
            once.clear()
            asyncio.run_coroutine_threadsafe(live.revoke_key(key), loop).result(PATIENCE)
        return found

    monkeypatch.setattr(cuts, "in_force", in_force)
    async with live.attached(connector) as edge:
        assert (await edge.take(control.ConnectorConfiguration)).cuts == []
        assert (await edge.take(control.Cut)).id == 1


async def test_a_deleted_connector_ends_what_it_carries_answers_and_is_refused(live: Running) -> None:
    network = await live.add_network()
    connector, other = await enrolled(live, network), await enrolled(live, network, "office-2")
    async with live.attached(connector) as edge, live.attached(other) as bystander:
        await edge.take(control.ConnectorConfiguration)
        await bystander.take(control.ConnectorConfiguration)
        await live.change(f'mutation {{ connectorDelete(id: "{_connector_id(connector)}") {{ ok error }} }}')
        cut = await edge.take(control.Cut)
        verified = verify_cut(cut.token, live.trust.keys[KeyPurpose.CUT], network=live.trust.network, now=live.clock())
        identity, at = ConnectorIdentity(live.trust.network, ConnectorId(connector.id)), live.clock()
        token = sign_receipt(connector.key, identity, verified, [], stopped_at=at, took=0.0005)
        receipt = control.CutReceipt(id=cut.id, stopped_at_ms=round(at * 1000), took_ms=0.5, flows=[], token=token)
        await edge.send(receipt)
        assert (await edge.take(control.Refused)).code == ConnectorTokensDead.code
        assert await edge.closed() == 1008
        assert await bystander.is_alive()  # it heard of nothing
    shown = await live.read(lambda tx: cuts.receipt(tx, cut.id))
    assert shown["scope"] == f"connector {connector.id}"
    assert [(one["connector"], one["state"]) for one in shown["receipts"]] == [("office-1", "answered")]
    assert await live.read(cuts.in_force) == []  # no other connector is ever told of it


async def test_a_deleted_connector_that_does_not_answer_is_refused_all_the_same(
    live: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DISMISS_SECONDS", 0.05)
    connector = await enrolled(live, await live.add_network())
    async with live.attached(connector) as edge:
        await edge.take(control.ConnectorConfiguration)
        await live.change(f'mutation {{ connectorDelete(id: "{_connector_id(connector)}") {{ ok error }} }}')
        await edge.take(control.Cut)
        assert (await edge.take(control.Refused)).code == ConnectorTokensDead.code


async def test_a_connector_that_never_served_is_deleted_without_a_cut(live: Running) -> None:
    id = await live.add_connector(await live.add_network())
    await live.change(f'mutation {{ connectorDelete(id: "{id}") {{ ok error }} }}')
    assert await stored_cuts(live) == []


def _connector_id(connector: Enrolled) -> str:
    return to_global_id("Connector", connector.id)


async def test_logs_of_a_working_dispatch_hold_no_error(live: Running, caplog: pytest.LogCaptureFixture) -> None:
    network, _, key, session = await granted(live)
    connector = await enrolled(live, network)
    async with live.attached(connector) as edge, live.attached(session) as client:
        await edge.take(control.ConnectorConfiguration)
        await live.revoke_key(key)
        await client.closed()
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []


# ---- signing keys


def _kids(jwks: dict[str, Any]) -> set[str]:
    return {str(key["kid"]) for key in jwks["keys"]}


async def test_connectors_hear_of_a_new_key_before_a_grant_is_signed_with_it(live: Running) -> None:
    network, _, _, session = await granted(live)
    old, seal = live.trust.signers[KeyPurpose.GRANT].kid, live.master.seal
    async with live.attached(await enrolled(live, network)) as edge, live.attached(session) as client:
        assert _kids((await edge.take(control.ConnectorConfiguration)).grant_keys) == {old}
        made = await live.write(lambda tx: signing_keys.rotate(tx, SYSTEM, KeyPurpose.GRANT, seal=seal, entropy=os.urandom))
        assert _kids((await edge.take(control.ConnectorConfiguration)).grant_keys) == {old, made.kid}
        assert live.trust.signers[KeyPurpose.GRANT].kid == old
        live.offset = PUBLISHED_MS / 1000 + 1
        await client.send(control.Renew())
        kids = [old]
        while kids[-1] == old:
            given = await client.wait_for(control.ClientConfiguration)
            kids.append(signing.unverified_header(given.grants[0].token)["kid"])
        assert kids[-1] == made.kid


async def test_a_key_that_another_program_made_is_known_within_seconds(live: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONFIRM_SECONDS", 0.05)
    monkeypatch.setattr(live.dispatch._confirmation, "_lasts", 0.05)
    live.dispatch._tasks.start(live.dispatch._keep_confirmed(), "confirmations at the pace of a test")
    guest = open_store(live.config.database, live.clock, as_guest=True)
    try:
        seal = live.master.seal
        made = await guest.write(lambda tx: signing_keys.rotate(tx, SYSTEM, KeyPurpose.CUT, seal=seal, entropy=os.urandom))
    finally:
        guest.close()
    await eventually(lambda: made.kid in _kids(live.trust.jwks()))


async def test_access_tokens_of_before_a_rotation_open_channels_after_it_and_new_ones_bear_the_new_key(live: Running) -> None:
    _, _, _, session = await granted(live)
    old, seal = live.trust.signers[KeyPurpose.ACCESS].kid, live.master.seal
    made = await live.write(lambda tx: signing_keys.rotate(tx, SYSTEM, KeyPurpose.ACCESS, seal=seal, entropy=os.urandom))
    await eventually(lambda: made.kid in _kids(live.trust.jwks()))
    live.offset = PUBLISHED_MS / 1000 + 1
    async with live.attached(session) as client:
        await client.take(control.ClientConfiguration)
    account = await live.add_account("another")
    _, key_file = await live.add_key(account)
    later = await live.log_in(key_file)
    assert [signing.unverified_header(one.token)["kid"] for one in (session, later)] == [old, made.kid]
    async with live.attached(later) as client:
        await client.take(control.ClientConfiguration)
