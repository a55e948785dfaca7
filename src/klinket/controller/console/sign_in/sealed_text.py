"""Short-lived values that a browser keeps for us: sealed, each for one purpose, with an end."""

from __future__ import annotations

import binascii
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

from klinket.controller.sealing import MasterKey, MasterKeyWrong
from klinket.domain.errors import SignInOver

#: Characters of a sealed text that are looked at.
MAX_CHARS = 4_000


def seal(master: MasterKey, purpose: str, values: dict[str, Any], expires_at_ms: int) -> str:
    """Return values as a text that only this controller opens, for this purpose, until then."""
    inside = json.dumps({**values, "expires_at_ms": expires_at_ms}).encode()
    return urlsafe_b64encode(master.seal(inside, f"console {purpose}")).decode().rstrip("=")


def unseal(master: MasterKey, purpose: str, text: str, now_ms: int) -> dict[str, Any]:
    """Return the values of a sealed text; raises SignInOver for one that is missing, altered or too old."""
    over = SignInOver("this took too long, or was begun in another browser")
    if not text or len(text) > MAX_CHARS or not text.isascii():
        raise over
    try:
        inside = master.open(urlsafe_b64decode(text + "=" * (-len(text) % 4)), f"console {purpose}")
    except (MasterKeyWrong, binascii.Error, ValueError):
        raise over from None
    values: dict[str, Any] = json.loads(inside)
    if now_ms >= values["expires_at_ms"]:
        raise over
    return values
