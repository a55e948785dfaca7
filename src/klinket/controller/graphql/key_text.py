"""A new service key, and the key file that says it: the only place where a private key is ever put into an answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from klinket.controller.app import service_accounts, service_keys
from klinket.controller.app.rows import ServiceAccountRow, ServiceKeyRow
from klinket.controller.app.service_keys import ORDINARY, KeyOrigin, KeyUse
from klinket.controller.graphql.context import ApiServices, RequestContext
from klinket.controller.graphql.global_id import number_of
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


def create_key(
    context: RequestContext,
    account_id: str,
    days: int,
    name: str | None,
    *,
    public_key: str | None = None,
    use: KeyUse = ORDINARY,
) -> tuple[ServiceKeyRow, str]:
    """Create a key of a service account (its global id); returns it, and its key file. `public_key`: as for new_key()."""
    account = service_accounts.get(context.tx, number_of(account_id, "ServiceAccount"), account_id)
    made = new_key(context.services, public_key)
    row = service_keys.create(
        context.tx,
        context.caller.actor,
        account,
        days=days,
        name=name,
        kid=made.kid,
        public_key=made.public_key,
        origin=KeyOrigin.CONTROLLER if public_key is None else KeyOrigin.OWNER,
        use=use,
    )
    return row, made.file_text(context.services, account, row)
