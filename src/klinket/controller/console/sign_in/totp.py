"""Authenticator apps: codes by the library (RFC 6238: SHA-1, 6 digits, 30 s), and the picture that apps scan."""

from __future__ import annotations

import io
from base64 import b32encode

import segno
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor import InvalidToken
from cryptography.hazmat.primitives.twofactor.totp import TOTP

STEP_SECONDS = 30
DIGITS = 6
#: Steps before and after now whose codes are taken: clocks of phones differ.
LEEWAY_STEPS = 1


def _totp(secret: bytes) -> TOTP:
    return TOTP(secret, DIGITS, SHA1(), STEP_SECONDS)  # noqa: S303 - what every app knows; HMAC needs no collision resistance


def step_of(secret: bytes, code: str, now: float) -> int | None:
    """Return the 30-second step whose code this is, or None. `now`: seconds since the epoch."""
    digits = "".join(code.split())
    if len(digits) != DIGITS or not (digits.isascii() and digits.isdigit()):
        return None
    current = int(now) // STEP_SECONDS
    found = None
    for step in range(current - LEEWAY_STEPS, current + LEEWAY_STEPS + 1):  # all of them, whichever fits
        try:
            _totp(secret).verify(digits.encode(), step * STEP_SECONDS)
            found = step
        except InvalidToken:
            pass
    return found


def code_at(secret: bytes, now: float) -> str:
    """Return the code of a moment."""
    return _totp(secret).generate(int(now)).decode()


def as_text(secret: bytes) -> str:
    """Return a secret for typing: base 32 in groups of four."""
    text = b32encode(secret).decode().rstrip("=")
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def picture(secret: bytes, account: str, network: str) -> bytes:
    """Return the QR code that an app scans, as SVG without styles."""
    uri = _totp(secret).get_provisioning_uri(account, f"klinket {network}")
    out = io.BytesIO()
    # White around and behind: a dark page must not invert it.
    segno.make(uri, error="m").save(out, kind="svg", scale=4, border=4, dark="#000", light="#fff", xmldecl=False, svgclass=None)
    return out.getvalue()
