"""A relay core with the controller's key that signs tickets."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from klinket.relay.core import RelayCore
from klinket.relay.limits import RelayLimits
from klinket.wire.relay import Admission, RelayHello, RelayRole
from klinket.wire.signing import KeySet, SigningKey
from klinket.wire.ticket import TicketRole, sign_ticket

NOW = 1_800_000_000.0
NETWORK = "acme"
RELAY = 4
KEY = SigningKey.generate("tickets-1")
_NUMBERS = itertools.count(1)


def ticket(
    role: TicketRole = TicketRole.CLIENT,
    connectors: tuple[int, ...] = (7,),
    *,
    holder: str | None = None,
    now: float = NOW,
    lifetime: float = 600.0,
    network: str = NETWORK,
    relay: int = RELAY,
    key: SigningKey = KEY,
    id: str | None = None,
    account: str = "",
) -> str:
    """Return a signed ticket that no relay has seen."""
    who = holder or ("connector:7" if role is TicketRole.CONNECTOR else "session-1")
    return sign_ticket(
        key,
        network=network,
        role=role,
        holder=who,
        relay=relay,
        connectors=connectors,
        now=now,
        lifetime=lifetime,
        id=id or f"ticket-{next(_NUMBERS)}",
        account=account,
    )


@dataclass
class Peer:
    """Somebody the relay has admitted."""

    admission: Admission
    role: RelayRole
    counter: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def hello(self, connector: int = 7, *, counter: int | None = None, role: RelayRole | None = None) -> bytes:
        """Return the next hello."""
        number = next(self.counter) if counter is None else counter
        return RelayHello(role or self.role, self.admission.id, number, connector).sign(self.admission.key)


@dataclass
class Relay:
    """A configured core."""

    core: RelayCore
    limits: RelayLimits

    def client(self, *connectors: int, holder: str = "session-1", now: float = NOW, account: str = "") -> Peer:
        """Admit a client that may meet these connectors."""
        signed = ticket(connectors=connectors or (7,), holder=holder, now=now, account=account)
        return Peer(self.core.admit(signed, now), RelayRole.CLIENT)

    def connector(self, id: int = 7, now: float = NOW) -> Peer:
        """Admit a connector."""
        signed = ticket(TicketRole.CONNECTOR, (id,), holder=f"connector:{id}", now=now)
        return Peer(self.core.admit(signed, now), RelayRole.CONNECTOR)


MakeRelay = Callable[[RelayLimits], Relay]


def random_bytes() -> Callable[[int], bytes]:
    """Return a source of bytes that never repeat."""
    numbers = itertools.count(1)
    return lambda count: next(numbers).to_bytes(count, "big")


@pytest.fixture
def make_relay() -> MakeRelay:
    """Make a core with limits of one's own."""

    def make(limits: RelayLimits) -> Relay:
        core = RelayCore(limits, random_bytes())
        core.configure(RELAY, NETWORK, KeySet({KEY.kid: KEY.public_key}).to_jwks())
        return Relay(core, limits)

    return make


@pytest.fixture
def relay(make_relay: MakeRelay) -> Relay:
    """A core with the usual limits."""
    return make_relay(RelayLimits())
