"""Fuzz targets of what is bytes on a wire: pipes, links, relays, messages, packets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from klinket.client.capture import dns_message, http_connect, nfqueue, packets, socks5
from klinket.client.daemon import protocol
from klinket.domain.address import parse_ip
from klinket.domain.errors import ProtocolError
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.domain.identifiers import FlowId, ResourceId
from klinket.net import resolv_conf
from klinket.net.link import Leaf
from klinket.net.pipe import READ_BYTES
from klinket.net.pipe_receiver import PipeReceiver
from klinket.relay.core import Leg, RelayCore
from klinket.relay.forwarding import DatagramForwarding
from klinket.relay.limits import RelayLimits
from klinket.wire import control, datagram, dns_answer, link, link_control, pipe, relay, relay_datagram
from klinket.wire.dns import Code, encode_name
from klinket.wire.echo import Echo
from klinket.wire.link import Link
from klinket.wire.pipe import FrameType, Purpose
from klinket.wire.pipe_messages import Failure, OpenAnswer, OpenRequest
from tests.fuzz.target import Target, as_text, attempt

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "pipe.json").read_text())
_LINK = Link(b"h" * 16, b"s" * 32, 4e9)
_RANDOMS = b"c" * 32, b"n" * 32
#: A question for the MX records of db.corp.internal.
_NAME_QUERY = bytes.fromhex("123401000001000000000000") + encode_name("db.corp.internal") + bytes((0, 15, 0, 1))
_OFFER = link.LinkOffer(lambda size: b"r" * size)


def frames(data: bytes) -> None:
    """Seal frames as `data` says, put bytes among them as it says, and see that only what was sealed comes out, in order.

    A step: a byte below 128 seals a frame with that many of the next bytes; above, so many of them go onto the wire as they are.
    """
    client = pipe.client_keys(_LINK, Purpose.FLOW, *_RANDOMS)
    receiver = PipeReceiver(pipe.connector_keys(_LINK, Purpose.FLOW, *_RANDOMS).opener)
    sent, received, rest, stream = [], [], data, b""
    while rest:
        step, rest = rest[0], rest[1:]
        content, rest = rest[: step % 128], rest[step % 128 :]
        if step < 128:
            type = list(FrameType)[len(content) % len(FrameType)]
            sent.append((type, content))
            stream += client.sealer.seal(type, content)
        else:
            stream += content
    try:
        while stream:
            if len(received) % 3 == 2:
                count = min(1 + len(stream) // 2, READ_BYTES)
                if (only := receiver.open_only(stream[:count])) is not None:
                    received.append((only.type, only.content))
                stream = stream[count:]
            else:
                space = receiver.space()
                count = min(len(space), len(stream), 1 + len(stream) // 2)
                space[:count], stream = stream[:count], stream[count:]
                receiver.received(count)
            while True:
                if len(received) % 2:
                    opened = receiver.open_in_place()
                    if opened is None:
                        break
                    received.append((FrameType(opened[0]), bytes(opened[1])))
                else:
                    frame = receiver.open()
                    if frame is None:
                        break
                    received.append((frame.type, frame.content))
    except ProtocolError:
        pass
    finally:
        receiver.release()
    assert received == sent[: len(received)]


def beginnings(data: bytes) -> None:
    """Greeting and hello."""
    if (random := attempt(pipe.parse_greeting, data)) is not None:
        assert pipe.greeting(random) == data
    if (hello := attempt(pipe.parse_hello, data)) is not None:
        assert pipe.hello(*hello) == data
    attempt(pipe.frame_length, data)


def flow_messages(data: bytes) -> None:
    """OPEN, OPENED, FAIL: what is understood is written the same again."""
    if (request := attempt(OpenRequest.decode, data)) is not None:
        assert request.encode() == data
    padded = attempt(OpenRequest.decode, data[: pipe.MAX_CONTENT_BYTES].ljust(511, b"\0"))
    assert padded is None or padded.encode() == data.ljust(511, b"\0")
    if (answer := attempt(OpenAnswer.decode, data)) is not None:
        assert answer.encode() == data
        assert answer.address.isprintable()
    if (failure := attempt(Failure.decode, data)) is not None:
        assert failure.message.isprintable()
        assert Failure.decode(failure.encode()).failure is failure.failure


def link_messages(data: bytes) -> None:
    """The control pipe's messages; parts of a grant never hold more than their bound."""
    parts = link_control.GrantParts()
    for line in data.split(b"\n"):
        message = attempt(link_control.decode_from_client, line)
        if isinstance(message, link_control.PresentGrant):
            attempt(parts.add, message)
            assert len(parts._parts) < link_control.MAX_PARTS
        answer = attempt(link_control.decode_from_connector, line)
        if isinstance(answer, link_control.GrantRefused):
            assert (answer.code + answer.message).isprintable()


def channel_messages(data: bytes) -> None:
    """The live channels' messages; resources in them are those of the domain, or refused."""
    for decode in (control.decode_to_controller, control.decode_to_client, control.decode_to_connector):
        attempt(decode, data)
    attempt(relay.decode_report, data)
    attempt(relay.decode_configuration, data)


def relay_hellos(data: bytes) -> None:
    """Hellos and admissions: only the right key verifies, and what is understood is written the same again."""
    if (hello := attempt(relay.RelayHello.unverified, data)) is not None:
        whole = hello.sign(b"k" * 32)
        assert whole[:34] == data[:34]
        hello.verify(whole, b"k" * 32)
        if data != whole:
            assert attempt(lambda: hello.verify(data, b"k" * 32) or True) is None
    if (admission := attempt(relay.parse_admission, data)) is not None:
        assert admission.key == data[17:49]


def relay_datagrams(data: bytes) -> None:
    """What comes to a relay's UDP port, and its answers: only the right key verifies, and none is longer than what asked."""
    key, leg = b"k" * 32, relay_datagram.leg_name(b"a" * 16, 1)
    binds = [data, data.ljust(relay_datagram.BIND_BYTES, b"\0")[: relay_datagram.BIND_BYTES]]
    if (bind := attempt(relay_datagram.Bind.unverified, binds[1])) is not None:
        whole = bind.sign(key)
        assert whole[: -relay_datagram.MAC_BYTES] == binds[1][: -relay_datagram.MAC_BYTES]
        binds.append(whole)
    for message in binds:
        attempt(relay_datagram.Bind.unverified, message)
        attempt(relay_datagram.read_answer, message, key)
        if relay_datagram.receiver_of(message) is not None:
            assert len(message) < relay_datagram.BIND_BYTES
        if len(binds) < 3 or message != binds[2]:
            assert attempt(lambda: relay_datagram.verify(message, key) or True) is None  # noqa: B023 - called at once
    core = RelayCore(RelayLimits(), lambda size: b"r" * size)
    forwarding = DatagramForwarding(core, RelayLimits(), lambda size: b"s" * size, lambda: 1.0, lambda: 1.0)
    forwarding.joined(("a", "b"), [Leg(leg, relay.RelayRole.CLIENT, "b"), Leg(leg[::-1], relay.RelayRole.CONNECTOR, "c")])
    assert all(forwarding.asked(message, ("192.0.2.1", 1)) is None for message in binds)
    assert forwarding.bound == 0


def link_exchange(data: bytes) -> None:
    """A link's offer and answer, cut to length and not; certificates of the other end."""
    for size in (len(data), link.OFFER_BYTES):
        attempt(link.answer_offer, data[:size].ljust(size, b"\x11"), lambda count: bytes(count), b"client", b"connector", 4e9)
    for size in (len(data), link.ANSWER_BYTES):
        attempt(_OFFER.finish, data[:size].ljust(size, b"\x11"), b"client", b"connector", 4e9)
    attempt(Leaf.parse, data)


def datagrams_of_programs(data: bytes) -> None:
    """DNS questions, held packets, the kernel's netlink messages."""
    query = attempt(dns_message.parse_query, data)
    if query is not None:
        assert len(query.name) <= 255
        assert query.reverse_address is None or parse_ip(query.reverse_address) is not None
        assert dns_message.answer_code(query, Code.SERVER_FAILURE)
    attempt(packets.read_syn, data)
    attempt(lambda: list(nfqueue.decode(data)))


def sealed_datagrams(data: bytes) -> None:
    """Datagrams on a path of their own: what was not sealed for it does not open, moves nothing, and what was still opens."""
    ends = _LINK, b"\0" * datagram.RECEIVER_BYTES, b"\1" * datagram.RECEIVER_BYTES, *_RANDOMS
    client, opener = datagram.client_keys(*ends), datagram.connector_keys(*ends).opener
    sealed = client.sealer.seal(datagram.DatagramKind.PAYLOAD, b"f" * datagram.FLOW_BYTES, data[:1000])
    for forged in (data, sealed[: len(sealed) - 1 - len(data) % 40], data[:16].ljust(16, b"\0") + sealed[16:]):
        datagram.receiver_of(forged)
        datagram.read_probe(forged)
        assert forged == sealed or attempt(opener.open, forged) is None
    assert opener.open(sealed)[2] == data[:1000]
    assert attempt(opener.open, sealed) is None
    run = [client.sealer.seal(datagram.DatagramKind.PAYLOAD, b"f" * datagram.FLOW_BYTES, b"%04d" % number) for number in range(4)]
    whole, size = b"".join(run), len(run[0])
    at = len(data) * 7 % len(whole)
    altered = (whole[:at] + data + whole[at + len(data) :])[: len(whole)]
    intact = next((number for number in range(4) if altered[number * size :][:size] != run[number]), 4)
    plain = memoryview(bytearray(len(altered) + datagram.TRAILER_BYTES))
    assert opener.open_run(memoryview(altered), size, plain)[0] == intact
    assert bytes(plain[: 4 * intact]) == b"".join(b"%04d" % number for number in range(intact))
    echo = attempt(Echo.decode, data)
    assert echo is None or echo.encode() == data


def answers_of_resolvers(data: bytes) -> None:
    """What a resolver beside a connector answers: whatever it says, the records are bounded."""
    query = _NAME_QUERY
    for message in (data, query[:2] + data[:10].ljust(10, b"\0") + query[12:] + data[10:]):
        answer = attempt(dns_answer.decode_answer, message, query)
        assert answer is None or len(answer.records) <= dns_answer.MAX_RECORDS


def programs(data: bytes) -> None:
    """What programs say to the local proxies, commands to the daemon, and a file says to both."""
    attempt(http_connect.parse_head, data)
    http_connect.shows(data, "token")
    if len(data) > 2:
        length = attempt(socks5.address_length, data[0], data[1])
        assert length is None or length <= 257
        attempt(socks5.parse_destination, data[0], data[1], data[2:])
    socks5.accepts_no_authentication(data)
    socks5.offers_password(data)
    attempt(protocol.decode_request, data)
    attempt(protocol.decode_answer, data)
    attempt(resolv_conf.parse, as_text(data))


# ---- seeds


def _frame_seeds() -> Sequence[bytes]:
    return [b"\x05hello\x00\x01x", b"\x05hello\x84\0\0\0\x11", b"\x01a\x90" + bytes(range(16)), bytes([127]) + bytes(127)]


def _beginning_seeds() -> Sequence[bytes]:
    return [bytes.fromhex(one[name]) for one in VECTORS["pipes"] for name in ("greeting", "hello")]


def _flow_message_seeds() -> Sequence[bytes]:
    made = [bytes.fromhex(one["content"]) for kind in ("open", "fail") for one in VECTORS[kind]]
    request = OpenRequest(Destination("db.internal", 5432, TransportProtocol.TCP), ResourceId(1), FlowId("00" * 16))
    return [*(one.rstrip(b"\0") for one in made), *made, request.encode(), b"10.0.0.1", Failure(FlowFailure.CUT, "over").encode()]


def _link_message_seeds() -> Sequence[bytes]:
    said = [
        link_control.CloseLink(),
        link_control.GrantAccepted(revision=1, expires_at_ms=2),
        link_control.GrantRefused(code="a", message="b"),
        link_control.Drain(),
    ]
    parts = [link_control.PresentGrant(token="t", part=part, parts=3) for part in range(3)]
    return [*map(link_control.encode, said), b"\n".join(map(link_control.encode, parts))]


def _channel_seeds() -> Sequence[bytes]:
    report = relay.RelayReport(address="r:1", certificate_sha256="00", version="1")
    configuration = relay.RelayConfiguration(relay=1, network="acme", ticket_keys={"keys": []}, time_ms=1)
    tags = [kind.__struct_config__.tag for kind in control.Message.__subclasses__()]
    return [
        relay.encode(report).encode(),
        relay.encode(configuration).encode(),
        *(json.dumps({"type": tag}).encode() for tag in tags),
    ]


def _relay_seeds() -> Sequence[bytes]:
    hello = relay.RelayHello(relay.RelayRole.CLIENT, b"a" * 16, 1, 2)
    return [hello.sign(b"k" * 32), hello.sign(b"x" * 32), relay.Admission(b"a" * 16, b"k" * 32, 4e9).encode()]


def _relay_datagram_seeds() -> Sequence[bytes]:
    bind = relay_datagram.Bind(b"a" * 16, relay_datagram.leg_name(b"a" * 16, 1), b"o" * 7, b"t" * 7, 1)
    answers = [relay_datagram.challenge(b"k" * 32, b"o" * 7, 1, b"c" * 16), relay_datagram.bound(b"k" * 32, b"o" * 7, 1)]
    return [bind.sign(b"x" * 32), *(answer[:-1] + b"x" for answer in answers), b"\x21" + bytes(110), b"\x11" + bytes(50)]


def _exchange_seeds() -> Sequence[bytes]:
    offer = _OFFER.payload()
    answer, _ = link.answer_offer(offer, lambda size: bytes(size), b"client", b"connector", 4e9)
    return [offer, answer, b"\x30\x82\x01\x00"]


def _datagram_seeds() -> Sequence[bytes]:
    query = bytes.fromhex("123401000001000000000000") + b"\x02db\x08internal\x00\x00\x01\x00\x01"
    reverse = bytes.fromhex("123401000001000000000000") + b"\x011\x010\x010\x0210\x07in-addr\x04arpa\x00\x00\x0c\x00\x01"
    syn = bytes.fromhex("4500002800000000400600000a0000010a000002d43101bb00000001000000005002ffff00000000")
    return [query, reverse, syn, bytes.fromhex("14000000020000000100000000000000") + bytes(4), b"\x60" + bytes(60)]


def _program_seeds() -> Sequence[bytes]:
    return [
        b"CONNECT db.internal:5432 HTTP/1.1\r\nHost: db.internal:5432\r\nProxy-Authorization: Basic dTp0b2tlbg==\r\n\r\n",
        b"GET http://web.internal/x HTTP/1.1\r\nHost: web.internal\r\n\r\n",
        b"\x03\x0bdb.internal\x15\x38",
        b"\x01\x0a\0\0\x01\x00\x50",
        b'{"version":1,"verb":"wait","resources":["db"],"timeout":3}\n',
        b'{"version":1,"ok":true}\n',
        b"nameserver 10.0.0.1\nsearch a.b\noptions ndots:2\n",
    ]


TARGETS = (
    Target(
        "frames",
        frames,
        (
            "wire.pipe:frame_length",
            "wire.pipe:Opener.open",
            "wire.pipe:Opener.open_into",
            "net.pipe_receiver:PipeReceiver.open",
            "net.pipe_receiver:PipeReceiver.open_in_place",
            "net.pipe_receiver:PipeReceiver.open_only",
        ),
        _frame_seeds,
    ),
    Target("beginnings", beginnings, ("wire.pipe:parse_greeting", "wire.pipe:parse_hello"), _beginning_seeds),
    Target(
        "flow-messages",
        flow_messages,
        ("wire.pipe_messages:OpenRequest.decode", "wire.pipe_messages:OpenAnswer.decode", "wire.pipe_messages:Failure.decode"),
        _flow_message_seeds,
    ),
    Target(
        "link-messages",
        link_messages,
        ("wire.link_control:decode_from_client", "wire.link_control:decode_from_connector", "wire.link_control:GrantParts.add"),
        _link_message_seeds,
    ),
    Target(
        "channel-messages",
        channel_messages,
        (
            "wire.control:decode_to_controller",
            "wire.control:decode_to_client",
            "wire.control:decode_to_connector",
            "wire.relay:decode_report",
            "wire.relay:decode_configuration",
        ),
        _channel_seeds,
    ),
    Target(
        "relay-datagrams",
        relay_datagrams,
        ("wire.relay_datagram:Bind.unverified", "wire.relay_datagram:read_answer", "wire.relay_datagram:verify"),
        _relay_datagram_seeds,
    ),
    Target(
        "relay-hellos",
        relay_hellos,
        ("wire.relay:RelayHello.unverified", "wire.relay:RelayHello.verify", "wire.relay:parse_admission"),
        _relay_seeds,
    ),
    Target(
        "link-exchange",
        link_exchange,
        ("wire.link:answer_offer", "wire.link:LinkOffer.finish", "net.link:Leaf.parse"),
        _exchange_seeds,
    ),
    Target(
        "datagrams-of-programs",
        datagrams_of_programs,
        ("client.capture.dns_message:parse_query", "client.capture.packets:read_syn", "client.capture.nfqueue:decode"),
        _datagram_seeds,
    ),
    Target(
        "sealed-datagrams",
        sealed_datagrams,
        (
            "wire.datagram:DatagramOpener.open",
            "wire.datagram:DatagramOpener.open_into",
            "wire.datagram:DatagramOpener.open_run",
            "wire.datagram:read_probe",
            "wire.echo:Echo.decode",
        ),
        lambda: [b"", b"content", bytes(64)],
    ),
    Target(
        "answers-of-resolvers",
        answers_of_resolvers,
        ("wire.dns_answer:decode_answer",),
        lambda: [b"", bytes.fromhex("818000010001000000000c00c00c000f00010000003c00040001c00c")],
    ),
    Target(
        "programs",
        programs,
        (
            "client.capture.http_connect:parse_head",
            "client.capture.socks5:parse_destination",
            "net.resolv_conf:parse",
            "client.daemon.protocol:decode_request",
            "client.daemon.protocol:decode_answer",
        ),
        _program_seeds,
    ),
)
