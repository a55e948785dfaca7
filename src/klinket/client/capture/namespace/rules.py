"""The addresses, routes and rules inside the namespace, as text for `ip -batch` and iptables-restore."""

from __future__ import annotations

from klinket.client.capture.connects import QueueRules

#: The command's own address: outside the synthetic range, so that no name is ever given it.
OWN_ADDRESS = "100.127.255.1"
#: Where the DNS stub answers.
DNS_ADDRESS = "100.95.0.251"
DNS_PORT = 53
#: The listener for captured connections and datagrams.
CAPTURE_ADDRESS = "127.0.0.1"
CAPTURE_PORT = 15_001
#: The queue that holds SYNs, and marks a verdict sets: let the SYN through to the listener, refuse it, "host unreachable".
_RULES = QueueRules()
QUEUE = _RULES.number
MARK_CONNECT = _RULES.connect
MARK_REFUSE = _RULES.refuse
MARK_UNREACHABLE = _RULES.unreachable

#: A captured connect that nobody answers fails after 1 + 2 + 4 + 8 s: longer than a connector dials.
SYSCTLS = {"net/ipv4/tcp_syn_retries": "3", "net/ipv4/tcp_syn_linear_timeouts": "0"}


def links_and_routes() -> str:
    """Return the batch for `ip -batch -`: every address becomes local, from the command's own address."""
    return (
        "link set lo up\n"
        f"addr add {OWN_ADDRESS}/32 dev lo\n"
        f"route add local default dev lo src {OWN_ADDRESS}\n"
    )  # fmt: skip


def packet_rules() -> str:
    """Return the tables for `iptables-restore`. No rule has a bypass: when klinket is gone, packets are dropped."""
    own = "".join(
        f"-A {chain} -d {address} -j RETURN\n"
        for chain in ("OUTPUT", "PREROUTING")
        for address in ("127.0.0.0/8", OWN_ADDRESS, DNS_ADDRESS)
    )
    to_listener = f"-j TPROXY --on-ip {CAPTURE_ADDRESS} --on-port {CAPTURE_PORT}"
    return (
        "*mangle\n:PREROUTING ACCEPT\n:OUTPUT ACCEPT\n"
        + own
        + f"-A OUTPUT -p tcp --syn -j NFQUEUE --queue-num {QUEUE}\n"
        + f"-A PREROUTING -p tcp --syn -m mark --mark {MARK_CONNECT} {to_listener}\n"
        + f"-A PREROUTING -p udp {to_listener}\n"
        + "COMMIT\n*filter\n:OUTPUT ACCEPT\n"
        + f"-A OUTPUT -p tcp -m mark --mark {MARK_REFUSE} -j REJECT --reject-with tcp-reset\n"
        + f"-A OUTPUT -p tcp -m mark --mark {MARK_UNREACHABLE} -j REJECT --reject-with icmp-host-unreachable\n"
        # Every address is local here: without this rule the kernel itself would answer a ping.
        + "-A OUTPUT -p icmp --icmp-type echo-request ! -d 127.0.0.0/8 -j REJECT --reject-with icmp-admin-prohibited\n"
        + "COMMIT\n"
    )
