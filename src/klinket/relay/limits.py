"""The relay's limits, by name and unit: nothing an outsider can grow is without one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RelayLimits:
    """Sizes, counts and times of one relay."""

    #: Seconds from accepting a connection to its complete hello or admission.
    hello_seconds: float = 5.0
    #: Seconds a client waits for an idle connection of its connector.
    pairing_seconds: float = 5.0
    #: Seconds a connector's connection may wait idle; it then opens a new one.
    max_idle_seconds: float = 3600.0
    #: Connections whose hello is not complete, in all and per source address.
    #: An IPv6 address counts by its /64. The oldest of the address, or of the biggest, gives way.
    max_hellos: int = 1_024
    max_hellos_per_address: int = 256
    max_idle_per_connector: int = 512
    max_unfinished_per_ticket: int = 64
    #: Admissions, in fair shares per account, or per connector.
    max_admissions: int = 50_000
    max_admissions_per_holder: int = 4
    #: Tickets remembered until they end, so that each is taken once; in fair shares per account.
    max_shown_tickets: int = 262_144
    #: Pairs, clients that wait for theirs among them; in fair shares per account and per session within it.
    #: Fewer where fewer files may be open.
    max_pairs: int = 65_536
    #: File descriptors kept free for listening, the channel and files.
    spare_descriptors: int = 64
    #: Seconds without a byte in either direction after which a pair is closed.
    pair_idle_seconds: float = 24 * 3600.0
    #: Pairs whose datagrams are forwarded, in fair shares per account and per session within it. Each has two bound addresses at
    #: the most, one of each end.
    max_datagram_pairs: int = 16_384
    #: Seconds without a bind of its end after which an address is bound no more.
    binding_seconds: float = 60.0
    #: Seconds between two challenges of an end, wherever they go.
    bind_challenge_seconds: float = 0.1
    #: Seconds for which the cookie of a challenge counts at the least; it may be twice as long. With `binding_seconds` they bound
    #: how long datagrams go to an address that its end has left.
    cookie_seconds: float = 30.0
