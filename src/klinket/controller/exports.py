"""Exports over HTTP: the audit and the network events of a time range, streamed page by page (facts §6)."""

from __future__ import annotations

import asyncio
import json
import logging
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Message, Receive, Scope, Send

from klinket.controller import audit_signing
from klinket.controller.app import audit_log, export_csv, flow_events
from klinket.controller.app.ports import Store
from klinket.controller.console.headers import SECURITY_HEADERS
from klinket.controller.graphql.context import ApiCaller
from klinket.controller.http import told
from klinket.controller.seats import abandon, proven
from klinket.controller.trust import KeyPurpose, Trust
from klinket.domain.audit_chain import SignedRange
from klinket.domain.errors import InvalidInput, KlinketError, Throttled
from klinket.wire import audit_export
from klinket.wire.audit_signature import sign_range
from klinket.wire.paths import AUDIT_EXPORT_PATH, FLOWS_EXPORT_PATH

logger = logging.getLogger(__name__)

#: Exports that run at a time; one more is told to wait.
MAX_EXPORTS = 4
#: Those of one API token, or of one user of the console.
MAX_EXPORTS_PER_TOKEN = 2
#: Seconds that a piece of so many bytes may wait for its reader; then the export and its connection end.
STALLED_SECONDS = 10.0
PIECE_BYTES = 65_536
#: Seconds after which it should ask again.
RETRY_SECONDS = 10.0
_TYPES = {"json": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}
_ENDINGS = {"json": "jsonl", "csv": "csv"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks for; times in milliseconds since the epoch, None: open. `equal`: conditions of flow events."""

    format: str
    begin_ms: int | None
    end_ms: int | None
    gzip: bool
    equal: Mapping[str, Any] = field(default_factory=dict)


class _Export(StreamingResponse):
    """A response that ends when its reader does not read, and that tells when it has ended, also before its first byte."""

    def __init__(self, content: AsyncIterator[bytes], request: Request, ended: Callable[[], None], **more: Any) -> None:
        super().__init__(content, **more)
        self._request = request
        self._tell = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, lambda message: self._send(send, message))
        finally:
            self._tell()

    async def _send(self, send: Send, message: Message) -> None:
        """Send in pieces, each within its time: also a reader of a few bytes a second makes no progress."""
        body = message.get("body", b"")
        more = message.get("more_body", False)
        try:
            for start in range(0, max(1, len(body)), PIECE_BYTES):
                piece = message
                if len(body) > PIECE_BYTES:
                    end = start + PIECE_BYTES
                    piece = {**message, "body": body[start:end], "more_body": more or end < len(body)}
                async with asyncio.timeout(STALLED_SECONDS):
                    await send(piece)
        except TimeoutError:
            logger.warning("an export ends: its reader has taken nothing for %.0f s", STALLED_SECONDS)
            # Closing would wait for the reader. The end of the connection then ends the response, as for one that has gone.
            abandon(self._request)


class Exports:
    """Streams exports, no more at a time than there may be, to whoever was let in."""

    def __init__(self, store: Store, trust: Trust) -> None:
        self._store = store
        self._trust = trust
        self._running: Counter[str] = Counter()

    def audit(self, request: Request, wanted: Wanted, reader: str) -> Response:
        """Return the audit as a file. `reader`: who reads it ("API token 3"); raises Throttled."""
        return self._response(request, "audit", self._audit, wanted, reader)

    def flows(self, request: Request, wanted: Wanted, reader: str) -> Response:
        """Return network events as a file; raises Throttled."""
        return self._response(request, "network-events", self._flows, wanted, reader)

    @property
    def is_running(self) -> bool:
        """Return whether somebody is reading one."""
        return self._running.total() > 0

    def routes(self, reader: Callable[[Request], Awaitable[ApiCaller]]) -> list[BaseRoute]:
        """Return the routes for API tokens. `reader`: who asks, if they may read."""

        def served(export: Callable[[Request, Wanted, str], Response]) -> Callable[[Request], Awaitable[Response]]:
            async def serve(request: Request) -> Response:
                try:
                    caller = f"API token {(await reader(request)).token}"
                    proven(request, caller)
                    return export(request, parse_wanted(request.query_params), caller)
                except KlinketError as error:
                    return told(error)

            return serve

        return [
            Route(AUDIT_EXPORT_PATH, served(self.audit), methods=["GET"]),
            Route(FLOWS_EXPORT_PATH, served(self.flows), methods=["GET"]),
        ]

    def _response(
        self, request: Request, name: str, export: Callable[[Wanted], AsyncIterator[bytes]], wanted: Wanted, reader: str
    ) -> Response:
        if self._running.total() >= MAX_EXPORTS:
            raise Throttled(f"{MAX_EXPORTS} exports are running, the limit", retry_after=RETRY_SECONDS)
        if self._running[reader] >= MAX_EXPORTS_PER_TOKEN:
            kind = reader.rpartition(" ")[0]
            raise Throttled(f"{MAX_EXPORTS_PER_TOKEN} exports of this {kind} are running, the limit", retry_after=RETRY_SECONDS)
        self._running[reader] += 1  # from now on, and not from its first byte: others ask meanwhile
        ending = _ENDINGS[wanted.format] + (".gz" if wanted.gzip else "")
        headers = {
            "Content-Disposition": f'attachment; filename="{name}.{ending}"',
            "Cache-Control": "no-store",
            **SECURITY_HEADERS,
        }
        content = _compressed(export(wanted)) if wanted.gzip else export(wanted)
        media_type = "application/gzip" if wanted.gzip else _TYPES[wanted.format]
        return _Export(content, request, lambda: self._ended(reader), headers=headers, media_type=media_type)

    def _ended(self, reader: str) -> None:
        self._running[reader] -= 1
        self._running += Counter()  # without those that have none

    async def _audit(self, wanted: Wanted) -> AsyncIterator[bytes]:
        # Everything is signed first: the end of an export must be as provable as its beginning.
        await audit_signing.sign_waiting(self._store, self._trust, now=True)
        shown = _audit_lines if wanted.format == "json" else _audit_csv

        def begin(tx: Any) -> tuple[SignedRange, str | None, bytes, int]:
            # One look for all of it: retention may remove the first events as soon as the next one.
            whole = audit_log.range_of(tx, self._trust.network, wanted.begin_ms, wanted.end_ms)
            anchor = audit_log.anchor_of(tx, whole.first)
            return whole, anchor, *shown(audit_log.export_step(tx, whole, whole.first - 1), whole)

        whole, anchor, content, position = await self._store.read(begin)
        if wanted.format == "csv":
            yield export_csv.lines([export_csv.AUDIT_COLUMNS])
        elif anchor is not None:
            yield audit_export.anchor_line(anchor)
        yield content
        while position < whole.last:
            content, position = await self._store.read(lambda tx: shown(audit_log.export_step(tx, whole, position), whole))  # noqa: B023
            yield content
        if wanted.format == "json":
            yield audit_export.trailer_line(sign_range(self._trust.signers[KeyPurpose.AUDIT], whole))

    async def _flows(self, wanted: Wanted) -> AsyncIterator[bytes]:
        as_json = wanted.format == "json"
        if not as_json:
            yield export_csv.lines([export_csv.FLOW_COLUMNS])
        position: int | None = 0
        newest = await self._store.read(lambda tx: tx.flow_events.newest(1))
        last = newest[0].id if newest else 0

        def step(tx: Any) -> tuple[bytes, int | None]:
            assert position is not None
            finished = {} if as_json else {"kind": flow_events.FINISHED}
            rows = flow_events.page(tx, position, wanted.begin_ms, wanted.end_ms, **{**finished, **wanted.equal})
            rows = [row for row in rows if row.id <= last]  # what comes in meanwhile is for the next export
            if as_json:
                content = b"".join(_network_line(row.event) for row in rows)
            else:
                content = export_csv.lines(export_csv.connection_row(one) for one in flow_events.connections(tx, rows))
            return content, rows[-1].id if rows else None

        while position is not None:
            content, position = await self._store.read(step)
            yield content


def _network_line(event: dict[str, Any]) -> bytes:
    return json.dumps({"event_type": "network", "event": event}, separators=(",", ":")).encode() + b"\n"


def _audit_lines(step: audit_log.Exported, whole: SignedRange) -> tuple[bytes, int]:
    """Return the lines of a step with its signatures, each after the last event it covers; and where the step ends."""
    parts = []
    waiting = sorted(step.signatures.items())
    for event in step.events:
        while waiting and waiting[0][0] < event["number"]:
            parts.append(audit_export.signature_line(waiting.pop(0)[1]))
        parts.append(audit_export.event_line(event))
    parts += [audit_export.signature_line(token) for _, token in waiting]
    return b"".join(parts), _end(step, whole)


def _audit_csv(step: audit_log.Exported, whole: SignedRange) -> tuple[bytes, int]:
    return export_csv.lines(export_csv.audit_row(event) for event in step.events), _end(step, whole)


def _end(step: audit_log.Exported, whole: SignedRange) -> int:
    return int(step.events[-1]["number"]) if step.events else whole.last


async def _compressed(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    packer = zlib.compressobj(wbits=31)  # with gzip's header
    async for piece in content:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


def parse_wanted(query: Any) -> Wanted:
    """Return what the query string asks for; raises InvalidInput naming the parameter."""
    format = query.get("format", "json")
    if format not in _TYPES:
        raise InvalidInput("format", f"format is json or csv, not {format[:40]!r}")
    begin, end = _moment("from", query.get("from")), _moment("to", query.get("to"))
    if begin is not None and end is not None and begin > end:
        raise InvalidInput("from", "from is later than to")
    packed = query.get("gzip", "false").lower()
    if packed not in ("true", "false"):
        raise InvalidInput("gzip", "gzip is true or false")
    return Wanted(format, begin, end, packed == "true")


def _moment(name: str, text: str | None) -> int | None:
    """Return milliseconds since the epoch for ISO 8601 text with an offset; None where there is none."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("no offset")
        return round(moment.astimezone(UTC).timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            name, f"{name} is not a time with an offset: {text[:40]!r}", hint="write it as 2026-12-31T00:00:00Z"
        ) from error
