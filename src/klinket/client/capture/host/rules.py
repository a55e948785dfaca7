"""The table of rules, as text for `nft -f -`. One table of our own, every change one atomic file.

A SYN to a resource is held in a queue (`begin`); the mark of the verdict leads it on. What may go on is marked so that a
routing rule delivers it on this machine, where TPROXY hands it to klinket. Connection tracking tells what began captured from
what began before and goes on as it did. No rule has a bypass: with klinket gone, packets are dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from klinket.client.capture import synthetic
from klinket.client.capture.connects import QueueRules
from klinket.client.capture.host.addresses import STUBS

NAME = "klinket"
TABLE = f"inet {NAME}"
#: All of klinket's marks begin with these bits.
_BASE = 0x6B6C_0000
#: klinket's own sockets: never captured.
OWN = _BASE | 0x10
#: klinket's own queries to a resolver that is a resource: captured as any program's connection, and not for the stub again.
OWN_QUERY = _BASE | 0x11
#: Packets to be delivered here: to the capture, to the DNS stub. One routing rule matches both (`DELIVER_MASK`).
DELIVER = _BASE | 0x20
DELIVER_DNS = _BASE | 0x21
DELIVER_MASK = 0xFFFF_FFFE
#: The queue, and what its verdicts lead to.
QUEUE = QueueRules(
    number=0x6B6C, connect=_BASE | 0x1, refuse=_BASE | 0x2, unreachable=_BASE | 0x3, forbidden=_BASE | 0x4
)  #: The queue of echo requests.
ECHO_QUEUE = 0x6B6D

_SYN = "tcp flags & (fin | syn | rst | ack) == syn"
_QUERY = f"meta l4proto {{ tcp, udp }} th dport 53 meta mark != {OWN_QUERY:#x}"
_ECHO_REQUESTS = ("icmp type echo-request", "icmpv6 type echo-request")
_NOT_ELSEWHERE = "{ local, broadcast, multicast, anycast }"
#: Neighbours are found with these (RFC 4861): a gateway may have an address of a captured range.
_NEIGHBOURS = "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect }"
_SETS = (("resources", "flags interval;"), ("fast", "flags interval;"), ("sources", "flags interval;"), ("resolvers", ""))


#: The queues, by the chain that leads to each.
QUEUES = {"held": QUEUE.number, "echoes": ECHO_QUEUE}


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports on 127.0.0.1 and ::1: of the capture's listener and datagram socket, and of the stub's. 0: no IPv6."""

    tcp: int
    udp: int
    dns_tcp: int
    dns_udp: int


@dataclass(frozen=True, slots=True)
class Layout:
    """What the rules are made of. `ports6` None: IPv6 is rejected; `holds`: the kernel can hold SYNs in a queue.

    `native_queue`: nft's own queue statement works; where it does not, whoever loads the rules fills the chains of QUEUES.
    """

    ports: Ports
    ports6: Ports | None
    holds: bool
    native_queue: bool
    users: tuple[int, ...] = ()
    gateway: bool = False


def layouts(best: Layout) -> Iterator[Layout]:
    """Return the layout and what kernels that can do less may take, the best first: IPv6 matters more than held connects."""
    for ports6 in dict.fromkeys((best.ports6, None)):
        yield replace(best, ports6=ports6)
        yield replace(best, ports6=ports6, native_queue=False)
        yield replace(best, ports6=ports6, native_queue=False, holds=False)


def elements(networks: Iterable[str]) -> str:
    """Return a list of elements."""
    return "{ " + ", ".join(networks) + " }"


def family(networks: Iterable[str], version: int) -> list[str]:
    """Return those of IPv4 (4) or IPv6 (6)."""
    return [network for network in networks if (":" in network) == (version == 6)]


def remove() -> str:
    """Return the file that takes the table away, whether it is there or not."""
    return f"table {TABLE}\ndelete table {TABLE}\n"


def _sets(contents: dict[str, Sequence[str]]) -> str:
    text = ""
    for name, flags in _SETS:
        for version in (4, 6):
            chosen = family(contents.get(name, ()), version)
            inner = f"\t\telements = {elements(chosen)}\n" if chosen else ""
            text += f"\tset {name}{version} {{\n\t\ttype ipv{version}_addr\n"
            text += (f"\t\t{flags.rstrip(';')}\n" if flags else "") + inner + "\t}\n"
    return text


def _chain(name: str, *lines: str) -> str:
    return f"\tchain {name} {{\n" + "".join(f"\t\t{line}\n" for line in lines if line) + "\t}\n"


def _both(rule: str) -> tuple[str, str]:
    """Return a rule for IPv4 and IPv6; `IP` and `V` in it stand for the family's words."""
    return rule.replace("IP", "ip").replace("V", "4"), rule.replace("IP", "ip6").replace("V", "6")


def _served(layout: Layout) -> str:
    return f"meta skuid != {elements(map(str, layout.users))} return" if layout.users else ""


def _deliver(name: str, layout: Layout, tcp: str, udp: str) -> str:
    lines = []
    for version, address, ports in ((4, "127.0.0.1", layout.ports), (6, "[::1]", layout.ports6)):
        if ports is not None:
            word = "ip" if version == 4 else "ip6"
            for protocol, port in (("tcp", getattr(ports, tcp)), ("udp", getattr(ports, udp))):
                lines.append(f"meta nfproto ipv{version} meta l4proto {protocol} tproxy {word} to {address}:{port} accept")
    # An echo request comes here as a datagram does: delivered, so that connection tracking knows what its reply belongs to.
    echoes = [f"{echo} goto echoes" for echo in _ECHO_REQUESTS] if name == "deliver" and layout.holds else []
    return _chain(name, *echoes, *lines, "drop")


def table(layout: Layout, contents: dict[str, Sequence[str]]) -> str:
    """Return the file that puts the whole table in place, at once, of whatever was there before.

    `contents`: addresses of the sets `resources`, `fast`, `sources`, `resolvers`.
    """
    syn_of_resolver = _both(f"tcp dport 53 meta mark != {OWN_QUERY:#x} IP daddr @resolversV return")
    begin = _chain(
        "begin",
        *syn_of_resolver,
        *_both("IP daddr @fastV return"),
        f"ip daddr @resources4 fib daddr type != {_NOT_ELSEWHERE} goto held",
        f"ip6 daddr @resources6 fib daddr type != {_NOT_ELSEWHERE} goto held" if layout.ports6 is not None else "",
    )
    take = _chain(
        "take",
        f"fib daddr type {_NOT_ELSEWHERE} return",
        f"{_SYN} meta mark {QUEUE.connect:#x} ct mark set {DELIVER:#x} meta mark set {DELIVER:#x} return",
        "" if layout.holds else f"{_SYN} ct mark set {DELIVER:#x} meta mark set {DELIVER:#x} return",
        *_both(f"{_SYN} IP daddr @fastV ct mark set {DELIVER:#x} meta mark set {DELIVER:#x} return"),
        f"{_SYN} drop",
        "ct state established,related return",  # began before klinket did
        "meta l4proto tcp return",
        f"meta l4proto udp ct mark set {DELIVER:#x} meta mark set {DELIVER:#x} return",
        *(f"{echo} ct mark set {DELIVER:#x} meta mark set {DELIVER:#x} return" for echo in _ECHO_REQUESTS if layout.holds),
        f"{_NEIGHBOURS} return",
        "reject with icmpx type admin-prohibited",
    )
    take_dns = _chain(
        "take_dns",
        f"meta l4proto udp meta mark set {DELIVER_DNS:#x} return",
        f"{_SYN} ct mark set {DELIVER_DNS:#x} meta mark set {DELIVER_DNS:#x}",
    )
    steer = _chain(
        "steer",
        f"meta mark {QUEUE.connect:#x} goto take",
        f"{_QUERY} ip daddr @resolvers4 goto take_dns",
        f"{_QUERY} ip6 daddr @resolvers6 goto take_dns" if layout.ports6 is not None else "",
        "ip daddr @resources4 goto take",
        "ip6 daddr @resources6 goto take" if layout.ports6 is not None else "ip6 daddr @resources6 reject",
        f"ip daddr {elements(STUBS)} reject",
    )
    queues = [
        _chain(chain, f"queue to {number}" if layout.native_queue else "", "drop")
        for chain, number in QUEUES.items()
        if chain == "held" or layout.holds
    ]
    refuse = (
        f"meta mark {QUEUE.refuse:#x} reject with tcp reset",
        f"meta mark {QUEUE.unreachable:#x} reject with icmpx type host-unreachable",
        # Over IPv6 connect() says EACCES then; over IPv4 it would say the same as of a host that is not reached.
        f"meta nfproto ipv6 meta mark {QUEUE.forbidden:#x} reject with icmpv6 type admin-prohibited",
        f"meta mark {QUEUE.forbidden:#x} reject with tcp reset",
    )
    hold = f"{_SYN} jump begin" if layout.holds else ""
    text = (
        remove()
        + f"table {TABLE} {{\n"
        + _sets(contents)
        + _chain("closed")
        + "".join(queues)
        + begin
        + take
        + take_dns
        + steer
        + _deliver("deliver", layout, "tcp", "udp")
        + _deliver("deliver_dns", layout, "dns_tcp", "dns_udp")
        + _chain(
            "output_hold",
            "type filter hook output priority -153; policy accept;",
            f"meta mark {OWN:#x} return",
            _served(layout),
            hold,
        )
        + _chain("output_refuse", "type filter hook output priority -152; policy accept;", *refuse)
        + _chain(
            "output_steer",
            "type route hook output priority -151; policy accept;",
            f"meta mark {OWN:#x} return",
            "ct direction reply return",
            f"ct mark {DELIVER:#x} meta mark set {DELIVER:#x} return",
            f"ct mark {DELIVER_DNS:#x} meta mark set {DELIVER_DNS:#x} return",
            _served(layout),
            "jump steer",
        )
    )
    if layout.gateway:
        text += (
            _chain(
                "prerouting_hold",
                "type filter hook prerouting priority -153; policy accept;",
                *_both(f"iif != lo IP saddr @sourcesV {hold}" if hold else ""),
            )
            + _chain("prerouting_refuse", "type filter hook prerouting priority -152; policy accept;", *refuse)
            + _chain(
                "forwarded",
                "jump steer",
                f"meta mark {DELIVER:#x} goto deliver",
                f"meta mark {DELIVER_DNS:#x} goto deliver_dns",
            )
        )
    text += _chain(
        "prerouting_steer",
        "type filter hook prerouting priority -151; policy accept;",
        f"iif lo meta mark {DELIVER:#x} goto deliver",
        f"iif lo meta mark {DELIVER_DNS:#x} goto deliver_dns",
        "iif lo return",
        *(
            (
                "ct direction reply return",
                f"ct mark {DELIVER:#x} meta mark set {DELIVER:#x} goto deliver",
                f"ct mark {DELIVER_DNS:#x} meta mark set {DELIVER_DNS:#x} goto deliver_dns",
                *_both("IP saddr @sourcesV jump forwarded"),
            )
            if layout.gateway
            else ()
        ),
        # The stub and what stands for names are this machine's own: nobody else may ask or dial them.
        f"ip daddr {elements((*STUBS, str(synthetic.RANGE)))} drop",
        f"ip6 daddr {synthetic.PREFIX6} drop",
    )
    return text + "}\n"


def closed(users: Sequence[int], *, gateway: bool) -> str:
    """Return the file for a klinket that has died: DNS goes where it went before, resource addresses are rejected.

    The sets stay as they are, so the file needs to know no address.
    """
    served = f"meta skuid != {elements(map(str, users))} return" if users else ""
    rules = [
        ("closed", f"fib daddr type {_NOT_ELSEWHERE} return"),
        ("closed", "ct direction reply return"),
        ("closed", f"ct state established,related ct mark != {DELIVER:#x} return"),
        ("closed", f"{_NEIGHBOURS} return"),
        ("closed", "meta l4proto tcp reject with tcp reset"),
        ("closed", "reject with icmpx type admin-prohibited"),
        ("output_hold", served),
        *(("output_hold", rule) for rule in _both("IP daddr @resourcesV jump closed")),
    ]
    if gateway:
        rules += [("prerouting_hold", rule) for rule in _both("IP saddr @sourcesV IP daddr @resourcesV jump closed")]
    return f"flush table {TABLE}\n" + "".join(f"add rule {TABLE} {chain} {rule}\n" for chain, rule in rules if rule)
