"""Requests as nobody writes them by accident: paths that climb, headers that claim to be somebody else, names that are none."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from klinket.controller.console.static import StaticFiles
from klinket.net.channel import controller_context
from klinket.wire.paths import GRAPHQL_PATH
from tests.unit.controller.running import Running

CLIMBING = (
    "/console/static/%2e%2e/%2e%2e/gate.py",
    "/console/static/../../gate.py",
    "/console/static/x/..%2f..%2fgate.py",
    "/console/static/x/..\\..\\gate.py",
    "/console/static/{digest}/..%2fstatic.py",
    "/console/static/{digest}/%2e%2e%2f%2e%2e%2fgate.py",
    "/console/static/{digest}//etc/passwd",
    "/console/static/{digest}/%2fetc%2fpasswd",
    "/console/static/{digest}/x%00.css",
    "/console//settings/console-access",
    "/console/./settings/console-access",
    "/console/static/../settings/console-access",
    "/console/static/%2e%2e/settings/console-access",
    "/CONSOLE/settings/console-access",
    "/console/settings/console-access.",
    "/console/settings/console-access%00",
    "/console/settings/console-access/",
    "/console/settings/console-access;x=1",
    "//console/settings/console-access",
    "/console%2fsettings%2fconsole-access",
    "/console/sign-in/../settings/console-access",
    "/metrics/..;/metrics",
    "/console/" + "a" * 8_000,
    "/%ff%fe",
    "/console/settings/%ed%a0%80",
)


async def raw(controller: Running, request: bytes) -> tuple[int, str, bytes]:
    """Send bytes as they are; return status, headers in lower case, and body."""
    context = controller_context(controller.authority)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    listen = controller.config.listen
    reader, writer = await asyncio.open_connection(listen.host, listen.port, ssl=context)
    try:
        writer.write(request)
        async with asyncio.timeout(20):
            answer = await reader.read(-1)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/") else 0
    return status, head.decode("latin-1").lower(), body


@pytest.mark.parametrize("path", CLIMBING)
async def test_no_spelling_of_a_path_opens_what_its_plain_form_keeps_shut(live: Running, path: str) -> None:
    digest = StaticFiles()._digest
    request = f"GET {path.replace('{digest}', digest)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode("latin-1")
    status, head, body = await raw(live, request)
    assert status in (303, 307, 400, 404), head
    assert b"def " not in body
    assert b"root:" not in body
    assert b"Traceback" not in body
    if status in (303, 307):  # to the sign-in, or to the same place: never to another host
        where = head.partition("location: ")[2].splitlines()[0]
        assert where.startswith(("/console/", "https://x/console/", "http://x/console/")), where


@pytest.mark.parametrize("host", ["evil.example", "evil.example:1/console", "a b", "[::1", "x\x00y", "evil.example#", "é"])
async def test_a_host_header_leads_nobody_elsewhere_and_breaks_nothing(live: Running, host: str) -> None:
    for path in ("/console/settings/console-access", "/nothing"):
        request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\nConnection: close\r\n\r\n".encode("latin-1")
        status, head, body = await raw(live, request)
        assert status in (303, 400, 404), (status, head)
        assert "location: http" not in head
        assert "location: //" not in head
        assert b"evil" not in body


@pytest.mark.parametrize(
    "header",
    ["X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1", "X-Real-IP: 127.0.0.1", "X-Forwarded-Host: evil.example"],
)
async def test_no_header_makes_a_stranger_a_neighbour(controller: Running, header: str) -> None:
    name, _, value = header.partition(": ")
    answer = await controller.get("/metrics", source="203.0.113.9", headers={name: value})
    assert answer.status_code == 401


@pytest.mark.parametrize("path", ["/console/", GRAPHQL_PATH, "/healthz", "/.well-known/jwks.json"])
async def test_no_other_site_may_read_an_answer(controller: Running, path: str) -> None:
    answer = await controller.get(path, headers={"Origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
