"""A link: what one mutual TLS 1.3 handshake between a client and a connector leaves behind (security.md 1-2).

Inside TLS, after both ends checked role and identity, client and connector exchange:

    client -> connector   random (32) | ML-KEM-768 encapsulation key (1184)
    connector -> client   random (32) | ML-KEM-768 ciphertext (1088) | handle (16)

    secret = HKDF-Extract(SHA-256(client leaf DER || connector leaf DER), client random || connector random || ML-KEM secret)
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey

from klinket.domain.errors import ProtocolError

Entropy = Callable[[int], bytes]

RANDOM_BYTES = 32
HANDLE_BYTES = 16
ENCAPSULATION_KEY_BYTES = 1184
CIPHERTEXT_BYTES = 1088
OFFER_BYTES = RANDOM_BYTES + ENCAPSULATION_KEY_BYTES
ANSWER_BYTES = RANDOM_BYTES + CIPHERTEXT_BYTES + HANDLE_BYTES
#: Seconds a link lives at the most; it is replaced at half of that.
MAX_LINK_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """A link at one end. `handle` names it on pipes; `secret` (32 bytes) never leaves memory.

    `expires_at` in seconds since the epoch: no later than either certificate.
    """

    handle: bytes
    secret: bytes = field(repr=False)
    expires_at: float


class LinkOffer:
    """The client's half of the exchange; used once."""

    def __init__(self, entropy: Entropy) -> None:
        self._random = entropy(RANDOM_BYTES)
        self._key = MLKEM768PrivateKey.generate()

    def payload(self) -> bytes:
        """Return what the client sends, OFFER_BYTES long."""
        return self._random + self._key.public_key().public_bytes_raw()

    def finish(self, answer: bytes, client_leaf: bytes, connector_leaf: bytes, expires_at: float) -> Link:
        """Return the link of the connector's answer (ANSWER_BYTES); certificates in DER. Raises ProtocolError."""
        if len(answer) != ANSWER_BYTES:
            raise ProtocolError(f"link answer of {len(answer)} bytes instead of {ANSWER_BYTES}")
        random, ciphertext = answer[:RANDOM_BYTES], answer[RANDOM_BYTES : RANDOM_BYTES + CIPHERTEXT_BYTES]
        shared = self._key.decapsulate(ciphertext)
        secret = derive_secret(client_leaf, connector_leaf, self._random, random, shared)
        return Link(answer[-HANDLE_BYTES:], secret, expires_at)


def answer_offer(
    offer: bytes, entropy: Entropy, client_leaf: bytes, connector_leaf: bytes, expires_at: float
) -> tuple[bytes, Link]:
    """Return the connector's answer to an offer (OFFER_BYTES), and its link. Raises ProtocolError."""
    if len(offer) != OFFER_BYTES:
        raise ProtocolError(f"link offer of {len(offer)} bytes instead of {OFFER_BYTES}")
    try:
        shared, ciphertext = MLKEM768PublicKey.from_public_bytes(offer[RANDOM_BYTES:]).encapsulate()
    except ValueError as error:
        raise ProtocolError("link offer: not an ML-KEM-768 key") from error
    random, handle = entropy(RANDOM_BYTES), entropy(HANDLE_BYTES)
    secret = derive_secret(client_leaf, connector_leaf, offer[:RANDOM_BYTES], random, shared)
    return random + ciphertext + handle, Link(handle, secret, expires_at)


def derive_secret(
    client_leaf: bytes, connector_leaf: bytes, client_random: bytes, connector_random: bytes, shared: bytes
) -> bytes:
    """Return the link secret: HKDF-Extract with SHA-256 (RFC 5869 §2.2)."""
    salt = hashlib.sha256(client_leaf + connector_leaf).digest()
    return hmac.digest(salt, client_random + connector_random + shared, "sha256")
