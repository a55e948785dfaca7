"""Everything the controller signs with: authorities and signing keys, sealed in the store (DESIGN §3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from cryptography import x509

from klinket.controller.app import signing_keys
from klinket.controller.app.ports import Store, Transaction
from klinket.controller.app.rows import SigningKeyRow
from klinket.controller.app.signing_keys import KeyPurpose as KeyPurpose
from klinket.controller.authority import Authority, AuthorityPurpose
from klinket.controller.sealing import MasterKey
from klinket.domain.errors import InvalidInput
from klinket.wire import signing
from klinket.wire.signing import KeySet, SigningKey


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys of one purpose: `former` signs until `newest_from` (seconds since the epoch), then `newest`."""

    verifying: KeySet
    newest: SigningKey
    former: SigningKey
    newest_from: float


class Signers(Mapping[KeyPurpose, SigningKey]):
    """The key that signs now, by purpose."""

    def __init__(self, keys: dict[KeyPurpose, _Keys], clock: Callable[[], float]) -> None:
        self._keys = keys
        self._clock = clock

    def __getitem__(self, purpose: KeyPurpose) -> SigningKey:
        keys = self._keys[purpose]
        return keys.newest if self._clock() >= keys.newest_from else keys.former

    def __iter__(self) -> Iterator[KeyPurpose]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class Verifiers(Mapping[KeyPurpose, KeySet]):
    """The keys that verify, by purpose."""

    def __init__(self, keys: dict[KeyPurpose, _Keys]) -> None:
        self._keys = keys

    def __getitem__(self, purpose: KeyPurpose) -> KeySet:
        return self._keys[purpose].verifying

    def __iter__(self) -> Iterator[KeyPurpose]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


@dataclass(frozen=True)
class Trust:
    """Authorities and signing keys, opened. `clock`: seconds since the epoch, which says which key signs."""

    network: str
    authorities: dict[AuthorityPurpose, Authority]
    master: MasterKey = field(repr=False)
    clock: Callable[[], float]
    _keys: dict[KeyPurpose, _Keys] = field(repr=False)

    @property
    def signers(self) -> Signers:
        """Return what signs now."""
        return Signers(self._keys, self.clock)

    @property
    def keys(self) -> Verifiers:
        """Return what verifies; the key that signs is one of them, and others are told of it before it signs."""
        return Verifiers(self._keys)

    def jwks(self) -> dict[str, object]:
        """Return every public signing key as one JWK set."""
        listed: list[object] = []
        for keys in self.keys.values():
            found = keys.to_jwks()["keys"]
            assert isinstance(found, list)
            listed.extend(found)
        return {"keys": listed}

    async def refresh(self, store: Store) -> None:
        """Read the signing keys anew: some were made since. Raises MasterKeyWrong, StoreUnavailable."""
        self._keys.update(await store.read(lambda tx: _signing_keys(tx, self.master)))


async def load_or_make(
    store: Store, master: MasterKey, network: str, clock: Callable[[], float], entropy: Callable[[int], bytes]
) -> Trust:
    """Return the network's trust; what is missing is made. Raises MasterKeyWrong, and InvalidInput for another network."""
    return await store.write(lambda tx: _load_or_make(tx, master, network, clock, entropy))


def _load_or_make(
    tx: Transaction, master: MasterKey, network: str, clock: Callable[[], float], entropy: Callable[[int], bytes]
) -> Trust:
    now = tx.now_ms / 1000
    authorities = {}
    for purpose in AuthorityPurpose:
        row = tx.authorities.get(purpose.value)
        if row is None:
            made = Authority.make(purpose, network, now)
            sealed = master.seal(signing.private_key_to_pem(made.key).encode(), f"authority {purpose.value}")
            row = tx.authorities.add(purpose=purpose.value, certificate=made.certificate_pem, sealed=sealed)
        authorities[purpose] = _opened(row.certificate, row.sealed, purpose, master)
        if (before := authorities[purpose].network) != network:
            raise InvalidInput(
                "--network",
                f"the database is that of the network {before!r}, not of {network!r}",
                hint="give the name it was made with, or another --database or --state",
            )
    for key_purpose in KeyPurpose:
        if signing_keys.is_old(tx, key_purpose):
            signing_keys.make(tx, key_purpose, master.seal, entropy)
    return Trust(network, authorities, master, clock, _signing_keys(tx, master))


def _opened(certificate: str, sealed: bytes, purpose: AuthorityPurpose, master: MasterKey) -> Authority:
    pem = master.open(sealed, f"authority {purpose.value}")
    return Authority(purpose, x509.load_pem_x509_certificate(certificate.encode()), signing.private_key_from_pem(pem))


def _signing_keys(tx: Transaction, master: MasterKey) -> dict[KeyPurpose, _Keys]:
    found = {}
    for purpose in KeyPurpose:
        rows = signing_keys.verifying(tx, purpose)
        verifying = KeySet((row.kid, signing.public_key_from_jwk(row.public_jwk)) for row in rows)
        begins = signing_keys.signs_from(rows)
        newest, former = _signer(rows[-1], master), _signer(rows[-2] if begins > tx.now_ms else rows[-1], master)
        found[purpose] = _Keys(verifying, newest, former, begins / 1000)
    return found


def _signer(row: SigningKeyRow, master: MasterKey) -> SigningKey:
    pem = master.open(row.sealed, f"signing key {row.kid}")
    return SigningKey(row.kid, signing.private_key_from_pem(pem))
