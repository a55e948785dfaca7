"""The addresses, routes and rules inside the namespace, as text for `ip -batch` and iptables-restore."""

from __future__ import annotations

from klinket.client.capture.connects import QueueRules
from klinket.client.capture.synthetic import twin

#: The command's own addresses: outside the synthetic ranges, so that no name is ever given them.
OWN_ADDRESS = "100.127.255.1"
OWN_ADDRESS6 = twin(OWN_ADDRESS)
#: Where the DNS stub answers.
DNS_ADDRESS = "100.95.0.251"
DNS_PORT = 53
#: The listeners for captured connections and datagrams.
CAPTURE_ADDRESS, CAPTURE_ADDRESS6 = "127.0.0.1", "::1"
CAPTURE_PORT = 15_001
#: The queue that holds SYNs, and marks a verdict sets: let the SYN through to the listener, refuse it, "host unreachable",
#: "prohibited" (over IPv4 a refusal as well: connect() could not tell it from "host unreachable").
_RULES = QueueRules()
QUEUE = _RULES.number
MARK_CONNECT = _RULES.connect
MARK_REFUSE = _RULES.refuse
MARK_UNREACHABLE = _RULES.unreachable
MARK_FORBIDDEN = _RULES.forbidden
#: The queue of echo requests.
ECHO_QUEUE = 8

#: A captured connect that nobody answers fails after 1 + 2 + 4 + 8 s: longer than a connector dials. The command's group may have
#: ping sockets: it has no capability for others.
ACCEPT_LOCAL = "net/ipv4/conf/lo/accept_local"
SYSCTLS = {
    "net/ipv4/tcp_syn_retries": "3", "net/ipv4/tcp_syn_linear_timeouts": "0", "net/ipv4/ping_group_range": "0 0",
    ACCEPT_LOCAL: "1",
}  # fmt: skip
#: Before there is IPv6.
SYSCTLS6 = {"net/ipv6/conf/all/disable_ipv6": "0", "net/ipv6/conf/lo/disable_ipv6": "0"}


def links_and_routes() -> str:
    """Return the batch for `ip -batch -`: every address becomes local, from the command's own address."""
    return (
        "link set lo up\n"
        f"addr add {OWN_ADDRESS}/32 dev lo\n"
        f"route add local default dev lo src {OWN_ADDRESS}\n"
    )  # fmt: skip


def links_and_routes6() -> str:
    """Return the same of IPv6, for `ip -6 -batch -`."""
    return f"addr add {OWN_ADDRESS6}/128 dev lo nodad\nroute add local default dev lo src {OWN_ADDRESS6}\n"


def packet_rules() -> str:
    """Return the tables for `iptables-restore`. No rule has a bypass: when klinket is gone, packets are dropped."""
    return _tables(
        own=("127.0.0.0/8", OWN_ADDRESS, DNS_ADDRESS),
        capture=CAPTURE_ADDRESS,
        echo_request="-p icmp --icmp-type echo-request",
        unreachable="icmp-host-unreachable",
        forbidden="tcp-reset",
        # Every address is local here: without this rule the kernel itself would answer a ping of those left out above.
        echo_refused="! -d 127.0.0.0/8 -j REJECT --reject-with icmp-admin-prohibited",
    )


def packet_rules6() -> str:
    """Return the same of IPv6, for `ip6tables-restore`."""
    return _tables(
        own=("::1", OWN_ADDRESS6),
        capture=CAPTURE_ADDRESS6,
        echo_request="-p icmpv6 --icmpv6-type echo-request",
        unreachable="icmp6-addr-unreachable",
        forbidden="icmp6-adm-prohibited",
        echo_refused="! -d ::1 -j REJECT --reject-with icmp6-adm-prohibited",
    )


def _tables(own: tuple[str, ...], capture: str, echo_request: str, unreachable: str, forbidden: str, echo_refused: str) -> str:
    returned = "".join(f"-A {chain} -d {address} -j RETURN\n" for chain in ("OUTPUT", "PREROUTING") for address in own)
    to_listener = f"-j TPROXY --on-ip {capture} --on-port {CAPTURE_PORT}"
    return (
        "*mangle\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\n"
        + returned
        + f"-A OUTPUT -p tcp --syn -j NFQUEUE --queue-num {QUEUE}\n"
        + f"-A OUTPUT {echo_request} -j NFQUEUE --queue-num {ECHO_QUEUE}\n"
        + f"-A PREROUTING -p tcp --syn -m mark --mark {MARK_CONNECT} {to_listener}\n"
        + f"-A PREROUTING -p udp {to_listener}\n"
        + "COMMIT\n*filter\n:OUTPUT ACCEPT\n"
        + f"-A OUTPUT -p tcp -m mark --mark {MARK_REFUSE} -j REJECT --reject-with tcp-reset\n"
        + f"-A OUTPUT -p tcp -m mark --mark {MARK_UNREACHABLE} -j REJECT --reject-with {unreachable}\n"
        + f"-A OUTPUT -p tcp -m mark --mark {MARK_FORBIDDEN} -j REJECT --reject-with {forbidden}\n"
        + f"-A OUTPUT {echo_request} {echo_refused}\n"
        + "COMMIT\n"
    )
