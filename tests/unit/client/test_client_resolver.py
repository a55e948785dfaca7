"""The DNS stub of a namespace on real sockets: granted names are its own, all others are asked of real resolvers."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klinket.client.capture import resolver
from klinket.client.capture.resolver import AnswerRules, NameStub, OwnAnswers
from klinket.client.capture.synthetic import SyntheticAddresses
from tests.unit.client.conftest import FakeClient

#: The machine's own resolver listens here; port 53 needs root.
OUTER = "127.77.6.1"
#: Nothing listens there.
DEAD = "127.77.6.2"


@dataclass
class Stub:
    """A stub that serves, and where."""

    names: SyntheticAddresses
    udp: tuple[str, int]
    tcp: tuple[str, int]
    made: NameStub

    async def ask(self, message: dns.message.Message) -> dns.message.Message:
        """Ask over UDP."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, self.udp)
            await loop.sock_sendall(sock, message.to_wire())
            return dns.message.from_wire(await asyncio.wait_for(loop.sock_recv(sock, 65_535), 10))

    async def ask_over_tcp(self, *messages: dns.message.Message) -> list[dns.message.Message]:
        """Ask over one TCP connection."""
        reader, writer = await asyncio.open_connection(*self.tcp)
        answers = []
        for message in messages:
            wire = message.to_wire()
            writer.write(len(wire).to_bytes(2) + wire)
            length = int.from_bytes(await asyncio.wait_for(reader.readexactly(2), 10))
            answers.append(dns.message.from_wire(await asyncio.wait_for(reader.readexactly(length), 10)))
        writer.close()
        return answers


async def serve(client: FakeClient, resolvers: list[str], own: dict[str, str] | None = None) -> Stub:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    listener = socket.create_server(("127.0.0.1", 0))
    names = SyntheticAddresses()
    stub = NameStub(sock, listener, client, names, resolvers, AnswerRules(own=own or {}))
    stub.start()
    return Stub(names, sock.getsockname(), listener.getsockname(), stub)


@pytest.fixture
async def stub(client: FakeClient) -> AsyncIterator[Stub]:
    made = await serve(client, [])
    yield made
    await made.made.aclose()


def addresses(answer: dns.message.Message) -> list[str]:
    return [record.address for rrset in answer.answer for record in rrset if rrset.rdtype == dns.rdatatype.A]


@pytest.mark.parametrize("name", ["echo.internal", "ECHO.Internal"])
async def test_a_granted_name_has_one_synthetic_address(stub: Stub, name: str) -> None:
    first = await stub.ask(dns.message.make_query(name, "A"))
    again = await stub.ask(dns.message.make_query("echo.internal", "A"))
    assert addresses(first) == addresses(again) == ["100.96.0.1"]
    assert first.answer[0].ttl == resolver.TTL_SECONDS
    assert stub.names.name_of("100.96.0.1") == "echo.internal"


async def test_wildcards_give_each_name_its_own_address(stub: Stub, client: FakeClient) -> None:
    client.grant("*.corp.internal")
    found = [addresses(await stub.ask(dns.message.make_query(f"{host}.corp.internal", "A")))[0] for host in ("a", "b", "a")]
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize("kind", ["AAAA", "HTTPS", "SVCB", "MX", "TXT"])
async def test_a_granted_name_has_nothing_but_an_ipv4_address(stub: Stub, kind: str) -> None:
    answer = await stub.ask(dns.message.make_query("echo.internal", kind))
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])


@pytest.mark.parametrize("kind", ["AAAA", "HTTPS", "SVCB"])
async def test_nobody_is_told_an_ipv6_address(stub: Stub, kind: str) -> None:
    answer = await stub.ask(dns.message.make_query("example.com", kind))
    assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])


async def test_a_synthetic_address_has_its_name(stub: Stub) -> None:
    await stub.ask(dns.message.make_query("echo.internal", "A"))
    known = await stub.ask(dns.message.make_query("1.0.96.100.in-addr.arpa", "PTR"))
    assert known.answer[0][0].target.to_text() == "echo.internal."
    unknown = await stub.ask(dns.message.make_query("9.0.96.100.in-addr.arpa", "PTR"))
    assert unknown.rcode() == dns.rcode.NXDOMAIN


async def test_without_a_resolver_other_names_are_a_server_failure(stub: Stub) -> None:
    answer = await stub.ask(dns.message.make_query("example.com", "A"))
    assert answer.rcode() == dns.rcode.SERVFAIL


async def test_when_all_addresses_are_given_a_name_is_a_server_failure(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    from klinket.client.capture import synthetic

    monkeypatch.setattr(synthetic, "MAX_NAMES", 0)
    assert (await stub.ask(dns.message.make_query("echo.internal", "A"))).rcode() == dns.rcode.SERVFAIL


async def test_several_queries_on_one_connection_are_answered(stub: Stub) -> None:
    answers = await stub.ask_over_tcp(*(dns.message.make_query("echo.internal", kind) for kind in ("A", "AAAA", "A")))
    assert [addresses(answer) for answer in answers] == [["100.96.0.1"], [], ["100.96.0.1"]]


async def test_garbage_over_tcp_ends_the_connection_only(stub: Stub) -> None:
    reader, writer = await asyncio.open_connection(*stub.tcp)
    writer.write(b"\0\3abc")
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    assert addresses(await stub.ask(dns.message.make_query("echo.internal", "A"))) == ["100.96.0.1"]


async def test_garbage_over_udp_is_not_answered(stub: Stub) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for garbage in (b"", b"x", bytes(12), os.urandom(40)):
            sock.sendto(garbage, stub.udp)
    assert addresses(await stub.ask(dns.message.make_query("echo.internal", "A"))) == ["100.96.0.1"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=80))
def test_any_message_has_an_answer_of_its_own_none_or_is_asked_of_others(message: bytes) -> None:
    client = FakeClient()
    client.grant("*")
    answer = OwnAnswers(client, SyntheticAddresses()).answer(message)
    if answer:
        assert answer[:2] == message[:2]
        assert answer[2] & 0x80


# ---- the machine's resolvers


class Outer(threading.Thread):
    """A resolver on OUTER:53 that knows `public.example`; over UDP it cuts the answer for `long.example` short."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((OUTER, 53))
        self.tcp = socket.create_server((OUTER, 53))
        self.asked: list[str] = []

    def run(self) -> None:
        threading.Thread(target=self._serve_tcp, daemon=True).start()
        while True:
            try:
                message, source = self.udp.recvfrom(65_535)
            except OSError:
                return
            if not message:
                return
            answer = self._answer(message, udp=True)
            self.udp.sendto(b"\xff\xff" + answer[2:], source)  # somebody else's answer comes first: it is not taken
            self.udp.sendto(answer, source)

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, _ = self.tcp.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                while prefix := stream.read(2):
                    answer = self._answer(stream.read(int.from_bytes(prefix)), udp=False)
                    stream.write(len(answer).to_bytes(2) + answer)
                    stream.flush()

    def _answer(self, message: bytes, *, udp: bool) -> bytes:
        query = dns.message.from_wire(message)
        name = query.question[0].name.to_text()
        self.asked.append(name)
        answer = dns.message.make_response(query)
        if name == "long.example." and udp:
            answer.flags |= dns.flags.TC
        elif name in ("public.example.", "long.example."):
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "192.0.2.7"))
        else:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer.to_wire()

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", (OUTER, 53))
        self.tcp.shutdown(socket.SHUT_RDWR)  # ends the accept that waits
        self.tcp.close()
        self.join(5)
        self.udp.close()


@pytest.fixture(scope="module")
def running_outer() -> Iterator[Outer]:
    if os.geteuid() != 0:
        pytest.skip("port 53 needs root")
    made = Outer()
    made.start()
    yield made
    made.close()


@pytest.fixture
def outer(running_outer: Outer) -> Outer:
    running_outer.asked.clear()
    return running_outer


@pytest.mark.root
async def test_other_names_are_asked_of_the_machines_resolvers_in_turn(client: FakeClient, outer: Outer) -> None:
    stub = await serve(client, [DEAD, "not an address", OUTER])
    try:
        assert addresses(await stub.ask(dns.message.make_query("public.example", "A"))) == ["192.0.2.7"]
        assert (await stub.ask(dns.message.make_query("nobody.example", "A"))).rcode() == dns.rcode.NXDOMAIN
        assert outer.asked == ["public.example.", "nobody.example."]
        assert not stub.names.knows("public.example")
    finally:
        await stub.made.aclose()


@pytest.mark.root
async def test_an_answer_that_was_cut_short_is_asked_again_over_tcp(client: FakeClient, outer: Outer) -> None:
    stub = await serve(client, [OUTER])
    try:
        over_udp = await stub.ask(dns.message.make_query("long.example", "A"))
        assert over_udp.flags & dns.flags.TC
        (over_tcp,) = await stub.ask_over_tcp(dns.message.make_query("long.example", "A"))
        assert addresses(over_tcp) == ["192.0.2.7"]
    finally:
        await stub.made.aclose()


@pytest.mark.root
async def test_a_granted_name_is_never_asked_of_others(client: FakeClient, outer: Outer) -> None:
    stub = await serve(client, [OUTER])
    try:
        for kind in ("A", "AAAA", "TXT"):
            await stub.ask(dns.message.make_query("echo.internal", kind))
        assert outer.asked == []
    finally:
        await stub.made.aclose()


async def test_a_name_of_its_own_is_answered_unless_it_is_granted(client: FakeClient) -> None:
    made = await serve(client, [], {"host.klinket.internal": "100.127.255.2"})
    try:
        asked = [dns.message.make_query("Host.klinket.internal", kind) for kind in ("A", "AAAA", "TXT")]
        answers = [await made.ask(query) for query in asked]
        assert [addresses(answer) for answer in answers] == [["100.127.255.2"], [], []]
        assert {answer.rcode() for answer in answers} == {dns.rcode.NOERROR}
        client.grant("*.klinket.internal")
        assert addresses(await made.ask(asked[0])) == ["100.96.0.1"]
    finally:
        await made.made.aclose()
