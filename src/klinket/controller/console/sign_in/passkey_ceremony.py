"""Passkeys: what the browser is asked for, and what its answer proves (WebAuthn, by the library).

A challenge is a sealed text that the page carries: nothing is stored for those that nobody answers, and an answer counts once.
"""

from __future__ import annotations

import ipaddress
import json
import logging
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeVar, cast

from fido2 import cbor
from fido2.cose import CoseKey
from fido2.server import Fido2Server
from fido2.webauthn import (
    Aaguid,
    AttestationConveyancePreference,
    AttestedCredentialData,
    AuthenticationResponse,
    PublicKeyCredentialDescriptor,
    PublicKeyCredentialParameters,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialType,
    PublicKeyCredentialUserEntity,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from klinket.controller.app.rows import PasskeyRow, UserRow
from klinket.controller.console.sign_in.sealed_text import seal, unseal
from klinket.controller.sealing import MasterKey
from klinket.domain.errors import KlinketError, SignInRefused

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Milliseconds from a page to the answer on it.
CHALLENGE_MS = 10 * 60_000
CHALLENGE_BYTES = 32
#: Characters of a browser's answer, and bytes of a credential id (WebAuthn 4: at most 1023).
MAX_ANSWER_CHARS = 32_768
MAX_CREDENTIAL_BYTES = 1_023
#: ES256, Ed25519, RS256 (COSE): what phones, security keys and Windows make.
ALGORITHMS = (-7, -8, -257)
REFUSED = "this passkey is not known here, or its answer is not right"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a page carries: `options` as JSON for the browser, and the sealed challenge that comes back with the answer."""

    options: str
    challenge: str


@dataclass(frozen=True, slots=True)
class Registered:
    """A passkey that was made."""

    credential_id: str
    public_key: bytes
    sign_count: int
    transports: tuple[str, ...]
    challenge: str
    expires_at_ms: int


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer whose challenge is ours and live, not compared with a key yet."""

    credential_id: str
    user_handle: bytes | None
    challenge: str
    expires_at_ms: int
    response: dict[str, Any]
    needs_verification: bool


class Passkeys:
    """`host` is the relying party: passkeys are bound to it, and there are none for an IP address."""

    def __init__(self, master: MasterKey, network: str, host: str, origin: str, entropy: Callable[[int], bytes]) -> None:
        self._master = master
        self._network = network
        self._entropy = entropy
        self.are_possible = not _is_address(host)
        party = PublicKeyCredentialRpEntity(name=f"klinket {network}", id=host)
        self._server = Fido2Server(party, AttestationConveyancePreference.NONE, verify_origin=lambda said: said.lower() == origin)
        self._server.allowed_algorithms = [
            PublicKeyCredentialParameters(type=PublicKeyCredentialType.PUBLIC_KEY, alg=one) for one in ALGORITHMS
        ]

    # ---- making one

    def ask_for_new(self, user: UserRow, known: Sequence[PasskeyRow], session: int, now_ms: int) -> Asked:
        """Return what makes a passkey for a user, in this session only; devices that are registered refuse by themselves."""
        name = " ".join(part for part in (user.first_name, user.last_name) if part) or user.email
        challenge = self._entropy(CHALLENGE_BYTES)
        options, _ = self._server.register_begin(
            PublicKeyCredentialUserEntity(id=self.handle_of(user.id), name=user.email, display_name=name),
            [_descriptor(row) for row in known],
            resident_key_requirement=ResidentKeyRequirement.PREFERRED,
            user_verification=UserVerificationRequirement.PREFERRED,
            challenge=challenge,
        )
        values = {"challenge": _text(challenge), "user": user.id, "session": session}
        return self._asked(dict(options.public_key), "new passkey", values, now_ms)

    def registered(self, answer: str, sealed: str, user: UserRow, session: int, now_ms: int) -> Registered:
        """Return the passkey an answer makes; raises SignInOver, SignInRefused."""
        values = unseal(self._master, "new passkey", sealed, now_ms)
        if (values["user"], values["session"]) != (user.id, session):
            raise SignInRefused(REFUSED)
        response = _parsed(answer)

        def check() -> Registered:
            state = {"challenge": values["challenge"], "user_verification": UserVerificationRequirement.PREFERRED}
            data = self._server.register_complete(state, response)
            made = data.credential_data
            if made is None or made.public_key[3] not in ALGORITHMS or len(made.credential_id) > MAX_CREDENTIAL_BYTES:
                raise ValueError("no key of a kind that was asked for")
            told = (response.get("response") or {}).get("transports") or []
            return Registered(
                _text(made.credential_id),
                cbor.encode(dict(made.public_key)),
                data.counter,
                tuple(one for one in told if isinstance(one, str)),
                values["challenge"],
                values["expires_at_ms"],
            )

        return _believed(check)

    # ---- answering with one

    def ask(self, known: Sequence[PasskeyRow], now_ms: int, *, session: int | None = None, verified: bool) -> Asked:
        """Return what asks for a passkey: one of `known`, or whichever the device offers. `verified`: by PIN or biometry."""
        challenge = self._entropy(CHALLENGE_BYTES)
        wanted = UserVerificationRequirement.REQUIRED if verified else UserVerificationRequirement.PREFERRED
        options, _ = self._server.authenticate_begin(
            [_descriptor(row) for row in known] or None, user_verification=wanted, challenge=challenge
        )
        values = {"challenge": _text(challenge), "session": session, "verified": verified}
        return self._asked(dict(options.public_key), "passkey", values, now_ms)

    def answered(self, answer: str, sealed: str, now_ms: int, *, session: int | None = None) -> Answered:
        """Return what an answer claims, for a challenge of this session; raises SignInOver, SignInRefused."""
        values = unseal(self._master, "passkey", sealed, now_ms)
        if values["session"] != session:
            raise SignInRefused(REFUSED)
        response = _parsed(answer)

        def read() -> Answered:
            parsed = AuthenticationResponse.from_dict(response)
            return Answered(
                _text(parsed.raw_id),
                parsed.response.user_handle,
                values["challenge"],
                values["expires_at_ms"],
                response,
                values["verified"],
            )

        return _believed(read)

    def verify(self, answered: Answered, row: PasskeyRow) -> int:
        """Return the device's counter once its signature is checked with the stored key; raises SignInRefused."""
        if answered.user_handle and answered.user_handle != self.handle_of(row.user_id):
            raise SignInRefused(REFUSED)

        def check() -> int:
            key = CoseKey.parse(cast("dict[int, Any]", cbor.decode(row.public_key)))
            known = AttestedCredentialData.create(Aaguid.NONE, _bytes(row.credential_id), key)
            wanted = UserVerificationRequirement.REQUIRED if answered.needs_verification else None
            state = {"challenge": answered.challenge, "user_verification": wanted}
            self._server.authenticate_complete(state, [known], answered.response)
            return AuthenticationResponse.from_dict(answered.response).response.authenticator_data.counter

        return _believed(check)

    def handle_of(self, user_id: int) -> bytes:
        """Return what devices keep as the user: it tells nothing about them."""
        return sha256(f"klinket user {self._network} {user_id}".encode()).digest()

    def _asked(self, options: dict[str, Any], purpose: str, values: dict[str, Any], now_ms: int) -> Asked:
        return Asked(json.dumps(options), seal(self._master, purpose, values, now_ms + CHALLENGE_MS))


def _believed(check: Callable[[], T]) -> T:
    try:
        return check()
    except KlinketError:
        raise
    except Exception as error:  # the library raises what its parts raise, of bytes that come from anybody
        logger.info("a passkey was refused: %s", type(error).__name__)
        raise SignInRefused(REFUSED) from error


def _parsed(answer: str) -> dict[str, Any]:
    if len(answer) > MAX_ANSWER_CHARS:
        raise SignInRefused(REFUSED)
    try:
        parsed = json.loads(answer)
    except (ValueError, RecursionError):
        raise SignInRefused(REFUSED) from None
    if not isinstance(parsed, dict):
        raise SignInRefused(REFUSED)
    return parsed


def _descriptor(row: PasskeyRow) -> PublicKeyCredentialDescriptor:
    return PublicKeyCredentialDescriptor.from_dict(
        {"type": "public-key", "id": row.credential_id, "transports": row.transports or None}
    )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
