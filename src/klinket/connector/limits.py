"""The connector's limits, by name and unit."""

from __future__ import annotations

#: Seconds to resolve and dial a resource.
DIAL_SECONDS = 10.0
#: Seconds a pipe may wait for its first bytes after a client was joined, and for the next flow.
HELLO_SECONDS = 15.0
PIPE_IDLE_SECONDS = 90.0
#: Seconds a UDP association lives without a datagram.
DATAGRAM_IDLE_SECONDS = 120.0
#: Idle connections kept at each relay.
MIN_IDLE, MAX_IDLE = 4, 256
#: Links, and live flows, of all clients.
MAX_LINKS = 20_000
MAX_FLOWS = 50_000
#: Events in one batch, batches on disk, and seconds between batches.
BATCH_EVENTS = 200
#: Events that may wait for the disk; further ones are lost, aloud.
MAX_COLLECTED_EVENTS = 20_000
MAX_SPOOLED_BATCHES = 2_000
BATCH_SECONDS = 1.0
#: Account buckets kept; the least recently used go first.
MAX_BUCKETS = 10_000
