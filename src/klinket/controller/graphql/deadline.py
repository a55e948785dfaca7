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

#: Seconds of one request, waiting for its turn included.
MAX_SECONDS = 30.0
#: Seconds one operation may execute: whoever else wants the reader thread, or the only writer, waits as long.
MAX_EXECUTE_SECONDS = 10.0

_ends: ContextVar[float | None] = ContextVar("deadline", default=None)


class TookTooLong(KlinketError):
    """The request was stopped: what it asks for takes longer than one request may."""

    code = "took-too-long"
    default_hint = "ask for less at once: smaller pages, narrower filters, fewer changes in one document"


class _OutOfTime(BaseException):
    """No Exception: a field's error would be caught, and its neighbours go on."""


@contextmanager
def until(moment: float) -> Iterator[None]:
    """Raise TookTooLong from `check` inside once time.monotonic() has reached `moment`: nothing inside goes on after it."""
    token = _ends.set(moment)
    try:
        yield
    except _OutOfTime:
        raise TookTooLong(
            f"the request takes longer than {MAX_SECONDS:.0f} s in all, or {MAX_EXECUTE_SECONDS:.0f} s of executing"
        ) from None
    finally:
        _ends.reset(token)


def check() -> None:
    """End the document executing in this thread when its time is over. For each field, and for each row looked at."""
    ends = _ends.get()
    if ends is not None and time.monotonic() >= ends:
        raise _OutOfTime
