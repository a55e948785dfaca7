"""The Admin API as the admin commands use it: one POST a document, every error a KlinketError."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from klinket.domain.errors import (
    AuthenticationFailed,
    Conflict,
    ControllerUnreachable,
    Forbidden,
    InvalidInput,
    KlinketError,
    NotFound,
    Throttled,
)
from klinket.wire.paths import EXTENSION_PATH, GRAPHQL_PATH

#: Seconds one request may take.
TIMEOUT_SECONDS = 30.0
#: Nodes asked for per page.
PAGE_NODES = 100
#: Bytes of an answer that are read at the most.
MAX_ANSWER_BYTES = 64 * 1024 * 1024
#: Bytes of a download passed on at a time.
DOWNLOAD_BYTES = 65_536


#: The command that lists the objects of a kind.
LISTED_BY = {
    "API token": "token list", "Connector": "connector list", "Remote network": "network list", "Resource": "resource list",
    "Service account": "service list", "Service key": "service key list",
}  # fmt: skip


class Missing(KlinketError):
    """An object does not exist."""

    code = NotFound.code


@dataclass(frozen=True)
class AdminApiClient:
    """Speaks to one controller. `url`: https URL without path; `authority`: path of a PEM file or None: the system's.

    `path`: of the schema that documents are for.
    """

    url: str
    token: str = field(repr=False)
    authority: str | None = None
    path: str = GRAPHQL_PATH

    @property
    def extension(self) -> AdminApiClient:
        """Return the same client for what klinket has beyond the public API (docs/reference/admin-api.md)."""
        return replace(self, path=EXTENSION_PATH)

    def execute(self, document: str, **variables: Any) -> dict[str, Any]:
        """Return `data`; raises a KlinketError for every other answer."""
        answer = self._request("POST", self.path, {"query": document, "variables": variables})
        if answer.get("errors"):
            raise KlinketError("; ".join(str(error.get("message")) for error in answer["errors"]))
        data: dict[str, Any] = answer["data"]
        return data

    def change(self, field_name: str, document: str, **variables: Any) -> dict[str, Any]:
        """Execute a mutation of one field and return its payload; raises Conflict with the API's text for ok=false."""
        payload: dict[str, Any] = self.execute(document, **variables)[field_name]
        if not payload["ok"]:
            text = str(payload["error"])
            raise Missing(text) if "does not exist" in text else Conflict(text)
        return payload

    def nodes(self, field_name: str, selection: str, arguments: str = "") -> Iterator[dict[str, Any]]:
        """Yield every node of a connection of Query, page by page."""
        document = (
            f"query($after: String) {{ {field_name}(first: {PAGE_NODES}, after: $after{arguments})"
            f" {{ pageInfo {{ hasNextPage endCursor }} edges {{ node {{ {selection} }} }} }} }}"
        )
        after = None
        while True:
            page = self.execute(document, after=after)[field_name]
            for edge in page["edges"]:
                yield edge["node"]
            if not page["pageInfo"]["hasNextPage"]:
                return
            after = page["pageInfo"]["endCursor"]

    def download(self, path: str, write: Callable[[bytes], object]) -> None:
        """Pass the body of a GET on piece by piece, however long it is; raises ControllerUnreachable when it breaks off."""
        connection = self._connection()
        with self._told_as_klinket():
            try:
                connection.request("GET", path, headers=self._headers())
                response = connection.getresponse()
                if response.status != 200:
                    _parsed(response.status, response.getheader("Retry-After"), response.read(MAX_ANSWER_BYTES))
                while piece := response.read(DOWNLOAD_BYTES):
                    write(piece)
            finally:
                connection.close()

    def get(self, path: str) -> Any:
        """Return the JSON of a GET on one of klinket's own endpoints."""
        return self._request("GET", path, None)

    def _request(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        connection = self._connection()
        with self._told_as_klinket():
            try:
                connection.request(method, path, body=None if body is None else json.dumps(body), headers=self._headers())
                response = connection.getresponse()
                text = response.read(MAX_ANSWER_BYTES)
            finally:
                connection.close()
        return _parsed(response.status, response.getheader("Retry-After"), text)

    def _connection(self) -> http.client.HTTPSConnection:
        address = urlsplit(self.url if "://" in self.url else f"https://{self.url}")
        if address.scheme != "https" or not address.hostname:
            raise InvalidInput("url", f"not an https URL: {self.url}", hint="set KLINKET_URL to https://HOST:PORT")
        return http.client.HTTPSConnection(
            address.hostname, address.port or 443, timeout=TIMEOUT_SECONDS, context=self._context()
        )

    def _headers(self) -> dict[str, str]:
        return {"X-API-KEY": self.token, "Content-Type": "application/json", "User-Agent": "klinket-admin"}

    @contextmanager
    def _told_as_klinket(self) -> Iterator[None]:
        """Tell errors of the connection in klinket's own words."""
        try:
            yield
        except ssl.SSLCertVerificationError as error:
            raise ControllerUnreachable(
                f"{self.url} does not prove who it is: {error.verify_message}",
                hint="set KLINKET_CA to the controller-ca.pem of this network",
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise ControllerUnreachable(
                f"cannot reach {self.url}: {error}", hint="check KLINKET_URL and that the controller runs"
            ) from error

    def _context(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.authority)
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput("ca", f"cannot read certificates from {self.authority}: {error}") from error


def _parsed(status: int, retry_after: str | None, text: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = {}
    if status == 200:
        return answer if isinstance(answer, dict) else {"data": answer}
    told = answer.get("errors", [answer])[0] if isinstance(answer, dict) else {}
    message = str(told.get("message") or f"the controller answered {status}")
    hint = told.get("hint") or told.get("extensions", {}).get("hint") or None
    if status == 401:
        raise AuthenticationFailed(message, hint=f"set KLINKET_API_TOKEN to a valid token{f' ({hint})' if hint else ''}")
    if status == 403:
        raise Forbidden(message, hint=hint or "use a token with the scope this needs")
    if status == 404:
        raise Missing(message, hint=hint)
    if status == 429:
        wait = int(retry_after) if retry_after and retry_after.isdigit() else 60
        raise Throttled(message, hint=f"try again in {wait} s", retry_after=float(wait))
    raise KlinketError(message, hint=hint)


def find(
    rows: Iterator[dict[str, Any]], kind: str, wanted: str, also: Callable[[dict[str, Any]], bool] | None = None
) -> dict[str, Any]:
    """Return the one row whose id or name is `wanted`; raises Missing, or Conflict when several have the name."""
    named = []
    for row in rows:
        if row["id"] == wanted:
            return row
        if row["name"] == wanted and (also is None or also(row)):
            named.append(row)
    if not named:
        raise Missing(f"{kind} '{wanted}' does not exist", hint=f"klinket admin {LISTED_BY[kind]}")
    if len(named) > 1:
        ids = ", ".join(row["id"] for row in named)
        raise Conflict(f"several have the name '{wanted}': {ids}", hint="give the id instead of the name")
    return named[0]
