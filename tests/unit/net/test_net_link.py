"""Making a link over real TLS 1.3: both ends get the same secret, and only with whom they mean to."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from klinket.controller.authority import Authority, AuthorityPurpose
from klinket.domain.errors import AuthenticationFailed
from klinket.domain.grant import Principal
from klinket.domain.identifiers import ConnectorId, Kid, ServiceAccountUuid, SessionId
from klinket.net import link as net_link
from klinket.net import pipe as pipes
from klinket.net import tls
from klinket.net.link import AcceptedLink, Leaf, LinkInitiator, LinkRefused, LinkTerminator
from klinket.net.tls import TlsStream
from klinket.wire import link as wire
from klinket.wire import signing
from klinket.wire.identity import ClientIdentity, ConnectorIdentity
from klinket.wire.link import Link
from klinket.wire.version import LINK_PROTOCOL
from tests.unit.net.conftest import tcp_pair

NOW = time.time()
NETWORK = "acme"
CLIENTS = Authority.make(AuthorityPurpose.CLIENT, NETWORK, NOW)
CONNECTORS = Authority.make(AuthorityPurpose.CONNECTOR, NETWORK, NOW)
PRINCIPAL = Principal(ServiceAccountUuid("11111111-2222-4333-8444-555555555555"), Kid("key-1"), SessionId("a" * 22))
CLIENT = ClientIdentity(NETWORK, PRINCIPAL)
CONNECTOR = ConnectorIdentity(NETWORK, ConnectorId(7))


@dataclass
class Side:
    """A key and its certificate."""

    key: signing.PrivateKey
    certificate: str


def certified(
    authority: Authority, uri: str, *, now: float = NOW, lifetime: float = 3600.0, key: signing.PrivateKey | None = None
) -> Side:
    key = key or signing.generate_private_key()
    return Side(key, authority.certify(key.public_key(), uri, now=now, lifetime=lifetime))


#: The key that the controller names to clients, and its thumbprint.
CONNECTOR_KEY = signing.generate_private_key()
CONNECTOR_JKT = signing.thumbprint(CONNECTOR_KEY.public_key())


def initiator(side: Side | None = None, authority: Authority = CONNECTORS) -> LinkInitiator:
    mine = side or certified(CLIENTS, CLIENT.uri)
    return LinkInitiator(mine.certificate, mine.key, authority.certificate_pem)


def terminator(side: Side | None = None, authority: Authority = CLIENTS, network: str = NETWORK) -> LinkTerminator:
    mine = side or certified(CONNECTORS, CONNECTOR.uri, key=CONNECTOR_KEY)
    return LinkTerminator(mine.certificate, mine.key, authority.certificate_pem, network)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, two = tcp_pair()
    yield one, two
    one.close()
    two.close()


async def handshake(
    pair: tuple[socket.socket, socket.socket],
    client: LinkInitiator,
    connector: LinkTerminator,
    *,
    expected: ConnectorIdentity = CONNECTOR,
    now: float = NOW,
) -> tuple[Link | BaseException, AcceptedLink | BaseException]:
    """Run both sides; return what each got, or why not."""

    async def accept() -> AcceptedLink:
        await pipes.greet(pair[1], os.urandom)
        first = await asyncio.get_running_loop().sock_recv(pair[1], 1)
        try:
            return await connector.accept(pair[1], first, now=now, entropy=os.urandom)
        finally:
            pair[1].close()

    async def offer() -> Link:
        try:
            return await client.offer(pair[0], expected, CONNECTOR_JKT, now=now, entropy=os.urandom)
        finally:
            pair[0].close()

    return tuple(await asyncio.gather(offer(), accept(), return_exceptions=True))  # type: ignore[return-value]


async def test_both_ends_share_a_secret_and_know_each_other(pair: tuple[socket.socket, socket.socket]) -> None:
    side = certified(CLIENTS, CLIENT.uri)
    link, accepted = await handshake(pair, initiator(side), terminator())
    assert isinstance(link, Link)
    assert isinstance(accepted, AcceptedLink)
    assert (link.secret, link.handle) == (accepted.link.secret, accepted.link.handle)
    assert accepted.identity == CLIENT
    assert accepted.jkt == signing.thumbprint(side.key.public_key())


async def test_each_link_has_a_secret_of_its_own() -> None:
    client, connector, secrets = initiator(), terminator(), set()
    for _ in range(2):
        link, _ = await handshake(tcp_pair(), client, connector)
        assert isinstance(link, Link)
        secrets.add(link.secret)
    assert len(secrets) == 2


async def test_a_link_ends_with_the_first_certificate_and_after_an_hour_at_the_latest(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    now = time.time()
    short = certified(CLIENTS, CLIENT.uri, now=now, lifetime=600)
    link, accepted = await handshake(pair, initiator(short), terminator(), now=now)
    assert isinstance(link, Link)
    assert isinstance(accepted, AcceptedLink)
    assert abs(link.expires_at - (now + 600)) < 2
    assert link.expires_at == accepted.link.expires_at
    long = certified(CLIENTS, CLIENT.uri, lifetime=90_000)
    link, _ = await handshake(
        tcp_pair(), initiator(long), terminator(certified(CONNECTORS, CONNECTOR.uri, lifetime=90_000, key=CONNECTOR_KEY)), now=now
    )
    assert isinstance(link, Link)
    assert link.expires_at == now + wire.MAX_LINK_SECONDS


@pytest.mark.parametrize("ahead", [3600.0, -3600.0, 20 * 365 * 86_400.0])
async def test_certificates_are_judged_by_the_controllers_time_and_not_by_this_machines_clock(ahead: float) -> None:
    purposes = (AuthorityPurpose.CLIENT, AuthorityPurpose.CONNECTOR)
    authorities = [Authority.make(purpose, NETWORK, NOW + ahead) for purpose in purposes]
    client = certified(authorities[0], CLIENT.uri, now=NOW + ahead)
    connector = certified(authorities[1], CONNECTOR.uri, now=NOW + ahead, key=CONNECTOR_KEY)
    ends = initiator(client, authorities[1]), terminator(connector, authorities[0])
    link, accepted = await handshake(tcp_pair(), *ends, now=NOW + ahead)
    assert isinstance(link, Link)
    assert isinstance(accepted, AcceptedLink)
    link, accepted = await handshake(tcp_pair(), *ends, now=NOW + ahead + 3601)
    assert isinstance(link, (LinkRefused, OSError))
    assert isinstance(accepted, LinkRefused)
    assert "has expired" in accepted.message


async def test_a_certificate_made_while_the_controllers_clock_was_ahead_counts_when_it_is_right_again() -> None:
    client = certified(CLIENTS, CLIENT.uri, now=NOW + 3600)
    connector = certified(CONNECTORS, CONNECTOR.uri, now=NOW + 3600, key=CONNECTOR_KEY)
    link, accepted = await handshake(tcp_pair(), initiator(client), terminator(connector))
    assert isinstance(link, Link)
    assert isinstance(accepted, AcceptedLink)


async def test_certificates_of_an_authority_that_is_over_count_no_more() -> None:
    then = NOW - 3650 * 86_400 - 1
    over = Authority.make(AuthorityPurpose.CLIENT, NETWORK, then)
    _, accepted = await handshake(tcp_pair(), initiator(certified(over, CLIENT.uri)), terminator(authority=over))
    assert isinstance(accepted, LinkRefused)


OTHER = Authority.make(AuthorityPurpose.CONNECTOR, NETWORK, NOW)
OTHER_CLIENTS = Authority.make(AuthorityPurpose.CLIENT, NETWORK, NOW)


@pytest.mark.parametrize(
    ("side", "authority"),
    [
        (
            lambda: certified(CONNECTORS, ConnectorIdentity(NETWORK, ConnectorId(8)).uri, key=CONNECTOR_KEY),
            CONNECTORS,
        ),  # another connector
        (
            lambda: certified(CONNECTORS, ConnectorIdentity("other", ConnectorId(7)).uri, key=CONNECTOR_KEY),
            CONNECTORS,
        ),  # of another network
        (lambda: certified(CONNECTORS, CONNECTOR.uri + "0", key=CONNECTOR_KEY), CONNECTORS),
        (lambda: certified(CONNECTORS, CLIENT.uri, key=CONNECTOR_KEY), CONNECTORS),
        (
            lambda: certified(OTHER, CONNECTOR.uri, key=CONNECTOR_KEY),
            CONNECTORS,
        ),  # not certified by the authority the controller names
        (
            lambda: certified(CLIENTS, CONNECTOR.uri, key=CONNECTOR_KEY),
            CONNECTORS,
        ),  # a client's authority certifies no connectors
        (lambda: certified(CONNECTORS, CONNECTOR.uri, now=NOW - 10 * 365 * 86_400, key=CONNECTOR_KEY), CONNECTORS),  # over
        (lambda: certified(CONNECTORS, CONNECTOR.uri), CONNECTORS),  # certified for tokens that were replaced since
    ],
    ids=[
        "other connector",
        "other network",
        "longer id",
        "a client",
        "other authority",
        "clients' authority",
        "over",
        "another key",
    ],
)
async def test_a_client_makes_no_link_with_anybody_but_the_connector_it_means(
    pair: tuple[socket.socket, socket.socket], side: object, authority: Authority
) -> None:
    link, accepted = await handshake(pair, initiator(authority=authority), terminator(side()))  # type: ignore[operator]
    assert isinstance(link, LinkRefused)
    assert not isinstance(accepted, AcceptedLink), "the connector has no link either"


@pytest.mark.parametrize(
    "side",
    [
        lambda: certified(OTHER_CLIENTS, CLIENT.uri),
        lambda: certified(CONNECTORS, CLIENT.uri),
        lambda: certified(CLIENTS, ClientIdentity("other", PRINCIPAL).uri),
        lambda: certified(CLIENTS, CONNECTOR.uri),
        lambda: certified(CLIENTS, "spiffe://acme/nobody"),
        lambda: certified(CLIENTS, CLIENT.uri, now=NOW - 10 * 365 * 86_400),
    ],
    ids=["other authority", "connectors' authority", "other network", "a connector", "nobody", "over"],
)
async def test_a_connector_takes_nobody_who_is_no_client_of_its_network(
    pair: tuple[socket.socket, socket.socket], side: object
) -> None:
    link, accepted = await handshake(pair, initiator(side()), terminator())  # type: ignore[operator]
    assert isinstance(accepted, AuthenticationFailed)
    assert isinstance(link, (AuthenticationFailed, OSError))


async def test_a_client_without_a_certificate_gets_no_link(pair: tuple[socket.socket, socket.socket]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=CONNECTORS.certificate_pem)
    context.set_alpn_protocols([LINK_PROTOCOL])
    client = TlsStream(pair[0], context, server_side=False)
    accepting = asyncio.ensure_future(terminator().accept(pair[1], b"", now=NOW, entropy=os.urandom))
    await asyncio.gather(client.handshake(), return_exceptions=True)
    with pytest.raises(LinkRefused):
        await accepting


async def test_tls_1_2_and_another_protocol_are_not_spoken(pair: tuple[socket.socket, socket.socket]) -> None:
    for change in ("version", "protocol"):
        one, two = tcp_pair()
        mine = certified(CLIENTS, CLIENT.uri)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=CONNECTORS.certificate_pem)
        tls.load_identity(context, mine.certificate, signing.private_key_to_pem(mine.key))
        if change == "version":
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        else:
            context.set_alpn_protocols(["h2"])
        client = TlsStream(one, context, server_side=False)
        accepting = asyncio.ensure_future(terminator().accept(two, b"", now=NOW, entropy=os.urandom))
        await asyncio.gather(client.handshake(), return_exceptions=True)
        with pytest.raises(LinkRefused):
            await accepting
        one.close()
        two.close()


async def test_a_peer_that_says_nothing_is_not_waited_for(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(net_link, "HANDSHAKE_SECONDS", 0.1)
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError):
            await initiator().offer(pair[0], CONNECTOR, CONNECTOR_JKT, now=NOW, entropy=os.urandom)
        with pytest.raises(TimeoutError):
            await terminator().accept(pair[1], b"", now=NOW, entropy=os.urandom)


def test_a_leaf_names_exactly_one_identity() -> None:
    der = ssl.PEM_cert_to_DER_cert(certified(CLIENTS, CLIENT.uri).certificate)
    assert Leaf.parse(der).uri == CLIENT.uri
    web = Authority.make(AuthorityPurpose.WEB, NETWORK, NOW)
    named = web.certify_web(signing.generate_private_key().public_key(), ["a.example"], NOW)
    for bad in (b"", b"\x30\x00", der[:-1], ssl.PEM_cert_to_DER_cert(named), ssl.PEM_cert_to_DER_cert(CLIENTS.certificate_pem)):
        with pytest.raises(LinkRefused):
            Leaf.parse(bad)
