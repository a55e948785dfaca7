"""The time a document may take, checked where the work is done.

A document executes in a thread of the store, which goes on whatever the event loop decides: so whatever can take long
(pages, filters, lists of ids, each mutation) asks here, and stops when the time is over.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from klinket.domain.errors import KlinketError

#: Seconds one request may execute.
MAX_SECONDS = 30.0
#: Seconds a mutation document may hold the only writer, with every other change waiting behind it.
MAX_WRITE_SECONDS = 10.0

_ends: ContextVar[float | None] = ContextVar("deadline", default=None)


class TookTooLong(KlinketError):
    """The request was stopped: what it asks for takes longer than one request may."""

    code = "took-too-long"
    default_hint = "ask for less at once: smaller pages, narrower filters, fewer changes in one document"


@contextmanager
def until(moment: float) -> Iterator[None]:
    """Let `check` raise inside once time.monotonic() has reached `moment`."""
    token = _ends.set(moment)
    try:
        yield
    finally:
        _ends.reset(token)


def check() -> None:
    """Raise TookTooLong when the time of the document executing in this thread is over."""
    ends = _ends.get()
    if ends is not None and time.monotonic() >= ends:
        raise TookTooLong(f"the request takes longer than {MAX_SECONDS:.0f} s, or {MAX_WRITE_SECONDS:.0f} s of writing")
