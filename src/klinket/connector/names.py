"""Looks names up for flows: bounded per account, so that one account's slow names delay nobody else's flows.

A look-up of the C library cannot be ended, only abandoned: its thread counts until it comes back by itself.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from klinket.connector.limits import (
    LOOKUPS_PER_ACCOUNT,
    MAX_LOOKUPS,
    MAX_UNKNOWN_NAMES,
    MAX_WAITING_LOOKUPS,
    UNKNOWN_NAME_SECONDS,
)
from klinket.domain.address import parse_ip
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import FlowFailure
from klinket.domain.shares import FairShares

#: Address family and address text, which may carry a scope (%eth0).
Found = list[tuple[int, str]]
Lookup = Callable[[str], Found]


def system_lookup(host: str) -> Found:
    """Ask the C library, in the calling thread; raises socket.gaierror and UnicodeError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((int(entry[0]), str(entry[4][0])) for entry in found))


class NameLookups:
    """All look-ups of one connector. `lookup` runs in threads of its own."""

    def __init__(self, lookup: Lookup = system_lookup) -> None:
        self._lookup = lookup
        self._running: dict[str, asyncio.Future[Found]] = {}
        self._shares: FairShares[str] = FairShares(MAX_LOOKUPS)
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        self._unknown: OrderedDict[str, float] = OrderedDict()

    async def find(self, host: str, account: str) -> Found:
        """Return the addresses of a canonical host, at least one.

        Raises socket.gaierror and UnicodeError for a name nobody knows, FlowRefused when too many of the account wait.
        """
        address = parse_ip(host)
        if address is not None:
            return [(socket.AF_INET if address.version == 4 else socket.AF_INET6, str(address))]
        if self._unknown.get(host, 0.0) > time.monotonic():
            raise socket.gaierror(socket.EAI_NONAME, "not known a moment ago")
        if host not in self._running:
            await self._seat(account)
            if host in self._running:
                self._free(account)  # somebody else has begun meanwhile
            else:
                self._begin(host, account)
        return await asyncio.shield(self._running[host])

    def _begin(self, host: str, account: str) -> None:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Found] = loop.create_future()
        self._running[host] = answer

        def done(result: Found | None, error: BaseException | None) -> None:
            del self._running[host]
            self._free(account)
            if error is None:
                answer.set_result(result or [])
                return
            if isinstance(error, socket.gaierror | UnicodeError):
                self._note_unknown(host)
            answer.set_exception(error)
            answer.exception()  # whoever asked may have gone

        def look_up() -> None:
            outcome: tuple[Found | None, BaseException | None]
            try:
                outcome = self._lookup(host), None
            except Exception as error:
                outcome = None, error
            try:
                loop.call_soon_threadsafe(done, *outcome)
            except RuntimeError:
                pass  # the connector has ended meanwhile

        # Not a pool: its threads would be waited for at the end of the process, however long their names take.
        threading.Thread(target=look_up, name=f"look-up of {host}", daemon=True).start()

    def _note_unknown(self, host: str) -> None:
        self._unknown[host] = time.monotonic() + UNKNOWN_NAME_SECONDS
        self._unknown.move_to_end(host)
        if len(self._unknown) > MAX_UNKNOWN_NAMES:
            self._unknown.popitem(last=False)

    # ---- seats

    def _take(self, account: str) -> bool:
        return self._shares.of(account) < LOOKUPS_PER_ACCOUNT and self._shares.take(account)

    async def _seat(self, account: str) -> None:
        queue = self._waiting.get(account)
        if queue is None and self._take(account):
            return
        if queue is None:
            queue = self._waiting[account] = deque()
        if len(queue) >= MAX_WAITING_LOOKUPS:
            raise FlowRefused(
                FlowFailure.THROTTLED, f"{MAX_WAITING_LOOKUPS} names of the service account wait to be looked up", retry_after=1
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._free(account)
            elif turn in queue:
                queue.remove(turn)
                if not queue and self._waiting.get(account) is queue:
                    del self._waiting[account]
            raise

    def _free(self, account: str) -> None:
        self._shares.give_back(account)
        for other in list(self._waiting):
            queue = self._waiting[other]
            if self._take(other):
                queue.popleft().set_result(None)
                del self._waiting[other]
                if queue:
                    self._waiting[other] = queue  # last in turn: the next seat is another account's
                return
