"""The DNS stub of a namespace on real sockets: granted names are its own, and no shortage ends it."""

from __future__ import annotations

import asyncio
import resource
import socket
import sys
from collections.abc import AsyncIterator

import dns.message
import dns.query
import dns.rdatatype
import pytest

from klinket.client.capture.synthetic import MAX_NAMES, RANGE, SyntheticAddresses
from tests.unit.client.conftest import FakeClient

if sys.platform != "linux":
    pytest.skip("namespaces are there on Linux only", allow_module_level=True)

from klinket.client.capture.namespace import rules
from klinket.client.capture.resolver import NameStub


@pytest.fixture
async def stub(client: FakeClient) -> AsyncIterator[int]:
    """A stub without resolvers of others; its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = int(listener.getsockname()[1])
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", port))
    made = NameStub(sock, listener, client, SyntheticAddresses(), [])
    made.start()
    yield port
    await made.aclose()


async def ask_over_tcp(port: int, name: str = "echo.internal") -> str:
    query = dns.message.make_query(name, dns.rdatatype.A)
    answer = await asyncio.to_thread(dns.query.tcp, query, "127.0.0.1", timeout=10, port=port)
    return str(answer.answer[0][0])


async def test_a_granted_name_has_one_address_over_udp_and_tcp(stub: int) -> None:
    query = dns.message.make_query("echo.internal", dns.rdatatype.A)
    over_udp = await asyncio.to_thread(dns.query.udp, query, "127.0.0.1", timeout=10, port=stub)
    assert str(over_udp.answer[0][0]) == await ask_over_tcp(stub) == "100.96.0.1"


async def test_a_shortage_of_descriptors_does_not_end_names_over_tcp(stub: int, caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    waiting = socket.socket()
    waiting.setblocking(False)
    spare = []
    try:
        lowest = socket.socket()
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest.fileno() + 1, hard))
        spare.append(lowest)
        waiting.connect_ex(("127.0.0.1", stub))
        async with asyncio.timeout(10):
            while "accept" not in caplog.text:
                await asyncio.sleep(0.02)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        waiting.close()
        for sock in spare:
            sock.close()
    assert await ask_over_tcp(stub) == "100.96.0.1"


def test_every_address_of_the_range_but_its_first_and_last_is_given_to_a_name() -> None:
    assert RANGE.num_addresses - 2 == MAX_NAMES
    names = SyntheticAddresses()
    assert names.address_of("first.internal") == str(RANGE[1])
    assert str(RANGE[MAX_NAMES]) == "100.111.255.254"
    for own in (rules.OWN_ADDRESS, rules.DNS_ADDRESS):
        assert own not in names, "klinket's own addresses are none that a name could be given"


def test_an_address_keeps_its_meaning_and_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klinket.client.capture.synthetic.MAX_NAMES", 2)
    names = SyntheticAddresses()
    one, two = names.address_of("one.internal"), names.address_of("two.internal")
    assert one != two
    assert names.address_of("three.internal") is None
    assert names.address_of("one.internal") == one
    assert names.name_of(str(two)) == "two.internal"
    assert not names.knows("three.internal")
