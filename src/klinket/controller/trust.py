"""Everything the controller signs with: authorities and signing keys, sealed in the store (DESIGN §3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from klinket.controller.app.ports import Store, Transaction
from klinket.controller.app.rows import SigningKeyRow
from klinket.controller.authority import Authority, AuthorityPurpose
from klinket.controller.sealing import MasterKey
from klinket.wire import signing
from klinket.wire.signing import KeySet, SigningKey

#: Milliseconds after which a signing key is replaced, at the controller's next start.
ROTATE_MS = 90 * 24 * 3_600_000
#: Milliseconds a retired signing key still verifies: longer than what it signed lives. Keys of the audit verify for ever.
RETIRED_MS = 8 * 24 * 3_600_000


class KeyPurpose(Enum):
    """What a signing key signs; each kind of token has keys of its own."""

    ACCESS = "access"
    GRANT = "grant"
    TICKET = "ticket"
    CUT = "cut"
    HEAD = "head"
    AUDIT = "audit"


@dataclass(frozen=True, slots=True)
class Trust:
    """Authorities and signing keys, opened. `keys` verify, `signers` sign: the newest of each purpose."""

    network: str
    authorities: dict[AuthorityPurpose, Authority]
    signers: dict[KeyPurpose, SigningKey]
    keys: dict[KeyPurpose, KeySet]

    def jwks(self) -> dict[str, object]:
        """Return every public signing key as one JWK set."""
        listed: list[object] = []
        for keys in self.keys.values():
            found = keys.to_jwks()["keys"]
            assert isinstance(found, list)
            listed.extend(found)
        return {"keys": listed}


async def load_or_make(store: Store, master: MasterKey, network: str, entropy: Callable[[int], bytes]) -> Trust:
    """Return the network's trust; what is missing is made. Raises MasterKeyWrong."""
    return await store.write(lambda tx: _load_or_make(tx, master, network, entropy))


def _load_or_make(tx: Transaction, master: MasterKey, network: str, entropy: Callable[[int], bytes]) -> Trust:
    now = tx.now_ms / 1000
    authorities = {}
    for purpose in AuthorityPurpose:
        row = tx.authorities.get(purpose.value)
        if row is None:
            made = Authority.make(purpose, network, now)
            sealed = master.seal(signing.private_key_to_pem(made.key).encode(), f"authority {purpose.value}")
            row = tx.authorities.add(purpose=purpose.value, certificate=made.certificate_pem, sealed=sealed)
        authorities[purpose] = _opened(row.certificate, row.sealed, purpose, master)
    for key_purpose in KeyPurpose:
        current = tx.signing_keys.find(purpose=key_purpose.value, retired_at_ms=None)
        if all(row.created_at_ms < tx.now_ms - ROTATE_MS for row in current):
            rotate(tx, master, key_purpose, entropy)
    return Trust(network, authorities, *_signing_keys(tx, master))


def _opened(certificate: str, sealed: bytes, purpose: AuthorityPurpose, master: MasterKey) -> Authority:
    from cryptography import x509

    pem = master.open(sealed, f"authority {purpose.value}")
    return Authority(purpose, x509.load_pem_x509_certificate(certificate.encode()), signing.private_key_from_pem(pem))


def _signing_keys(tx: Transaction, master: MasterKey) -> tuple[dict[KeyPurpose, SigningKey], dict[KeyPurpose, KeySet]]:
    signers, keys = {}, {}
    for purpose in KeyPurpose:
        rows = [
            row
            for row in tx.signing_keys.find(purpose=purpose.value)
            if row.retired_at_ms is None or row.retired_at_ms > tx.now_ms - RETIRED_MS or purpose is KeyPurpose.AUDIT
        ]
        keys[purpose] = KeySet((row.kid, signing.public_key_from_jwk(row.public_jwk)) for row in rows)
        newest = max((row for row in rows if row.retired_at_ms is None), key=lambda row: row.created_at_ms)
        pem = master.open(newest.sealed, f"signing key {newest.kid}")
        signers[purpose] = SigningKey(newest.kid, signing.private_key_from_pem(pem))
    return signers, keys


def rotate(tx: Transaction, master: MasterKey, purpose: KeyPurpose, entropy: Callable[[int], bytes]) -> SigningKeyRow:
    """Make a new signing key of a purpose; earlier ones retire, and verify for RETIRED_MS more (those of the audit for ever)."""
    for row in tx.signing_keys.find(purpose=purpose.value, retired_at_ms=None):
        tx.signing_keys.change(row.kid, retired_at_ms=tx.now_ms)
    key = SigningKey.generate(f"{purpose.value}-{entropy(8).hex()}")
    sealed = master.seal(signing.private_key_to_pem(key.private_key).encode(), f"signing key {key.kid}")
    jwk = signing.public_jwk(key.public_key)
    return tx.signing_keys.add(kid=key.kid, purpose=purpose.value, sealed=sealed, public_jwk=jwk)
