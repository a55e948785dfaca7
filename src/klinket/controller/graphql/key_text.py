"""A new service key, and the key file that says it: the only place where a private key is ever put into an answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from klinket.controller.app.rows import ServiceAccountRow, ServiceKeyRow
from klinket.controller.graphql.context import ApiServices
from klinket.domain.errors import InvalidInput, InvalidToken
from klinket.domain.identifiers import Kid
from klinket.domain.moments import iso
from klinket.wire import signing
from klinket.wire.key_file import KeyFile

#: Characters of a public key that is handed in.
MAX_PUBLIC_KEY_CHARS = 4_096


@dataclass(frozen=True, slots=True)
class NewKey:
    """`public_key` in PEM is what is stored; `private_key` is empty where the owner made the pair."""

    kid: Kid
    public_key: str
    private_key: str = field(repr=False)

    def file_text(self, services: ApiServices, account: ServiceAccountRow, row: ServiceKeyRow) -> str:
        """Return the key file as JSON text."""
        return KeyFile(
            network=services.facts.network,
            service_account_id=account.uuid,
            key_id=self.kid,
            private_key_pem=self.private_key,
            expires_at=None if row.expires_at_ms is None else iso(row.expires_at_ms),
            controller_ca=services.facts.controller_ca,
        ).to_json()


def new_key(services: ApiServices, public_key: str | None = None) -> NewKey:
    """Return a new key pair, or a pair whose public half (PEM) was handed in; raises InvalidInput("publicKey")."""
    kid = Kid(f"key-{services.entropy(12).hex()}")
    if public_key is None:
        private = signing.generate_private_key()
        return NewKey(kid, signing.public_key_to_pem(private.public_key()), signing.private_key_to_pem(private))
    if "PRIVATE" in public_key:
        raise InvalidInput("publicKey", "publicKey holds a private key", hint="keep it where it is, and hand in the public half")
    if len(public_key) > MAX_PUBLIC_KEY_CHARS:
        raise InvalidInput("publicKey", f"publicKey is longer than {MAX_PUBLIC_KEY_CHARS} characters")
    try:
        parsed = signing.public_key_from_pem(public_key)
    except (InvalidToken, UnicodeEncodeError) as error:
        raise InvalidInput(
            "publicKey",
            "publicKey is not an ECDSA P-256 public key in PEM",
            hint="openssl ec -in KEY.pem -pubout, or the public key your TPM, HSM or KMS exports",
        ) from error
    return NewKey(kid, signing.public_key_to_pem(parsed), "")
