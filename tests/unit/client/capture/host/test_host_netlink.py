"""Netlink messages for sets, routes and one rule: the kernel makes of them what `nft` and `ip` list."""

from __future__ import annotations

import ipaddress
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klinket.client.capture.host import netlink

ROOT = Path(__file__).parents[5]


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and content of each message; fails where they do not fill the data."""
    while data:
        length, kind, *_ = struct.unpack_from("=IHHII", data)
        assert length % 4 == 0
        yield kind, data[16:length]
        data = data[length:]


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        length, kind = struct.unpack_from("=HH", data)
        assert 4 <= length <= len(data)
        yield kind & 0x3FFF, data[4:length]
        data = data[length + -length % 4 :]


def keys(elements: bytes) -> list[tuple[bytes, bool]]:
    found = []
    for _, element in attributes(elements):
        parts = dict(attributes(element))
        [(_, value)] = attributes(parts[1])
        found.append((value, parts.get(3) == struct.pack(">I", 1)))
    return found


@settings(deadline=None)
@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_an_address_is_the_same_as_the_network_of_it_alone(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    alone, network = (
        netlink.elements_request("klinket", [("resources", [], [text])])
        for text in (str(address), str(ipaddress.ip_network(address)))
    )
    assert alone == network


@settings(deadline=None)
@given(st.sets(st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 32)), max_size=20))
def test_each_network_is_its_first_address_and_the_end_behind_its_last(found: set[tuple[int, int]]) -> None:
    wanted = {str(ipaddress.IPv4Network((first >> (32 - length) << (32 - length), length))) for first, length in found}
    data = netlink.elements_request("klinket", [("resources4", [], sorted(wanted))])
    expected = set()
    for text in wanted:
        network = ipaddress.IPv4Network(text)
        expected.add((network.network_address.packed, False))
        if int(network.broadcast_address) < 2**32 - 1:
            expected.add(((network.broadcast_address + 1).packed, True))
    sent = []
    for kind, content in messages(data):
        if kind == 10 << 8 | 12:
            parts = dict(attributes(content[4:]))
            assert (parts[1], parts[2]) == (b"klinket\0", b"resources4\0")
            sent += keys(parts[3])
    assert set(sent) == expected
    assert bool(data) == bool(wanted)


def test_more_elements_than_one_message_holds_are_several_of_one_batch() -> None:
    data = netlink.elements_request("t", [("s", [], [f"10.{n >> 8}.{n & 255}.7/32" for n in range(10_000)])])
    kinds = [kind for kind, _ in messages(data)]
    assert (kinds[0], kinds[-1]) == (0x10, 0x11)
    assert len(kinds) > 3
    assert sum(len(keys(dict(attributes(content[4:]))[3])) for kind, content in messages(data) if kind == 10 << 8 | 12) == 20_000


KERNEL = """
import json, random, subprocess, sys
from klinket.client.capture.host import netlink
dice = random.Random(int(sys.argv[1]))
run = lambda *c, **k: subprocess.run(c, check=True, capture_output=True, text=True, **k).stdout
run("ip", "link", "set", "lo", "up")
run("nft", "-f", "-", input='''table inet t {
 set a4 { type ipv4_addr; flags interval;
 }
 set a6 { type ipv6_addr; flags interval;
 }
 set b4 { type ipv4_addr;
 }
 chain held { drop;
 }
}''')
def listed(name):
    for entry in json.loads(run("nft", "-j", "list", "set", "inet", "t", name))["nftables"]:
        if "set" in entry:
            return sorted(
                f"{e['prefix']['addr']}/{e['prefix']['len']}" if isinstance(e, dict) else f"{e}/{128 if ':' in e else 32}"
                for e in entry["set"].get("elem", ())
            )
pools = {
    "a4": [f"10.{n}.{m * 64}.0/{26 if m else 25}" for n in range(20) for m in (0, 2, 3)] + ["192.0.2.1/32", "255.255.255.255/32"],
    "a6": [f"2001:db8:{n:x}::/48" for n in range(1, 20)] + ["fd00::1/128", "ffff::/16"],
}
has = {name: set() for name in pools}
for _ in range(12):
    changes = []
    for name, pool in pools.items():
        want = set(dice.sample(pool, dice.randrange(len(pool))))
        changes.append((name, list(has[name] - want), list(want - has[name])))
        has[name] = want
    netlink.change_rules(netlink.elements_request("t", changes)) if any(r or a for _, r, a in changes) else None
    for name in pools:
        assert listed(name) == sorted(has[name]), (name, listed(name), sorted(has[name]))
netlink.change_rules(netlink.elements_request("t", [("b4", [], ["10.0.0.1", "10.0.0.2"])], intervals=False))
netlink.change_rules(netlink.elements_request("t", [("b4", ["10.0.0.1"], [])], intervals=False))
assert listed("b4") == ["10.0.0.2/32"]
try:
    netlink.change_rules(netlink.elements_request("t", [("b4", ["10.9.9.9"], ["10.0.0.3"])], intervals=False))
except OSError as error:
    assert listed("b4") == ["10.0.0.2/32"], "a batch is taken as a whole or not at all"
else:
    raise AssertionError("an element that is not there was taken away")
before = netlink.generation()
assert netlink.generation() == before
netlink.change_rules(netlink.queue_request("t", "held", 77))
assert netlink.generation() != before
assert "77" in run("nft", "list", "chain", "inet", "t", "held")
netlink.change_routes(netlink.routes_request(5, 1, "127.0.0.1", [], ["10.1.0.0/16", "10.2.0.1/32"]))
netlink.change_routes(netlink.routes_request(5, 1, "127.0.0.1", ["10.1.0.0/16"], ["10.2.0.1/32", "10.3.0.0/24"]))
routes = sorted(line.split()[0] for line in run("ip", "route", "show", "table", "5").splitlines())
assert routes == ["10.2.0.1", "10.3.0.0/24"], routes
print("right")
"""


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.root
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root for a network namespace")
def test_the_kernel_has_what_was_asked_for(seed: int) -> None:
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", KERNEL, str(seed)],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )  # fmt: skip
    assert done.stdout.strip().endswith("right"), done.stderr[-2000:]


def test_a_refusal_is_raised_with_its_number() -> None:
    acknowledged = struct.pack("=IHHIIi", 20, 2, 0, 0, 0, 0)
    netlink._raise_refusal(acknowledged)
    with pytest.raises(OSError) as caught:
        netlink._raise_refusal(acknowledged + struct.pack("=IHHIIi", 20, 2, 0, 0, 0, -17))
    assert caught.value.errno == 17


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_answer_is_read_to_its_end(answer: bytes) -> None:
    try:
        netlink._raise_refusal(answer)
    except OSError:
        pass
