"""The simulated relay: the real core. Killed, it forgets admissions and who waits, as a relay does."""

from __future__ import annotations

from collections.abc import Callable

from klinket.controller.trust import KeyPurpose, Trust
from klinket.relay.core import Paired, Refused, RelayCore
from klinket.relay.limits import RelayLimits
from klinket.wire.relay import Admission, RelayAnswer, RelayError, RelayHello, RelayRole
from tests.simulation.controller import NETWORK


class Seat:
    """One holder's admission at a relay, and how many hellos it has said."""

    def __init__(self, admission: Admission, role: RelayRole) -> None:
        self.admission = admission
        self.counter = 0
        self._role = role

    def hello(self, connector: int) -> bytes:
        """Return the next hello."""
        self.counter += 1
        return RelayHello(self._role, self.admission.id, self.counter, connector).sign(self.admission.key)


class Relay:
    """`name` in the network, `id` at the controller. `now`: true time in seconds since the epoch."""

    def __init__(
        self, name: str, id: int, trust: Callable[[], Trust], now: Callable[[], float], entropy: Callable[[int], bytes]
    ) -> None:
        self.name = name
        self.id = id
        self.up = False
        self._trust = trust
        self._now = now
        self._entropy = entropy
        self._peers = 0
        self._core: RelayCore

    def start(self) -> None:
        """Begin with nothing but the keys that sign tickets."""
        self._core = RelayCore(RelayLimits(), self._entropy)
        self._core.configure(self.id, NETWORK, self._trust().keys[KeyPurpose.TICKET].to_jwks())
        self.up = True

    def kill(self) -> None:
        """End at once."""
        self.up = False

    def admit(self, ticket: str, role: RelayRole) -> Seat:
        """Return a seat for a ticket; raises RelayError, InvalidToken."""
        return Seat(self._core.admit(ticket, self._now()), role)

    def pair(self, client_hello: bytes, connector_hello: Callable[[], bytes | None]) -> None:
        """Join a client with a connection of the connector, which says its hello when it is asked for one. Raises RelayError."""
        if isinstance(refusal := self._said(client_hello), RelayAnswer):
            raise RelayError(refusal)
        if refusal is not None:
            self._core.pair_ended(refusal.holder)
            return
        client = self._peers
        hello = connector_hello()
        answer = None if hello is None else self._said(hello)
        self._core.gone(client)
        if not isinstance(answer, Paired):
            raise RelayError(RelayAnswer.NO_CONNECTOR if answer is None else answer)
        self._core.pair_ended(answer.holder)

    def _said(self, hello: bytes) -> Paired | RelayAnswer | None:
        self._peers += 1
        for output in self._core.hello(self._peers, hello, self._now()):
            return output.answer if isinstance(output, Refused) else output
        return None
