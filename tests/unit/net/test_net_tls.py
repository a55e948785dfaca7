"""TLS on raw sockets: real handshakes, keys that touch no disk, and contexts that trust whom they are told to."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from klinket.domain.errors import InvalidInput
from klinket.net import tls
from klinket.net.channel import controller_context
from klinket.net.tls import TlsStream, certificate_digest
from tests.unit.net.conftest import tcp_pair

AUTHORITY = trustme.CA()
CERTIFICATE = AUTHORITY.issue_cert("relay.example")


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_identity(
        context,
        b"".join(one.bytes() for one in CERTIFICATE.cert_chain_pems).decode(),
        CERTIFICATE.private_key_pem.bytes().decode(),
    )
    context.set_alpn_protocols(["echo"])
    return context


def client_context(authority: trustme.CA = AUTHORITY) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    authority.configure_trust(context)
    context.set_alpn_protocols(["echo"])
    return context


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, two = tcp_pair()
    yield one, two
    one.close()
    two.close()


async def test_bytes_go_both_ways_and_the_first_ones_may_have_been_read_already(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    client = TlsStream(pair[0], client_context(), server_side=False)
    shaking = asyncio.ensure_future(client.handshake())
    first = await asyncio.get_running_loop().sock_recv(pair[1], 1)
    server = TlsStream(pair[1], server_context(), server_side=True, received=first)
    await asyncio.gather(shaking, server.handshake())
    assert client.protocol == server.protocol == "echo"
    der = ssl.PEM_cert_to_DER_cert(CERTIFICATE.cert_chain_pems[0].bytes().decode())
    assert certificate_digest(client.peer_certificate) == certificate_digest(der)
    with pytest.raises(ssl.SSLError, match="no certificate"):
        _ = server.peer_certificate
    large = bytes(range(256)) * 1024
    received, _ = await asyncio.gather(server.read_exactly(len(large)), client.write(large))
    assert received == large
    await server.write(b"answer and more")
    assert await client.read_exactly(6) == b"answer"
    assert await client.read_exactly(9) == b" and more"


async def test_an_end_in_the_middle_is_an_error(pair: tuple[socket.socket, socket.socket]) -> None:
    client = TlsStream(pair[0], client_context(), server_side=False)
    server = TlsStream(pair[1], server_context(), server_side=True)
    await asyncio.gather(client.handshake(), server.handshake())
    await server.write(b"half")
    await server.close()
    pair[1].close()
    with pytest.raises(ConnectionError):
        await client.read_exactly(8)


async def test_a_peer_that_goes_away_during_the_handshake(pair: tuple[socket.socket, socket.socket]) -> None:
    client = TlsStream(pair[0], client_context(), server_side=False)
    pair[1].close()
    async with asyncio.timeout(5):
        with pytest.raises(OSError):
            await client.handshake()


async def test_who_is_not_trusted_is_told_by_an_alert(pair: tuple[socket.socket, socket.socket]) -> None:
    client = TlsStream(pair[0], client_context(trustme.CA()), server_side=False)
    server = TlsStream(pair[1], server_context(), server_side=True)
    refused, told = await asyncio.gather(client.handshake(), server.handshake(), return_exceptions=True)
    assert isinstance(refused, ssl.SSLCertVerificationError)
    if not isinstance(told, Exception):  # TLS 1.3: the server is ready before the client has looked
        with pytest.raises(ssl.SSLError, match=r"(?i)unknown.ca"):
            await server.read_exactly(1)


def test_a_key_is_loaded_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    server_context()


@pytest.mark.parametrize("text", ["", " \n", "not PEM", "ä", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_an_authority_that_is_none_is_refused_and_never_replaced_by_the_systems(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        controller_context(text)
    assert caught.value.field == "controller_ca"


def test_a_named_authority_is_the_only_one_trusted() -> None:
    assert len(controller_context(AUTHORITY.cert_pem.bytes().decode()).get_ca_certs()) == 1
