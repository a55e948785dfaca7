"""An end's binding at a relay's UDP port, without sockets: asked for, proven, and asked for again for as long as it is used."""

from __future__ import annotations

import time
from collections.abc import Callable

from klinket.domain.errors import ProtocolError
from klinket.net.relay_path import Leg
from klinket.wire import relay_datagram as wire
from klinket.wire.relay_datagram import NO_COOKIE, Bind

#: Seconds after which a binding is asked for again: that keeps it, and a translated address, alive.
REFRESH_SECONDS = 15.0
#: Seconds for an answer, until which the next look does not ask anew: a far relay's answer would count no more.
ANSWER_SECONDS = 0.5
#: Binds in a row without an answer after which the relay forwards nothing for this end any more.
MOST_UNANSWERED = 3


class RelayBinding:
    """`own`, `to`: the receiver (7 bytes) of what this end gets, and of what it sends; `send`: sends to the relay's UDP port.

    `bound`: datagrams are forwarded to and from here. `lost`: they were, or should have been, and are not.
    """

    def __init__(self, leg: Leg, own: bytes, to: bytes, send: Callable[[bytes], None]) -> None:
        self._leg = leg
        self._own = own
        self._to = to
        self._send = send
        self._key = b""
        self._asked_at = float("-inf")
        self._unanswered = 0
        self._proves = False
        self.bound = False

    @property
    def lost(self) -> bool:
        """Return whether the relay has not answered for long."""
        return self._unanswered > MOST_UNANSWERED

    def look(self) -> None:
        """Ask where that is due; to be called once a second."""
        due = REFRESH_SECONDS if self.bound and not self._unanswered else ANSWER_SECONDS
        if time.monotonic() - self._asked_at >= due:
            self._unanswered += 1
            self._ask(NO_COOKIE)

    def _ask(self, cookie: bytes) -> None:
        admission = self._leg.path.admission()
        if admission is None:
            return  # one is being asked for
        self._asked_at = time.monotonic()
        self._key = admission.key
        self._proves = cookie != NO_COOKIE
        self._leg.number += 1
        bind = Bind(admission.id, self._leg.name, self._own, self._to, self._leg.number, cookie)
        self._send(bind.sign(admission.key))

    def received(self, answer: memoryview) -> bool:
        """Take what may be the relay's answer; returns whether this end is bound by it, and was not before."""
        try:
            number, cookie = wire.read_answer(answer, self._key)
        except ProtocolError:
            return False
        if number != self._leg.number:
            return False  # of a former bind, or one that comes again
        if cookie is not None:
            if not self._proves:
                self._ask(cookie)  # once for each look: a relay that asks on and on is not answered on and on
            return False
        self._unanswered = 0
        first, self.bound = not self.bound, True
        return first
