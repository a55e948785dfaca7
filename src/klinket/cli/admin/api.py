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
from klinket.net.request import OTHER_NAME
from klinket.wire.paths import DRY_RUN, EXTENSION_PATH, GRAPHQL_PATH

#: Seconds one request may take.
TIMEOUT_SECONDS = 30.0
#: Nodes asked for per page.
PAGE_NODES = 100
#: Bytes of an answer that are read at the most.
MAX_ANSWER_BYTES = 64 * 1024 * 1024
#: An argument of a field: its type in GraphQL, and its value.
Argument = tuple[str, Any]
LOST = "see what there is now: klinket admin ... list"
#: Bytes of a download passed on at a time.
DOWNLOAD_BYTES = 65_536


class Missing(KlinketError):
    """The API says that an object does not exist."""

    code = NotFound.code


@dataclass(frozen=True)
class AdminApiClient:
    """Speaks to one controller. `url`: https URL without path; `authority`: path of a PEM file or None: the system's.

    `path`: of the schema that documents are for. `timeout`: seconds one request may take. `would_cut`: None, or where a dry run
    notes for each mutation what it would cut; the controller undoes them all.
    """

    url: str
    token: str = field(repr=False)
    authority: str | None = None
    path: str = GRAPHQL_PATH
    timeout: float = TIMEOUT_SECONDS
    would_cut: list[dict[str, Any]] | None = None

    @property
    def rehearsing(self) -> AdminApiClient:
        """Return a client like this one whose mutations are made and undone; what they would cut is noted."""
        return replace(self, would_cut=[])

    @property
    def extension(self) -> AdminApiClient:
        """Return the same client for what klinket has beyond the public API (docs/reference/admin-api.md)."""
        return replace(self, path=EXTENSION_PATH)

    def execute(self, document: str, **variables: Any) -> dict[str, Any]:
        """Return `data`; raises a KlinketError for every other answer."""
        path = self.path if self.would_cut is None else self.path + DRY_RUN
        answer = self._request("POST", path, {"query": document, "variables": variables})
        if answer.get("errors"):
            raise _refused(answer["errors"])
        if self.would_cut is not None and (foreseen := (answer.get("extensions") or {}).get("wouldCut")) is not None:
            self.would_cut.append(foreseen)
        data: dict[str, Any] = answer["data"]
        return data

    def change(self, field_name: str, document: str, **variables: Any) -> dict[str, Any]:
        """Execute a mutation of one field and return its payload; raises Conflict with the API's text for ok=false."""
        payload: dict[str, Any] = self.execute(document, **variables)[field_name]
        if not payload["ok"]:
            text = str(payload["error"])
            raise Missing(text, hint=LOST) if "does not exist" in text else Conflict(text)
        return payload

    def mutate(self, field_name: str, returned: str = "", **arguments: Argument) -> dict[str, Any]:
        """Execute a mutation with exactly these arguments, each with its GraphQL type, and return its payload as `change` does.

        `returned`: what is selected besides ok and error. An argument that is left out is absent, one that is None is null.
        """
        declared = ", ".join(f"${name}: {kind}" for name, (kind, _) in arguments.items())
        passed = ", ".join(f"{name}: ${name}" for name in arguments)
        document = f"mutation({declared}) {{ {field_name}({passed}) {{ ok error {returned} }} }}"
        return self.change(field_name, document, **{name: value for name, (_, value) in arguments.items()})

    def nodes(self, field_name: str, selection: str, **arguments: Argument) -> Iterator[dict[str, Any]]:
        """Yield every node of a connection of Query, page by page; arguments as of `mutate`."""
        declared = "".join(f", ${name}: {kind}" for name, (kind, _) in arguments.items())
        passed = "".join(f", {name}: ${name}" for name in arguments)
        document = (
            f"query($after: String{declared}) {{ {field_name}(first: {PAGE_NODES}, after: $after{passed})"
            f" {{ pageInfo {{ hasNextPage endCursor }} edges {{ node {{ {selection} }} }} }} }}"
        )
        values = {name: value for name, (_, value) in arguments.items()}
        after = None
        while True:
            page = self.execute(document, after=after, **values)[field_name]
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
        hint = "set KLINKET_URL to https://HOST:PORT"
        try:
            address = urlsplit(self.url if "://" in self.url else f"https://{self.url}")
            host, port = address.hostname, address.port
        except ValueError as error:  # brackets that do not close, a port that is none
            raise InvalidInput("url", f"not an https URL: {self.url}: {error}", hint=hint) from error
        if address.scheme != "https" or not host:
            raise InvalidInput("url", f"not an https URL: {self.url}", hint=hint)
        return http.client.HTTPSConnection(host, port or 443, timeout=self.timeout, context=self._context())

    def _headers(self) -> dict[str, str]:
        return {"X-API-KEY": self.token, "Content-Type": "application/json", "User-Agent": "klinket-admin"}

    @contextmanager
    def _told_as_klinket(self) -> Iterator[None]:
        """Tell errors of the connection in klinket's own words."""
        try:
            yield
        except ssl.SSLCertVerificationError as error:
            hint = "set KLINKET_CA to the controller-ca.pem of this network"
            if error.verify_code in OTHER_NAME:
                hint = "the certificate is for another name: set KLINKET_URL to what the controller has as --public-url"
            raise ControllerUnreachable(f"{self.url} does not prove who it is: {error.verify_message}", hint=hint) from error
        except ssl.SSLError as error:
            hint = "is this the port of `klinket controller`, and not one of plain HTTP?"
            raise ControllerUnreachable(f"{self.url} does not speak TLS: {error.reason or error}", hint=hint) from error
        except (OSError, http.client.HTTPException) as error:
            raise ControllerUnreachable(
                f"cannot reach {self.url}: {error}", hint="check KLINKET_URL and that the controller runs"
            ) from error

    def _context(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.authority)
        except (OSError, ssl.SSLError) as error:
            why = getattr(error, "strerror", None) or error
            hint = "set KLINKET_CA (or --ca) to the controller-ca.pem of this network"
            raise InvalidInput("ca", f"cannot read certificates from {self.authority}: {why}", hint=hint) from error


def _refused(told: list[dict[str, Any]]) -> KlinketError:
    """Return the error for what GraphQL itself refused: a value that cannot be, or more than the limits allow."""
    message = "; ".join(str(error.get("message")) for error in told)
    extensions = told[0].get("extensions") or {}
    hint = extensions.get("hint") or None
    if extensions.get("code") in (None, "internal"):
        return KlinketError(message, hint=hint)
    return InvalidInput("request", message, hint=hint)


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
        raise Missing(message, hint=hint or LOST)
    if status == 429:
        wait = int(retry_after) if retry_after and retry_after.isdigit() else 60
        raise Throttled(message, hint=f"try again in {wait} s", retry_after=float(wait))
    if status == 503:
        raise ControllerUnreachable(message, hint=hint or "try again soon; look at the controller's log")
    if status == 400:
        raise InvalidInput("request", message, hint=hint)
    raise KlinketError(message, hint=hint)
