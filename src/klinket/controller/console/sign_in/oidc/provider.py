"""The identity provider: discovery, keys, authorization address, exchange of a code (Authlib's OAuth client), id_tokens."""

from __future__ import annotations

import ipaddress
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oauth2 import OAuth2Error
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from klinket.controller.app.oidc_identities import Identity
from klinket.controller.console.sign_in.oidc import id_token
from klinket.controller.console.sign_in.oidc.transport import OutboundTransport
from klinket.controller.oidc_settings import OidcSettings
from klinket.domain.errors import IdentityProviderAway, IdentityRefused
from klinket.net.outbound import OutboundRefused

logger = logging.getLogger(__name__)

SCOPE = "openid email profile"
#: Seconds for which discovery and keys are kept, and after which a token of an unknown key makes us look again.
KEEP_SECONDS = 3_600.0
LOOK_AGAIN_SECONDS = 60.0
MAX_KEYS = 64
#: Seconds from asking a provider that does not answer until it is asked again.
ABSENT_SECONDS = 10.0
AWAY = "the identity provider cannot be reached, or does not answer as one"
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Provider:
    """Everything here blocks: call it in a thread. `clock`: seconds since the epoch."""

    def __init__(
        self, settings: OidcSettings, redirect_uri: str, allowed: Sequence[_Network], clock: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._redirect_uri = redirect_uri
        self._transport = OutboundTransport(allowed, settings.authority)
        self._clock = clock
        self._lock = threading.Lock()
        self._metadata: tuple[float, dict[str, Any]] | None = None
        self._keys: tuple[float, KeySet] | None = None
        self._absent_until = 0.0

    def authorization_address(self, state: str, nonce: str, verifier: str, *, again: bool = False) -> str:
        """Return where the browser goes; raises IdentityRefused. `again`: the person must sign in there once more."""
        endpoint = self._endpoint("authorization_endpoint")
        more = {"prompt": "login", "max_age": "0"} if again else {}
        with self._client() as client:
            address, _ = client.create_authorization_url(endpoint, state=state, nonce=nonce, code_verifier=verifier, **more)
        return str(address)

    def identity(self, code: str, nonce: str, verifier: str, since: float | None = None) -> Identity:
        """Exchange a code, verify the id_token that comes for it, and return what it says; raises IdentityRefused.

        `since`: seconds since the epoch; who signed in there before that is refused.
        """
        answer = self._exchange(code, verifier)
        raw = answer.get("id_token")
        if not isinstance(raw, str):
            raise IdentityRefused("the identity provider sent no id_token")
        claims = self._verified(raw, nonce, since)
        if "email" not in claims:
            claims = self._with_user_info(claims, answer.get("access_token"))
        return id_token.identity_of(claims, self._settings.role_claim)

    def _exchange(self, code: str, verifier: str) -> dict[str, Any]:
        endpoint = self._endpoint("token_endpoint")
        try:
            with self._client() as client:
                client.token_endpoint_auth_method = self._auth_method()
                return dict(
                    client.fetch_token(
                        endpoint, code=code, grant_type="authorization_code", code_verifier=verifier,
                        redirect_uri=self._redirect_uri,
                    )
                )  # fmt: skip
        except (OAuthError, OAuth2Error) as error:
            told = str(getattr(error, "error", ""))[:100]
            logger.warning("the identity provider refused a code: %r", told)
            raise IdentityRefused("the identity provider does not accept this sign-in: it was used or took too long") from error
        except (httpx2.HTTPError, OutboundRefused, ValueError) as error:
            raise _away(error) from error

    def _auth_method(self) -> str:
        if self._settings.client_secret is None:
            return "none"
        known = self._discovered().get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        return "client_secret_basic" if "client_secret_basic" in known else "client_secret_post"

    def _verified(self, raw: str, nonce: str, since: float | None = None) -> dict[str, Any]:
        expected = id_token.Expected(self._settings.issuer, self._settings.client_id, nonce, since)
        try:
            return id_token.verify(raw, self._key_set(), expected, now=self._clock())
        except id_token.UnknownKey:
            # Keys are rotated: look once more, not more often than that.
            return id_token.verify(raw, self._key_set(newer_than=LOOK_AGAIN_SECONDS), expected, now=self._clock())

    def _with_user_info(self, claims: dict[str, Any], access_token: object) -> dict[str, Any]:
        """Return the claims with those of the user info endpoint, which must be about the same account (OIDC Core 5.3.2)."""
        if not isinstance(access_token, str) or "userinfo_endpoint" not in self._discovered():
            return claims
        told = self._json(self._endpoint("userinfo_endpoint"), {"Authorization": f"Bearer {access_token}"})
        if told.get("sub") != claims.get("sub"):
            raise IdentityRefused("the identity provider speaks of somebody else than its token does")
        return {**told, **claims}

    # ---- what the provider says of itself

    def _discovered(self) -> dict[str, Any]:
        with self._lock:
            if self._metadata is None or time.monotonic() - self._metadata[0] > KEEP_SECONDS:
                if time.monotonic() < self._absent_until:
                    raise IdentityProviderAway(AWAY, retry_after=ABSENT_SECONDS)
                # Whoever comes while it is away waits for one of these at the most.
                self._absent_until = time.monotonic() + ABSENT_SECONDS
                found = self._json(self._settings.issuer.rstrip("/") + "/.well-known/openid-configuration")
                self._absent_until = 0.0
                if found.get("issuer") != self._settings.issuer:
                    raise IdentityRefused(
                        "the identity provider calls itself otherwise", hint="--oidc-issuer must be exactly its `issuer`"
                    )
                self._metadata = (time.monotonic(), found)
            return self._metadata[1]

    def _endpoint(self, name: str) -> str:
        address = self._discovered().get(name)
        if not isinstance(address, str) or urlsplit(address).scheme != "https" or not urlsplit(address).hostname:
            raise IdentityRefused(f"the identity provider names no {name} with https")
        return address

    def _key_set(self, newer_than: float = KEEP_SECONDS) -> KeySet:
        address = self._endpoint("jwks_uri")
        with self._lock:
            if self._keys is None or time.monotonic() - self._keys[0] > newer_than:
                found = self._json(address)
                listed = found.get("keys")
                if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_KEYS:
                    raise IdentityRefused("the identity provider has no keys")
                signing = [key for key in listed if isinstance(key, dict) and key.get("use", "sig") == "sig"]
                public = [key for key in signing if key.get("kty") in ("RSA", "EC")]
                try:
                    self._keys = (time.monotonic(), KeySet.import_key_set({"keys": public}))
                except (JoseError, ValueError, KeyError, TypeError) as error:
                    raise IdentityRefused("the identity provider's keys are not understood") from error
            return self._keys[1]

    def _json(self, address: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
        try:
            with httpx2.Client(transport=self._transport, trust_env=False) as client:
                answer = client.get(address, headers=headers)
                found = answer.json() if answer.status_code == 200 else None
        except (httpx2.HTTPError, OutboundRefused, ValueError, RecursionError) as error:
            raise _away(error) from error
        if not isinstance(found, dict):
            raise _away(ValueError(f"status {answer.status_code}"))
        return found

    def _client(self) -> OAuth2Client:
        return OAuth2Client(
            self._settings.client_id,
            self._settings.client_secret,
            scope=SCOPE,
            redirect_uri=self._redirect_uri,
            code_challenge_method="S256",
            transport=self._transport,
            trust_env=False,
        )


def _away(error: Exception) -> IdentityProviderAway:
    logger.warning("the identity provider cannot be asked: %s", error)
    return IdentityProviderAway(AWAY, retry_after=ABSENT_SECONDS)
