"""Settings > Certificates & keys: authorities, and the keys that sign, each with its age; a new key is a button."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes
from starlette.responses import Response

from klinket.controller.app import signing_keys
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import SigningKeyRow
from klinket.controller.app.signing_keys import PUBLISHED_MS, ROTATE_MS, KeyPurpose
from klinket.controller.authority import Authority, AuthorityPurpose
from klinket.controller.console.headers import PAGE_HEADERS
from klinket.controller.console.page import Page
from klinket.controller.console.route import ConsoleRoute, changed, shown
from klinket.domain.errors import KlinketError, NotFound
from klinket.domain.role import Permission

PLACE = "/settings/trust"
#: Whom each authority certifies, in words.
AUTHORITIES = {
    AuthorityPurpose.CLIENT: ("Clients", "certifies clients for an hour at each login; connectors believe it"),
    AuthorityPurpose.CONNECTOR: ("Connectors", "certifies connectors for a day; clients believe it"),
    AuthorityPurpose.WEB: ("Controller", "certifies this controller's own web server"),
}
#: What each key signs, in words.
PURPOSES = {
    KeyPurpose.ACCESS: ("Access tokens", "what clients and connectors show the controller"),
    KeyPurpose.GRANT: ("Grants", "what a client may reach, shown to connectors"),
    KeyPurpose.TICKET: ("Tickets", "who may use a relay, shown to relays"),
    KeyPurpose.CUT: ("Cuts", "the word to end access at once, shown to connectors"),
    KeyPurpose.HEAD: ("Heads", "how far the controller's state is, shown back by connectors"),
    KeyPurpose.AUDIT: ("Audit", "signatures under audit events, which anybody can verify"),
}


@dataclass(frozen=True, slots=True)
class _ShownKey:
    """`state`: kind of pill, word; `until_ms`: when that ends, where it does."""

    row: SigningKeyRow
    state: tuple[str, str]
    until_ms: int | None


@dataclass(frozen=True, slots=True)
class _ShownPurpose:
    purpose: KeyPurpose
    keys: Sequence[_ShownKey]
    is_new: bool
    is_old: bool


@dataclass(frozen=True, slots=True)
class _ShownAuthority:
    purpose: AuthorityPurpose
    expires_at_ms: int
    made_at_ms: int
    fingerprint: str


def _authority(authority: Authority) -> _ShownAuthority:
    certificate = authority.certificate
    digest = certificate.fingerprint(hashes.SHA256()).hex(":").upper()
    return _ShownAuthority(
        authority.purpose,
        round(certificate.not_valid_after_utc.timestamp() * 1000),
        round(certificate.not_valid_before_utc.timestamp() * 1000),
        digest,
    )


def _purpose(tx: Transaction, purpose: KeyPurpose) -> _ShownPurpose:
    rows = signing_keys.verifying(tx, purpose)
    begins = signing_keys.signs_from(rows)
    is_new = begins > tx.now_ms
    signer = rows[-2] if is_new else rows[-1]
    listed = []
    for row in reversed(rows):
        if row is signer:
            listed.append(_ShownKey(row, ("ok", "Signs"), begins if is_new else None))
        elif is_new and row is rows[-1]:
            listed.append(_ShownKey(row, ("warn", "Signs soon"), begins))
        else:
            until = signing_keys.verifies_until(row)
            listed.append(_ShownKey(row, ("idle", "Verifies"), None if until == float("inf") else round(until)))
    return _ShownPurpose(purpose, listed, is_new, rows[-1].created_at_ms < tx.now_ms - ROTATE_MS)


async def _show(page: Page, error: KlinketError | None = None) -> Response:
    keys = await page.read(lambda tx: [_purpose(tx, purpose) for purpose in KeyPurpose])
    config = page.console.config
    values: dict[str, Any] = {
        "authorities": [_authority(page.console.trust.authorities[purpose]) for purpose in AuthorityPurpose],
        "authority_words": AUTHORITIES,
        "keys": keys,
        "purposes": PURPOSES,
        "published_ms": PUBLISHED_MS,
        "rotate_days": ROTATE_MS // 86_400_000,
        "own_certificate": config.certificate is None,
    }
    template = "settings/trust.html"
    return page.render(template, **values) if error is None else page.refuse(template, error, **values)


async def _rotate(page: Page) -> Response:
    services = page.console.services
    try:
        purpose = signing_keys.parse_purpose(str(page.request.path_params["purpose"]))
        await page.write(lambda tx: signing_keys.rotate(tx, page.actor, purpose, seal=services.seal, entropy=services.entropy))
    except KlinketError as error:
        return await _show(page, error)
    told = f"A new key for {PURPOSES[purpose][0].lower()} was made. It is told to everybody now"
    return page.redirect(PLACE, f"{told}, and signs in {PUBLISHED_MS // 60_000} min.")


def _download(text: str, name: str, media_type: str) -> Response:
    headers = {**PAGE_HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
    return Response(text, headers=headers, media_type=media_type)


async def _certificate(page: Page) -> Response:
    word = str(page.request.path_params["purpose"])
    try:
        purpose = AuthorityPurpose(word)
    except ValueError:
        raise NotFound("Authority", word) from None
    name = f"{page.console.config.network}-{purpose.value}-authority.pem"
    return _download(page.console.trust.authorities[purpose].certificate_pem, name, "application/x-pem-file")


async def _jwks(page: Page) -> Response:
    text = json.dumps(page.console.trust.jwks(), indent=2) + "\n"
    return _download(text, f"{page.console.config.network}-keys.json", "application/json")


ROUTES: tuple[ConsoleRoute, ...] = (
    shown(PLACE, _show),
    shown(PLACE + "/authorities/{purpose}", _certificate),
    shown(PLACE + "/keys.json", _jwks),
    changed(PLACE + "/keys/{purpose}/rotate", _rotate, Permission.ADMIN),
)
