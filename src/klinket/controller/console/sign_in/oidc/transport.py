"""HTTP to the identity provider over our own outbound connections: no private ranges, no redirects, bounded in time and size."""

from __future__ import annotations

import http.client
import ipaddress
from collections.abc import Sequence

import httpx2

from klinket.net.outbound import EXCHANGE_SECONDS, bounded, dial_tls

#: Bytes of an answer: discovery, key set, tokens.
MAX_ANSWER_BYTES = 262_144
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class OutboundTransport(httpx2.BaseTransport):
    """One connection a request. It blocks: use it in a thread."""

    def __init__(self, allowed: Sequence[_Network], authority: str | None) -> None:
        self._allowed = tuple(allowed)
        self._authority = authority

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the answer; raises OutboundRefused, or httpx2.TransportError."""
        url = request.url
        if url.scheme != "https":
            raise httpx2.UnsupportedProtocol(f"not https: {url.scheme}", request=request)
        port = url.port or 443
        try:
            sock = dial_tls(url.host, port, self._allowed, self._authority)
        except (OSError, ValueError) as error:
            raise httpx2.ConnectError(f"{url.host} cannot be reached: {error}", request=request) from error
        connection = http.client.HTTPSConnection(url.host, port)
        connection.sock = sock
        try:
            with bounded(sock, EXCHANGE_SECONDS):
                headers = {name: value for name, value in request.headers.items() if name.lower() not in _OWN}
                connection.request(request.method, url.raw_path.decode("ascii"), request.read(), headers)
                answer = connection.getresponse()
                content = answer.read(MAX_ANSWER_BYTES + 1)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise httpx2.ReadError(f"{url.host} does not answer properly: {type(error).__name__}", request=request) from error
        finally:
            connection.close()
        if len(content) > MAX_ANSWER_BYTES:
            raise httpx2.ReadError(f"{url.host} answers with more than {MAX_ANSWER_BYTES} bytes", request=request)
        told = [(name, value) for name, value in answer.getheaders() if name.lower() not in _ENCODED]
        return httpx2.Response(answer.status, headers=told, content=content, request=request)


#: What the connection sets itself; what no longer holds for a body that was read whole. No compression is asked for.
_OWN = {"accept-encoding", "connection", "content-length", "host", "transfer-encoding"}
_ENCODED = {"content-length", "transfer-encoding"}
