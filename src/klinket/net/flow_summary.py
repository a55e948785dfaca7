"""How a flow has ended."""

from __future__ import annotations

from dataclasses import dataclass

from klinket.wire.pipe_messages import Failure


@dataclass(frozen=True, slots=True)
class FlowSummary:
    """How a flow ended. Bytes of content into and out of the pipe; `failure` None: both ends finished cleanly."""

    bytes_sent: int
    bytes_received: int
    failure: Failure | None = None
