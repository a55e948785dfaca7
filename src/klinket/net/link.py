"""Making a link: one mutual TLS 1.3 handshake, exact identities, then the secret exchange (security.md 1-2, 11)."""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from klinket.domain.errors import AuthenticationFailed
from klinket.domain.identifiers import Thumbprint
from klinket.net import sockets, tls
from klinket.wire import link as wire
from klinket.wire import pipe, signing
from klinket.wire.identity import ClientIdentity, ConnectorIdentity
from klinket.wire.link import Entropy, Link
from klinket.wire.version import LINK_PROTOCOL

#: OpenSSL's X509_V_FLAG_NO_CHECK_TIME, which ssl does not name: by whose clock certificates end is decided here.
_NO_CHECK_TIME = 0x200000
#: Seconds a handshake may take.
HANDSHAKE_SECONDS = 10.0


class LinkRefused(AuthenticationFailed):
    """The other end of a link is not who it must be, or the handshake failed."""

    code = "link-refused"


@dataclass(frozen=True, slots=True)
class AcceptedLink:
    """A link at the connector, with the proven identity of its client."""

    link: Link
    identity: ClientIdentity
    jkt: Thumbprint


@dataclass(frozen=True, slots=True)
class Leaf:
    """What counts of a leaf certificate."""

    der: bytes
    uri: str
    public_key: signing.PublicKey
    expires_at: float

    @classmethod
    def parse(cls, der: bytes) -> Leaf:
        """Return the leaf's single URI, P-256 key and end; raises LinkRefused."""
        try:
            certificate = x509.load_der_x509_certificate(der)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            uris = names.get_values_for_type(x509.UniformResourceIdentifier)
            key = certificate.public_key()
        except (ValueError, x509.ExtensionNotFound) as error:
            raise LinkRefused("the peer's certificate is not understood") from error
        if len(uris) != 1 or len(list(names)) != 1 or not isinstance(key, ec.EllipticCurvePublicKey):
            raise LinkRefused("the peer's certificate does not name exactly one identity")
        return cls(der, uris[0], key, certificate.not_valid_after_utc.timestamp())


def _context(purpose: int, certificate_pem: str, key: signing.PrivateKey, authority_pem: str) -> ssl.SSLContext:
    context = ssl.SSLContext(purpose)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the identity is the URI of the proven leaf, never a name
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT | _NO_CHECK_TIME
    context.load_verify_locations(cadata=authority_pem)
    context.set_alpn_protocols([LINK_PROTOCOL])
    tls.load_identity(context, certificate_pem, signing.private_key_to_pem(key))
    return context


def _end_of(authority_pem: str) -> float:
    return x509.load_pem_x509_certificate(authority_pem.encode()).not_valid_after_utc.timestamp()


def _check_end(peer: Leaf, authority_end: float, now: float) -> None:
    """Raise LinkRefused for a certificate that is over by the controller's time, which `now` is: this machine's may be stepped.

    When it begins does not count: one that begins later was made while the controller's clock was ahead, and by nobody else.
    """
    if min(peer.expires_at, authority_end) <= now:
        raise LinkRefused(f"the certificate of {peer.uri} has expired")


def _leaf_of(certificate_pem: str) -> Leaf:
    return Leaf.parse(ssl.PEM_cert_to_DER_cert(certificate_pem))


class LinkInitiator:
    """The client's side, for one certificate; make a new one when the certificate is renewed."""

    def __init__(self, certificate_pem: str, key: signing.PrivateKey, connector_authority_pem: str) -> None:
        self._own = _leaf_of(certificate_pem)
        self._context = _context(ssl.PROTOCOL_TLS_CLIENT, certificate_pem, key, connector_authority_pem)
        self._authority_end = _end_of(connector_authority_pem)

    async def offer(
        self, sock: socket.socket, expected: ConnectorIdentity, jkt: Thumbprint, *, now: float, entropy: Entropy
    ) -> Link:
        """Make a link on a connection whose greeting was not read yet; closes nothing. `now`: the controller's time.

        Raises LinkRefused when the peer is not exactly `expected` with the key of thumbprint `jkt`, OSError when the
        connection fails.
        """
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await sockets.receive_exactly(sock, pipe.GREETING_BYTES)  # it is for pipes; a link does not use it
                stream = tls.TlsStream(sock, self._context, server_side=False)
                await stream.handshake()
                peer = Leaf.parse(stream.peer_certificate)
                if stream.protocol != LINK_PROTOCOL or peer.uri != expected.uri:
                    raise LinkRefused(f"the other end is {peer.uri}, not {expected.uri}")
                _check_end(peer, self._authority_end, now)
                if not signing.same(signing.thumbprint(peer.public_key), jkt):
                    raise LinkRefused(f"{peer.uri} has another key than the controller names: its tokens were replaced")
                offer = wire.LinkOffer(entropy)
                await stream.write(offer.payload())
                answer = await stream.read_exactly(wire.ANSWER_BYTES)
                await stream.close()
        except ssl.SSLError as error:
            raise LinkRefused(f"the link's handshake failed: {error.reason or error}") from error
        return offer.finish(answer, self._own.der, peer.der, _end(self._own, peer, now))


class LinkTerminator:
    """The connector's side, for one certificate."""

    def __init__(self, certificate_pem: str, key: signing.PrivateKey, client_authority_pem: str, network: str) -> None:
        self._own = _leaf_of(certificate_pem)
        self._network = network
        self._context = _context(ssl.PROTOCOL_TLS_SERVER, certificate_pem, key, client_authority_pem)
        self._authority_end = _end_of(client_authority_pem)
        self._context.num_tickets = 0

    async def accept(self, sock: socket.socket, received: bytes, *, now: float, entropy: Entropy) -> AcceptedLink:
        """Answer a link handshake whose first bytes are `received`; `now`: the controller's time. Raises LinkRefused, OSError."""
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                stream = tls.TlsStream(sock, self._context, server_side=True, received=received)
                await stream.handshake()
                peer = Leaf.parse(stream.peer_certificate)
                identity = ClientIdentity.parse(peer.uri)
                if stream.protocol != LINK_PROTOCOL or identity.network != self._network:
                    raise LinkRefused("a client of another network or protocol")
                _check_end(peer, self._authority_end, now)
                offer = await stream.read_exactly(wire.OFFER_BYTES)
                answer, link = wire.answer_offer(offer, entropy, peer.der, self._own.der, _end(self._own, peer, now))
                await stream.write(answer)
                await stream.close()
        except ssl.SSLError as error:
            raise LinkRefused(f"the link's handshake failed: {error.reason or error}") from error
        return AcceptedLink(link, identity, signing.thumbprint(peer.public_key))


def _end(own: Leaf, peer: Leaf, now: float) -> float:
    return min(now + wire.MAX_LINK_SECONDS, own.expires_at, peer.expires_at)
