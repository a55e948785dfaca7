"""Ending a service key with itself: for whoever finds one. The key file never leaves this machine."""

from __future__ import annotations

import ssl
from base64 import urlsafe_b64encode

from klinket.client.login import Session, log_in, log_out, refusal
from klinket.domain.errors import ControllerUnreachable, KlinketError, ServiceKeyExpired, ServiceKeyRevoked, ServiceKeyUnknown
from klinket.net.clock import entropy, monotonic, wall
from klinket.net.request import post
from klinket.wire import assertion, signing
from klinket.wire.key_file import KeyFile
from klinket.wire.paths import REVOKE_PATH


class KeyNotEnded(KlinketError):
    """The controller still takes the key."""

    code = "key-not-ended"
    default_hint = "an admin revokes it with `klinket admin service key revoke`"


async def revoke(key_file: KeyFile, context: ssl.SSLContext) -> str:
    """End the key and return a sentence that says what it is now; raises KeyNotEnded, ControllerUnreachable, Throttled.

    The answer to the request is the same for every key, so a login afterwards tells what came of it.
    """
    found = await _try(key_file, context, wall())
    if isinstance(found, Session) and abs(found.time_ms / 1000 - wall()) > signing.LEEWAY_SECONDS:
        # The request was of another time than the controller's, which its answer does not say.
        await log_out(key_file, found, context)
        found = await _try(key_file, context, found.time_ms / 1000 + monotonic() - found.told_at)
    if isinstance(found, str):
        return found
    await log_out(key_file, found, context)
    raise KeyNotEnded(f"key {key_file.key_id} still logs in at {key_file.network}")


async def _try(key_file: KeyFile, context: ssl.SSLContext, now: float) -> str | Session:
    """Ask once, with a proof of this time; returns what the key is now, or the session of one that still logs in."""
    private_key = key_file.private_key
    signed = assertion.sign_assertion(
        signing.SigningKey(key_file.key_id, private_key),
        key_file.service_account_id,
        key_file.revoke_url,
        signing.thumbprint(private_key.public_key()),
        now=now,
        jti=urlsafe_b64encode(entropy(16)).decode(),
        typ=assertion.REVOKE_TYP,
    )
    answer = await post(f"https://{key_file.network}", REVOKE_PATH, {"assertion": signed}, context)
    if answer.status != 204:
        if code := answer.text("code"):
            raise refusal(code, answer.text("message"), answer.text("hint"))
        raise ControllerUnreachable(f"{key_file.network} answered {answer.status}, and not as a klinket controller does")
    try:
        return await log_in(key_file, context)
    except ServiceKeyRevoked:
        return f"key {key_file.key_id} is revoked; its sessions and flows have ended"
    except ServiceKeyExpired:
        return f"key {key_file.key_id} had expired already"
    except ServiceKeyUnknown:
        return f"key {key_file.key_id} is not known at {key_file.network}: it was deleted already"
