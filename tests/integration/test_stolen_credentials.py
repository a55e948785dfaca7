"""What one session holds is worth nothing to another: certificates, grants, access tokens and keys do not mix."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace

import pytest

from klinket.client.channel import ClientChannel
from klinket.client.client import Client
from klinket.client.core import ClientCore
from klinket.client.link import ConnectorLink, LinkLost
from klinket.client.login import Session, log_in
from klinket.domain.errors import KlinketError
from klinket.net import channel
from klinket.net.clock import PeerClock
from klinket.net.link import LinkInitiator
from klinket.net.relay_path import RelayPath
from klinket.wire import access_token, control
from klinket.wire.control import ClientConfiguration
from klinket.wire.inventory import ConnectorEntry
from klinket.wire.key_file import KeyFile, parse_key_file
from klinket.wire.relay import RelayRole
from klinket.wire.version import PRODUCT_VERSION
from tests.integration.conftest import Loopback

pytestmark = [pytest.mark.alone, pytest.mark.timeout(90)]


@dataclass
class Holder:
    """A session and the configuration it was given."""

    key_file: KeyFile
    session: Session
    configuration: ClientConfiguration

    @property
    def connector(self) -> ConnectorEntry:
        return self.configuration.connectors[0]

    async def link(self, initiator: LinkInitiator, configuration: ClientConfiguration) -> None:
        """Make a link with the connector and present a grant; raises LinkLost when it is refused."""
        core = ClientCore()
        core.configure(configuration)
        relay = configuration.relays[0]
        path = RelayPath(relay, RelayRole.CLIENT, lambda: core.ticket_for(relay.id), time.time)
        link = await ConnectorLink.open(self.connector, [path], initiator, configuration.network, core, PeerClock().now)
        await link.aclose()

    def initiator(self, session: Session) -> LinkInitiator:
        return LinkInitiator(session.certificate, session.key, self.configuration.connector_authority)


async def hold(world: Loopback) -> Holder:
    """Log in and attach as a client does, and keep what it receives."""
    key_file = parse_key_file(world.key.read_bytes())
    context = channel.controller_context(key_file.controller_ca)
    session = await log_in(key_file, context)
    received: asyncio.Future[ClientConfiguration] = asyncio.get_running_loop().create_future()

    def take(configuration: ClientConfiguration) -> None:
        if not received.done():
            received.set_result(configuration)

    live = ClientChannel(f"https://{key_file.network}", context, PeerClock(), take, lambda _: None)
    attached = asyncio.create_task(live.attach(session))
    try:
        return Holder(key_file, session, await asyncio.wait_for(received, 10))
    finally:
        attached.cancel()
        await asyncio.gather(attached, return_exceptions=True)


async def test_a_session_reaches_the_connector_with_what_is_its_own(loopback: Loopback) -> None:
    mine = await hold(loopback)
    await mine.link(mine.initiator(mine.session), mine.configuration)  # otherwise the refusals below would prove nothing


async def test_the_grant_of_another_session_is_refused(loopback: Loopback) -> None:
    mine, stolen = await hold(loopback), await hold(loopback)
    mixed = control_with_grants(mine.configuration, stolen.configuration)
    with pytest.raises(LinkLost, match="refused the grant"):
        await mine.link(mine.initiator(mine.session), mixed)


async def test_the_certificate_of_another_session_is_refused(loopback: Loopback) -> None:
    mine, stolen = await hold(loopback), await hold(loopback)
    with pytest.raises((KlinketError, OSError, ValueError)):
        await mine.link(mine.initiator(replace(mine.session, certificate=stolen.session.certificate)), mine.configuration)


async def test_a_certificate_of_another_authority_is_refused(loopback: Loopback) -> None:
    from klinket.controller.authority import Authority, AuthorityPurpose

    mine = await hold(loopback)
    now = PeerClock().now()
    forged = Authority.make(AuthorityPurpose.CLIENT, mine.configuration.network, now)
    identity = f"spiffe://{mine.configuration.network}/service-account/{mine.key_file.service_account_id}"
    uri = f"{identity}/key/{mine.key_file.key_id}/session/{mine.session.id}"
    certificate = forged.certify(mine.session.key.public_key(), uri, now=now, lifetime=600.0)
    with pytest.raises(LinkLost):
        await mine.link(mine.initiator(replace(mine.session, certificate=certificate)), mine.configuration)


@pytest.mark.parametrize("stolen_part", ["access token", "proof"])
async def test_the_access_token_or_proof_of_another_session_attaches_nobody(loopback: Loopback, stolen_part: str) -> None:
    mine, stolen = await hold(loopback), await hold(loopback)
    token = stolen.session.access_token if stolen_part == "access token" else mine.session.access_token
    key = stolen.session.key if stolen_part == "proof" else mine.session.key
    answer = await attach(mine.key_file, token, lambda nonce, now: access_token.sign_proof(key, nonce, now=now))
    assert isinstance(answer, control.Refused)
    assert "token" in answer.code or "session" in answer.code or "authentication" in answer.code


async def test_a_proof_for_an_earlier_challenge_attaches_nobody(loopback: Loopback) -> None:
    mine = await hold(loopback)
    old = access_token.sign_proof(mine.session.key, "an-earlier-nonce", now=PeerClock().now())
    assert isinstance(await attach(mine.key_file, mine.session.access_token, lambda _, __: old), control.Refused)


async def test_a_client_does_not_take_a_connectors_place_at_the_relay(loopback: Loopback) -> None:
    mine = await hold(loopback)
    relay = mine.configuration.relays[0]
    token = next(ticket.token for ticket in mine.configuration.tickets if ticket.relay == relay.id)
    path = RelayPath(relay, RelayRole.CONNECTOR, lambda: token, time.time)
    with pytest.raises(KlinketError):
        waiting = await path.register(mine.connector.id)
        await asyncio.wait_for(waiting.paired(), 10)
    loopback.wait_until_reachable()


def control_with_grants(mine: ClientConfiguration, stolen: ClientConfiguration) -> ClientConfiguration:
    """Return my configuration with the other session's grants in it."""
    import msgspec

    assert {grant.token for grant in mine.grants}.isdisjoint(grant.token for grant in stolen.grants)
    return msgspec.structs.replace(mine, grants=stolen.grants)


async def attach(key_file: KeyFile, token: str, proof: object) -> control.ToClient:
    """Attach to the controller with this token and proof; return its first answer."""
    context = channel.controller_context(key_file.controller_ca)
    async with channel.open_channel(
        f"https://{key_file.network}", control.CHANNEL_PATH, context, max_bytes=control.MAX_CONTROL_BYTES
    ) as connection:
        challenge = control.decode_to_client(await channel.receive(connection, 10))
        assert isinstance(challenge, control.Challenge)
        assert callable(proof)
        made = control.Attach(access_token=token, proof=proof(challenge.nonce, challenge.time_ms / 1000), version=PRODUCT_VERSION)
        await channel.send(connection, control.encode(made))
        return control.decode_to_client(await channel.receive(connection, 10))


async def test_a_client_ends_for_good_when_its_key_is_revoked(loopback: Loopback) -> None:
    key = loopback.deployment.add_key("ci", "ends-for-good")
    client = Client(parse_key_file(key.read_bytes()))
    await client.start()
    try:
        await asyncio.to_thread(loopback.deployment.admin, "service", "key", "revoke", "ci", "ends-for-good")
        await asyncio.wait_for(client.ended.wait(), 10)
        assert client.end_reason is not None
        assert client.end_reason.code == "service-key-revoked"
    finally:
        await client.aclose()
