"""Whose word counts on a live channel: a connector's present key only, and not of a controller that is behind itself."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from klinket.cli.issue import accept_head
from klinket.controller.app import connectors
from klinket.controller.conversation import RENEW_SECONDS
from klinket.controller.database import PostgresAddress
from klinket.controller.peers import TRY_AGAIN
from klinket.controller.trust import KeyPurpose
from klinket.domain.errors import ConnectorTokensDead, InvalidToken
from klinket.net.certificate_request import certificate_request
from klinket.wire import assertion, control, signing
from klinket.wire.head_token import sign_head, verify_head
from klinket.wire.key_file import LOGIN_PATH
from klinket.wire.paths import ENROL_PATH, LOGOUT_PATH
from tests.eventually import eventually
from tests.unit.controller.running import Channel, Enrolled, Running, Session

HEARTBEAT = control.Heartbeat(sequence=1, time_ms=0, version="1.2.3")


def _url(address: PostgresAddress) -> str:
    """Return the URL of a database on a socket of the tests' own."""
    of = address.parameters
    return f"postgresql://{of['user']}@/{of['dbname']}?host={of['host']}"


async def office(live: Running) -> tuple[str, Enrolled, Session]:
    """Return a connector's global id, the enrolled connector, and a session that may reach something there."""
    network = await live.add_network()
    connector = await live.add_connector(network, "office-1")
    enrolled = await live.enrol(await live.connector_tokens(connector))
    account = await live.add_account(resources=[await live.add_resource(network)])
    return connector, enrolled, await live.log_in((await live.add_key(account))[1])


async def configured(live: Running, channel: Channel, who: Enrolled | Session) -> Any:
    await channel.attach(who.token, who.key)
    kind: Any = control.ConnectorConfiguration if isinstance(who, Enrolled) else control.ClientConfiguration
    return await channel.wait_for(kind)


# ---- the connector's key


async def test_new_tokens_end_the_channel_of_the_connector_with_the_old_key(live: Running) -> None:
    connector, enrolled, _ = await office(live)
    async with live.channel() as channel:
        await configured(live, channel, enrolled)
        await live.connector_tokens(connector)
        cut = await channel.wait_for(control.Cut)
        await channel.send(control.CutReceipt(id=cut.id, stopped_at_ms=1, took_ms=0.1))
        assert (await channel.wait_for(control.Refused)).code == ConnectorTokensDead.code
    async with live.channel() as channel:
        await channel.attach(enrolled.token, enrolled.key)
        assert (await channel.wait_for(control.Refused)).code == ConnectorTokensDead.code


@pytest.mark.parametrize("asks", ["heartbeat", "renew", "renew-certificate"])
async def test_the_old_key_gets_nothing_even_before_a_snapshot_is_read(live: Running, asks: str) -> None:
    _, enrolled, _ = await office(live)
    message = {
        "heartbeat": HEARTBEAT,
        "renew": control.Renew(),
        "renew-certificate": control.RenewCertificate(request=certificate_request(enrolled.key)),
    }[asks]
    async with live.channel() as channel:
        await configured(live, channel, enrolled)
        # Behind the dispatch's back: no commit that anybody hears of.
        await live.write(lambda tx: tx.connectors.change(enrolled.id, enrolled_jkt="x" * 43))
        await channel.send(message)
        while True:
            text = await channel.text()
            if "heartbeat-answer" not in text:
                break
        refused = control.decode_to_connector(text)
        assert isinstance(refused, control.Refused), text
        assert refused.code == ConnectorTokensDead.code


async def test_clients_are_told_the_key_they_may_believe(live: Running) -> None:
    connector, enrolled, session = await office(live)
    jkt = (await live.read(lambda tx: tx.connectors.find()))[0].enrolled_jkt
    assert jkt
    async with live.attached(session) as channel:
        told = await channel.wait_for(control.ClientConfiguration)
        assert [entry.jkt for entry in told.connectors] == [jkt]
        tokens = await live.connector_tokens(connector)
        assert [entry.jkt for entry in (await channel.wait_for(control.ClientConfiguration)).connectors] == [""]
        again = await live.enrol(tokens)
        told = await channel.wait_for(control.ClientConfiguration)
        assert told.connectors[0].jkt not in ("", jkt)
        assert again.id == enrolled.id


# ---- a restored backup


def ahead(live: Running, stamp: tuple[int, int]) -> str:
    return sign_head(live.trust.signers[KeyPurpose.HEAD], stamp, network="acme", now=live.clock())


async def test_a_connector_is_given_a_signed_head(live: Running) -> None:
    _, enrolled, _ = await office(live)
    async with live.channel() as channel:
        told = await configured(live, channel, enrolled)
    head = verify_head(told.head, live.trust.keys[KeyPurpose.HEAD], network="acme")
    assert head == (told.epoch, told.revision)


async def test_the_head_is_the_one_that_the_cuts_beside_it_were_read_at(live: Running) -> None:
    _, enrolled, _ = await office(live)
    epoch, revision = await live.read(lambda tx: tx.head())
    # As right after a commit: the newest snapshot is older than what is read for the message.
    live.dispatch._snapshot = replace(live.dispatch.snapshot, stamp=(epoch, 1))
    async with live.channel() as channel:
        told = await configured(live, channel, enrolled)
    head = verify_head(told.head, live.trust.keys[KeyPurpose.HEAD], network="acme")
    assert (told.epoch, told.revision) == head == (epoch, revision)


@pytest.mark.parametrize("seconds", [-3600, 3600, 400 * 24 * 3600], ids=["before", "after", "long after"])
async def test_a_head_proves_whatever_the_clock_says(live: Running, seconds: float) -> None:
    _, enrolled, _ = await office(live)
    epoch, revision = await live.read(lambda tx: tx.head())
    proof = sign_head(live.trust.signers[KeyPurpose.HEAD], (epoch, revision + 1), network="acme", now=live.clock() - seconds)
    async with live.channel() as connector:
        await configured(live, connector, enrolled)
        await connector.send(control.Heartbeat(sequence=1, time_ms=0, head=proof))
        await connector.wait_for(control.HeartbeatAnswer)
        await eventually(lambda: live.read(lambda tx: tx.proven_head()))


async def test_a_head_of_another_network_or_key_proves_nothing(live: Running) -> None:
    keys, signer = live.trust.keys[KeyPurpose.HEAD], live.trust.signers[KeyPurpose.HEAD]
    for other in (
        sign_head(signer, (1 << 50, 1), network="other", now=live.clock()),
        sign_head(live.trust.signers[KeyPurpose.CUT], (1 << 50, 1), network="acme", now=live.clock()),
    ):
        with pytest.raises(InvalidToken):
            verify_head(other, keys, network="acme")


@pytest.mark.parametrize("later", [(0, 1), (1, -1000)], ids=["a later revision", "a later epoch"])
async def test_a_controller_that_is_proved_to_be_behind_grants_nothing_until_that_is_accepted(
    live: Running, later: tuple[int, int]
) -> None:
    _, enrolled, session = await office(live)
    _, key_file = await live.add_key(await live.add_account("other"))
    epoch, revision = await live.read(lambda tx: tx.head())
    proof = ahead(live, (epoch + later[0], max(1, revision + later[1])))
    async with live.channel() as connector, live.attached(session) as client:
        await client.wait_for(control.ClientConfiguration)
        await configured(live, connector, enrolled)
        await connector.send(control.Heartbeat(sequence=1, time_ms=0, head=proof))
        refused = await client.wait_for(control.Refused)
        assert (refused.code, refused.hint) == ("controller-unreachable", HINT)
        answer = await live.post(LOGIN_PATH, live.login_body(key_file, session.key))
        assert (answer.status_code, answer.json()["code"]) == (503, "controller-behind")
        assert (await live.last_event()).detail["alarm"] == "controller-behind"

        # What is changed counts the own head up, beyond the proved revision; that brings nothing back.
        for number in range(3):
            await live.add_resource(await live.add_network(f"new {number}"), f"new {number}", "new.internal")
        answer = await live.post(LOGIN_PATH, live.login_body(key_file, session.key))
        assert answer.json()["code"] == "controller-behind"
        # No certificate either, for a connector that is attached.
        await connector.send(control.RenewCertificate(request=certificate_request(enrolled.key)))
        assert await connector.closed() == TRY_AGAIN

        # Another program, on the controller's machine.
        state = str(live.config.state)
        environment = {} if live.config.postgres is None else {"KLINKET_DATABASE": _url(live.config.postgres)}
        done = await asyncio.to_thread(CliRunner().invoke, accept_head, ["--state", state, "--yes"], env=environment)
        assert "accepted: epoch" in done.output
        async with live.channel() as again:
            await configured(live, again, enrolled)
            await again.send(control.Heartbeat(sequence=2, time_ms=0, head=proof))

            async def granted() -> bool:
                async with live.attached(session) as once_more:
                    return '"client-configuration"' in await once_more.text()

            await eventually(granted)
    assert (await live.read(lambda tx: tx.head()))[0] > epoch + later[0]
    await live.log_in(key_file)


class Restarted(Running):
    async def api_token(self, scopes: tuple[str, ...]) -> str:
        return ""  # made before


async def test_a_restart_forgets_no_proof(tmp_path: Path) -> None:
    running = Running(tmp_path / "state")
    await running.open()
    connector = await running.add_connector(await running.add_network())
    tokens = await running.connector_tokens(connector)
    _, key_file = await running.add_key(await running.add_account())
    epoch, revision = await running.read(lambda tx: tx.head())
    assert await running.write(lambda tx: connectors.prove_head(tx, 1, (epoch, revision + 1), ""))
    assert not await running.write(lambda tx: connectors.prove_head(tx, 1, (epoch, revision + 1), "")), "told once"
    running.store.close()

    again = Restarted(tmp_path / "state")
    await again.open()
    body = again.login_body(key_file, signing.generate_private_key(), audience=again.config.public_url + LOGIN_PATH)
    enrolment = {**tokens, "certificate_request": certificate_request(signing.generate_private_key())}
    for path, document in ((LOGIN_PATH, body), (ENROL_PATH, enrolment)):
        answer = await again.post(path, document)
        assert (answer.status_code, answer.json()["code"]) == (503, "controller-behind"), path
    assert (await again.write(lambda tx: tx.begin_epoch()))[0] > epoch
    assert await again.read(lambda tx: tx.proven_head()) is None
    assert not await again.write(lambda tx: connectors.prove_head(tx, 1, (epoch, revision + 1), "")), "of an earlier epoch"
    for path, document in ((LOGIN_PATH, body), (ENROL_PATH, enrolment)):
        answer = await again.post(path, document)
        assert answer.status_code == 200, answer.text
    again.store.close()


HINT = "an admin has to look at what was restored, then: klinket issue accept-head --state DIR"


@pytest.mark.parametrize("proof", ["", "nonsense", "another controller's", "the present one"])
async def test_what_proves_nothing_changes_nothing(live: Running, tmp_path: Path, proof: str) -> None:
    _, enrolled, session = await office(live)
    epoch, revision = await live.read(lambda tx: tx.head())
    if proof == "another controller's":
        other = Running(tmp_path / "other")
        await other.open()
        proof = ahead(other, (epoch + 1, 1))
        other.store.close()
    elif proof == "the present one":
        proof = ahead(live, (epoch, revision))
    async with live.channel() as connector, live.attached(session) as client:
        await configured(live, connector, enrolled)
        await connector.send(control.Heartbeat(sequence=1, time_ms=0, head=proof))
        await connector.wait_for(control.HeartbeatAnswer)
        await client.wait_for(control.ClientConfiguration)
        await asyncio.sleep(RENEW_SECONDS)
        await client.send(control.Renew())
        assert (await client.wait_for(control.ClientConfiguration)).grants


async def test_a_new_database_is_a_later_epoch_than_an_older_one(tmp_path: Path) -> None:
    stamps = []
    for name in ("first", "second"):
        running = Running(tmp_path / name)
        stamps.append(await running.read(lambda tx: tx.head()))
        running.store.close()
        await asyncio.sleep(0.002)
    assert stamps[0] < stamps[1]


# ---- renewals and ends


async def test_renewals_of_one_peer_come_a_second_apart(live: Running) -> None:
    _, _, session = await office(live)
    async with live.attached(session) as channel:
        await channel.wait_for(control.ClientConfiguration)
        begun = asyncio.get_running_loop().time()
        for _ in range(50):
            await channel.send(control.Renew())
        for _ in range(3):
            await channel.wait_for(control.ClientConfiguration)
        assert asyncio.get_running_loop().time() - begun >= 2 * RENEW_SECONDS * 0.99


async def ended(live: Running) -> tuple[dict[str, Any], int]:
    """Return the audit detail of the end of the session, and how many cuts there are."""
    events = [event for event in await live.audit() if event.detail.get("session") == "ended"]
    assert len(events) == 1
    assert events[0].targets[0]["type"] == "session"
    assert events[0].actor["info"]["name"] == "ci"
    return events[0].detail, len(await live.read(lambda tx: tx.cuts.find()))


async def test_a_client_that_ends_its_session_is_audited(live: Running) -> None:
    _, _, session = await office(live)
    async with live.attached(session) as channel:
        await channel.send(control.EndSession())

        async def over() -> bool:
            row = await live.read(lambda tx: tx.sessions.get(session.id))
            return row is not None and row.ended_at_ms is not None

        await eventually(over)
    assert await ended(live) == ({"session": "ended", "reason": "the client has ended"}, 0)


@pytest.mark.parametrize("right", [True, False], ids=["the logout's audience", "the login's audience"])
async def test_a_logout_is_audited_and_cuts_what_lives(live: Running, right: bool) -> None:
    network = await live.add_network()
    connector = await live.enrol(await live.connector_tokens(await live.add_connector(network, "office-1")))
    account = await live.add_account(resources=[await live.add_resource(network)])
    _, key_file = await live.add_key(account)
    session = await live.log_in(key_file)
    audience = live.config.public_url + LOGOUT_PATH if right else key_file.login_url
    body = live.login_body(key_file, session.key, typ=assertion.END_TYP, audience=audience)
    async with live.channel() as channel:
        await configured(live, channel, connector)
        answer = await live.post(LOGOUT_PATH, {"assertion": body["assertion"]})
        assert answer.status_code == 204
        if right:
            await channel.wait_for(control.Cut)
            assert await ended(live) == ({"session": "ended", "reason": "logout"}, 1)
            assert [cut.scope for cut in await live.read(lambda tx: tx.cuts.find())] == [f"session {session.id}"]
        else:
            row = await live.read(lambda tx: tx.sessions.get(session.id))
            assert row is not None
            assert row.ended_at_ms is None


async def test_a_connector_that_is_not_believed_is_told_so_in_one_place(live: Running) -> None:
    _, enrolled, _ = await office(live)
    with pytest.raises(ConnectorTokensDead):
        await live.read(lambda tx: connectors.believed(tx, enrolled.id, ""))
    with pytest.raises(ConnectorTokensDead):
        await live.read(lambda tx: connectors.believed(tx, 999, "x"))
