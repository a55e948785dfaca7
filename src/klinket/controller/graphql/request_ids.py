"""What a client says of its request in headers (facts §7), bounded and printable, for the audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from klinket.controller.graphql.context import ApiCaller
from klinket.domain.audit import RequestIds

#: Characters kept of each header.
MAX_CHARS = 200


def request_ids(headers: Mapping[str, str]) -> RequestIds | None:
    """Return the ids and the User-Agent of a request; None where there is nothing of it. Names are in lower case."""
    found = RequestIds(
        _text(headers.get("x-twingate-request-id")), _text(headers.get("x-correlation-id")), _text(headers.get("user-agent"))
    )
    return None if found == RequestIds() else found


def identified(caller: ApiCaller, headers: Mapping[str, str]) -> ApiCaller:
    """Return the caller with what it says of its request."""
    return replace(caller, actor=replace(caller.actor, request=request_ids(headers)))


def _text(value: str | None) -> str | None:
    """Return a header's text with a question mark for whatever cannot be printed; None when it is empty."""
    return "".join(sign if sign.isprintable() else "?" for sign in (value or "")[:MAX_CHARS]) or None
