"""Resource addresses: an IP, a CIDR range, a name, or a name with wildcards (facts §4).

`*` stands for zero or more characters, `?` for exactly one; `*.a.b` does not match `a.b`. Names compare without case.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache

from klinket.domain.errors import InvalidInput

#: Characters of a name, without a final dot (RFC 1035 §2.3.4).
MAX_NAME_CHARS = 253
#: Characters of one label.
MAX_LABEL_CHARS = 63
#: Texts whose meaning is remembered: every flow asks for the same few several times.
MAX_REMEMBERED = 4096
INVALID_ADDRESS = "Invalid IP or FQDN"

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?", re.ASCII)
_WILDCARD_LABEL = re.compile(r"[a-z0-9_*?-]+", re.ASCII)
# Every label a number, also "0x7f.1": never a name, since resolvers read such texts as addresses.
_LOOKS_NUMERIC = re.compile(
    r"[0-9.]+|[0-9a-f:.]*:[0-9a-f:.]*|(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+))*\.?", re.ASCII | re.IGNORECASE
)

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class AddressKind(Enum):
    """What an address text stands for."""

    IP = "ip"
    CIDR = "cidr"
    NAME = "name"
    WILDCARD = "wildcard"


@lru_cache(MAX_REMEMBERED)
def parse_ip(text: str) -> IPAddress | None:
    """Return the address, or None when `text` is none. IPv4 inside IPv6 is taken out; scopes (%eth0) are refused."""
    if "%" in text:
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _ascii_name(text: str, label_rule: re.Pattern[str], error: InvalidInput) -> str:
    name = text.removesuffix(".")
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError:
            raise error from None
    name = name.lower()
    if not name or len(name) > MAX_NAME_CHARS or _LOOKS_NUMERIC.fullmatch(name):
        raise error
    for label in name.split("."):
        if len(label) > MAX_LABEL_CHARS or not label_rule.fullmatch(label):
            raise error
    return name


@lru_cache(MAX_REMEMBERED)
def canonical_host(text: str) -> str:
    """Return the canonical form of a host a program asked for: a lower-case ASCII name, or a normalised IP text.

    Both ends of a link use this one function, so they mean the same host. Raises InvalidInput("host").
    """
    error = InvalidInput("host", f"not a host name or address: {text[:80]!r}")
    address = parse_ip(text.removeprefix("[").removesuffix("]"))
    if address is not None:
        return str(address)
    if _LOOKS_NUMERIC.fullmatch(text):
        raise error  # 1.2.3 or 300.1.1.1: never a name, programs would read it as an address
    return _ascii_name(text, _LABEL, error)


def parse_alias(text: str) -> str:
    """Return the alias in canonical form: a plain name with at least one dot. Raises InvalidInput("alias")."""
    error = InvalidInput("alias", "Alias must be a valid DNS name with at least one dot", hint="for example db.acme.internal")
    stripped = text.strip()
    if _LOOKS_NUMERIC.fullmatch(stripped) or parse_ip(stripped) is not None:
        raise error
    name = _ascii_name(stripped, _LABEL, error)
    if "." not in name:
        raise error
    return name


@dataclass(frozen=True, slots=True)
class ResourceAddress:
    """An address of a resource. `text` is as it was given (it is echoed), `canonical` is what comparisons use."""

    text: str
    kind: AddressKind
    canonical: str
    network: IPNetwork | None = field(default=None, repr=False)
    pattern: re.Pattern[str] | None = field(default=None, repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> ResourceAddress:
        """Return the address `text` stands for; raises InvalidInput("address") with "Invalid IP or FQDN"."""
        text = text.strip()
        error = InvalidInput("address", INVALID_ADDRESS, hint="give an IP, a CIDR range without host bits, or a name")
        if "/" in text:
            if "%" in text:
                raise error  # a scope, as in parse_ip
            try:
                network = ipaddress.ip_network(text, strict=False)
            except ValueError:
                raise error from None
            if str(network.network_address) != str(ipaddress.ip_interface(text).ip):
                hint = f"{text[:80]} has host bits set: the range is {network}, the host alone {ipaddress.ip_interface(text).ip}"
                raise InvalidInput("address", INVALID_ADDRESS, hint=hint)
            network = _unmapped(network)
            if network.prefixlen == network.max_prefixlen:
                return cls(text, AddressKind.IP, str(network.network_address), network)
            return cls(text, AddressKind.CIDR, str(network), network)
        address = parse_ip(text)
        if address is not None:
            return cls(text, AddressKind.IP, str(address), ipaddress.ip_network(address))
        if _LOOKS_NUMERIC.fullmatch(text):
            raise error
        if "*" in text or "?" in text:
            if not text.isascii():
                raise error
            name = _ascii_name(text, _WILDCARD_LABEL, error)
            return cls(text, AddressKind.WILDCARD, name, None, _compile(name))
        return cls(text, AddressKind.NAME, _ascii_name(text, _LABEL, error))

    @property
    def api_type(self) -> str:
        """Return the API's type of this address: "IP" or "DNS"."""
        return "IP" if self.kind in (AddressKind.IP, AddressKind.CIDR) else "DNS"

    def matches(self, host: str) -> bool:
        """Return whether this address serves a canonical host (see canonical_host)."""
        if host == self.canonical:
            return True
        if self.kind is AddressKind.NAME:
            return False
        if self.pattern is not None:
            return parse_ip(host) is None and self.pattern.fullmatch(host) is not None
        address = parse_ip(host)
        return address is not None and self.network is not None and address in self.network

    @property
    def specificity(self) -> tuple[int, int]:
        """Return a key that orders matching addresses, the one to use first (facts §4).

        Single IP before CIDR, smaller ranges before larger; plain names before wildcards, more literal characters first.
        """
        if self.kind is AddressKind.CIDR:
            assert self.network is not None
            return (1, -self.network.prefixlen)
        if self.kind is AddressKind.WILDCARD:
            return (1, -sum(character not in "*?" for character in self.canonical))
        return (0, 0)


def _unmapped(network: IPNetwork) -> IPNetwork:
    # IPv4 inside IPv6 is taken out, as parse_ip does with the hosts this network is compared with.
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped:
        return ipaddress.IPv4Network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return network


def _compile(name: str) -> re.Pattern[str]:
    # The first place where a part fits is as good as any later one, so the groups are atomic: no input makes it backtrack.
    first, *rest = (
        "".join("." if character == "?" else re.escape(character) for character in part) for part in re.split(r"\*+", name)
    )
    if not rest:
        return re.compile(first, re.ASCII)
    *middle, last = rest
    return re.compile(first + "".join(f"(?>.*?{part})" for part in middle) + ".*" + last, re.ASCII)
