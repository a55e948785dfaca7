"""This machine's clock: whether something keeps it right, and how far it is from the controller's."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator

from klinket.doctor.finding import Finding, fail, ok, warn
from klinket.wire.signing import LEEWAY_SECONDS

#: From adjtimex(2): the answer for a clock nobody keeps, the bit that says the same, and where `status` is in `struct timex`.
_TIME_ERROR, _STA_UNSYNC, _STATUS = 5, 0x40, 40
_TIMEX_BYTES = 256
_KEEP = "timedatectl set-ntp true, or install chrony"
#: Seconds from which on a clock is worth a look; the controller's is told in whole seconds.
WARN_SECONDS = 2.0
#: Seconds below which a difference says nothing: half a second for the rounding, the rest for the way and a busy machine.
SAME_SECONDS = 1.5


def kept() -> Iterator[Finding]:
    """Yield `clock-kept` where the system can say it (Linux)."""
    if not sys.platform.startswith("linux"):
        return
    try:
        timex = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes 0: nothing is changed
        state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    except (OSError, AttributeError):
        return
    if state < 0:
        return  # forbidden here: nothing is known
    status = int.from_bytes(timex.raw[_STATUS : _STATUS + 4], sys.byteorder)
    if state == _TIME_ERROR or status & _STA_UNSYNC:
        yield warn("clock-kept", "nothing keeps this machine's clock right", _KEEP)
    else:
        yield ok("clock-kept", "a time service keeps this machine's clock right")


def against(own: float, told: float) -> Finding:
    """Return `clock`: seconds since the epoch here, and at the controller, which tells whole seconds."""
    difference = own - (told + 0.5)
    if abs(difference) < SAME_SECONDS:
        return ok("clock", "the same as the controller's, as far as its whole seconds tell")
    where = "ahead of" if difference > 0 else "behind"
    text = f"{abs(difference):.1f} s {where} the controller's, {LEEWAY_SECONDS:.0f} s are the limit"
    if abs(difference) > LEEWAY_SECONDS:
        return fail("clock", text, f"set the clock: {_KEEP}")
    return warn("clock", text, _KEEP) if abs(difference) > WARN_SECONDS else ok("clock", text)
