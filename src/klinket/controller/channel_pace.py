"""How fast one peer's channels, and what comes on them, are taken (security.md 20): a stolen key keeps nobody waiting.

By the address a channel comes from as well: who uses a stolen key elsewhere takes nothing from who was robbed. What comes too
fast is not lost, it waits unread; so in the end its sender waits.
"""

from __future__ import annotations

import asyncio
import time

from klinket.domain.errors import Throttled
from klinket.domain.token_buckets import TokenBuckets
from klinket.net.sources import source_of
from klinket.wire import control

#: Attachments of one peer from one address: each has its configuration made, and takes the place of the one before.
ATTACH_BURST, ATTACHES_PER_SECOND = 20, 0.5
#: Messages of one peer. A connector answers thousands of cuts at once when it comes back, each with its receipt.
MESSAGE_BURST, MESSAGES_PER_SECOND = 60, 5.0
RECEIPT_BURST, RECEIPTS_PER_SECOND = 1_000, 100.0
#: Flow events of one connector, however many a message holds; and as how many one counts that holds fewer: each is a transaction.
EVENT_BURST, EVENTS_PER_SECOND = 50_000, 5_000.0
LEAST_EVENTS = 100


class ChannelPace:
    """The pace of all peers. `holder`: who has proved it: a session, a connector or a relay."""

    def __init__(self) -> None:
        self._attaches = TokenBuckets(ATTACH_BURST, ATTACHES_PER_SECOND)
        self._messages = TokenBuckets(MESSAGE_BURST, MESSAGES_PER_SECOND)
        self._receipts = TokenBuckets(RECEIPT_BURST, RECEIPTS_PER_SECOND)
        self._events = TokenBuckets(EVENT_BURST, EVENTS_PER_SECOND)

    def attach(self, holder: str, address: str) -> None:
        """Count an attachment; raises Throttled."""
        if wait := self._attaches.take(_name(holder, address), time.monotonic()):
            raise Throttled(
                f"{holder} attaches too often from {address}: {ATTACH_BURST} at once and {ATTACHES_PER_SECOND:g} a second",
                retry_after=wait,
            )

    async def message(self, holder: str, address: str, message: control.ToController | None = None) -> None:
        """Return when a message may be handled; None: one that is no message of control.py."""
        buckets, count = self._messages, 1
        if isinstance(message, control.CutReceipt):
            buckets = self._receipts
        elif isinstance(message, control.FlowEvents):
            buckets, count = self._events, max(LEAST_EVENTS, len(message.events))
        while wait := buckets.take(_name(holder, address), time.monotonic(), count):
            await asyncio.sleep(wait)


def _name(holder: str, address: str) -> str:
    return f"{holder} {source_of(address)}"
