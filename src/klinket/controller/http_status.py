"""The HTTP status of each error."""

from __future__ import annotations

from klinket.controller.app.store_errors import StoreUnavailable
from klinket.domain.errors import (
    AuthenticationFailed,
    Conflict,
    ConnectorTokensDead,
    Forbidden,
    InvalidInput,
    KlinketError,
    NotFound,
    Throttled,
)

#: The first that fits counts.
_BY_KIND: tuple[tuple[type[KlinketError], int], ...] = (
    (StoreUnavailable, 503),
    (Throttled, 429),
    (ConnectorTokensDead, 410),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (AuthenticationFailed, 401),
    (InvalidInput, 400),
)
#: By code word: these are defined where they arise.
_BY_CODE = {"body-too-large": 413, "took-too-long": 503}


def status_of(error: KlinketError) -> int:
    """Return the HTTP status; 400 for what has none of its own."""
    known = _BY_CODE.get(error.code)
    return known or next((status for kind, status in _BY_KIND if isinstance(error, kind)), 400)
