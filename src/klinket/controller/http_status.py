"""The HTTP status and headers of each error."""

from __future__ import annotations

import math

from klinket.controller.app.store_errors import StoreUnavailable
from klinket.domain.errors import (
    AuthenticationFailed,
    Conflict,
    ConnectorTokensDead,
    Forbidden,
    IdentityProviderAway,
    InvalidInput,
    KlinketError,
    NotFound,
    Throttled,
)

#: The first that fits counts.
_BY_KIND: tuple[tuple[type[KlinketError], int], ...] = (
    (StoreUnavailable, 503),
    (IdentityProviderAway, 503),
    (Throttled, 429),
    (ConnectorTokensDead, 410),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (AuthenticationFailed, 401),
    (InvalidInput, 400),
)
#: By code word: these are defined where they arise.
_BY_CODE = {"body-too-large": 413, "body-too-slow": 408, "took-too-long": 503}


def status_of(error: KlinketError) -> int:
    """Return the HTTP status; 400 for what has none of its own."""
    known = _BY_CODE.get(error.code)
    return known or next((status for kind, status in _BY_KIND if isinstance(error, kind)), 400)


def headers_of(error: KlinketError) -> dict[str, str]:
    """Return Retry-After in whole seconds where waiting helps (clients take nothing else: facts §7), and 408's `Connection`."""
    headers = {} if error.retry_after is None else {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
    # The rest of a body that is not waited for must not be read as the next request (RFC 9110, 15.5.9).
    return headers | ({"Connection": "close"} if status_of(error) == 408 else {})
