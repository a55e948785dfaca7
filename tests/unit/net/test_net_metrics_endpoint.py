"""The endpoint for who watches a part: three paths, bounded requests, and nothing without an address."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re

import pytest

from klinket.domain.errors import InvalidInput
from klinket.domain.readiness import Readiness, Unready
from klinket.net import metrics_endpoint
from klinket.net.exposition import Exposition
from klinket.net.metrics_endpoint import MAX_CONNECTIONS, MAX_REQUEST_BYTES, served
from klinket.net.sockets import HostPort
from tests.eventually import eventually

LOOPBACK = HostPort("127.0.0.1", 0)


async def ready() -> Readiness:
    return Readiness()


async def not_ready() -> Readiness:
    return Readiness((Unready("not-attached", "no live channel"),))


async def ask(where: HostPort | None, request: bytes) -> tuple[int, str, bytes]:
    """Send a request; returns status (0: closed without a word), head and body."""
    assert where is not None
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(where.host, where.port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]) if head else 0, head.decode(), body


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


async def test_live_does_not_ask_whether_it_is_ready() -> None:
    async with served(LOOPBACK, lambda: Exposition("relay"), not_ready) as where:
        status, _, body = await ask(where, get("/live"))
    assert (status, json.loads(body)) == (200, {"status": "live"})


async def test_ready_says_why_not() -> None:
    async with served(LOOPBACK, lambda: Exposition("relay"), not_ready) as where:
        status, _, body = await ask(where, get("/ready"))
    assert (status, json.loads(body)["reasons"][0]["code"]) == (503, "not-attached")
    async with served(LOOPBACK, lambda: Exposition("relay"), ready) as where:
        assert (await ask(where, get("/ready?x=1")))[0] == 200


@pytest.mark.parametrize(("state", "value"), [(ready, "1.0"), (not_ready, "0.0")])
async def test_metrics_say_who_and_whether_it_is_ready(state: object, value: str) -> None:
    async with served(LOOPBACK, lambda: Exposition("relay"), state) as where:  # type: ignore[arg-type]
        status, head, body = await ask(where, get("/metrics"))
    assert status == 200
    assert "Content-Type: text/plain; version=" in head
    assert re.search(rf"^klinket_ready {value}$", body.decode(), re.MULTILINE)
    assert b'klinket_build_info{role="relay",version="' in body
    assert re.search(rb"^process_open_fds \d", body, re.MULTILINE)


async def test_head_has_no_body_and_other_methods_and_paths_are_refused() -> None:
    async with served(LOOPBACK, lambda: Exposition("relay"), ready) as where:
        status, head, body = await ask(where, b"HEAD /live HTTP/1.1\r\n\r\n")
        assert (status, body) == (200, b"")
        assert "Content-Length: 19" in head
        assert (await ask(where, b"POST /ready HTTP/1.1\r\n\r\n"))[0] == 405
        assert (await ask(where, get("/")))[0] == 404
        assert (await ask(where, b"\r\n\r\n"))[0] == 405


async def test_a_request_that_is_too_long_or_too_slow_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_endpoint, "REQUEST_SECONDS", 0.1)
    async with served(LOOPBACK, lambda: Exposition("relay"), ready) as where:
        assert (await ask(where, b"GET /live HTTP/1.1\r\nHost: "))[0] == 0
        assert (await ask(where, b"GET /live HTTP/1.1\r\n" + b"a" * MAX_REQUEST_BYTES + b"\r\n\r\n"))[0] == 0
        assert (await ask(where, get("/live")))[0] == 200


async def test_connections_that_ask_nothing_give_way_the_oldest_first() -> None:
    async with served(LOOPBACK, lambda: Exposition("relay"), ready) as where:
        assert where is not None
        silent = [await asyncio.open_connection(where.host, where.port) for _ in range(MAX_CONNECTIONS)]
        assert (await ask(where, get("/live")))[0] == 200
        async with asyncio.timeout(2):  # sooner than its time to ask is over
            with contextlib.suppress(ConnectionResetError):
                assert await silent[0][0].read() == b""
        for _, writer in silent:
            writer.close()


async def test_no_more_are_answered_at_a_time_than_there_may_be() -> None:
    go, asked = asyncio.Event(), 0

    async def slowly() -> Readiness:
        nonlocal asked
        asked += 1
        await go.wait()
        return Readiness()

    async with served(LOOPBACK, lambda: Exposition("relay"), slowly) as where:
        waiting = [asyncio.ensure_future(ask(where, get("/ready"))) for _ in range(MAX_CONNECTIONS)]
        await eventually(lambda: asked == MAX_CONNECTIONS)
        assert (await ask(where, get("/ready")))[0] == 0
        go.set()
        assert [(await one)[0] for one in waiting] == [200] * MAX_CONNECTIONS


async def test_without_an_address_nothing_is_made() -> None:
    def never() -> Exposition:
        raise AssertionError

    async with served(None, never, ready) as where:
        assert where is None


async def test_an_address_that_is_taken_is_named() -> None:
    async with served(LOOPBACK, lambda: Exposition("relay"), ready) as where:
        with pytest.raises(InvalidInput, match="cannot listen on 127") as refused:
            async with served(where, lambda: Exposition("relay"), ready):
                pass
    assert refused.value.field == "metrics"
    assert "choose another" in refused.value.hint
