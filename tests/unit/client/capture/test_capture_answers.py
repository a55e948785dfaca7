"""Answers to captured programs: headers as packets.datagram() writes them, and one packet for several datagrams on loopback."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.client.capture import packets
from klinket.client.capture.answers import Answers, _Headers
from klinket.net.checksum import checksum

VIRTIO, ETHERNET = 10, 14
V4 = ("10.96.0.2", 7000), ("100.127.255.1", 40_000)
V6 = ("fd00::2", 7000), ("fd00::1", 40_000)


@given(ends=st.sampled_from([V4, V6]), contents=st.lists(st.binary(max_size=99), min_size=1, max_size=3))
def test_the_headers_are_those_of_a_datagram(ends: tuple[packets.Endpoint, packets.Endpoint], contents: list[bytes]) -> None:
    headers = _Headers(*ends)
    for content in contents:  # what is made once serves each
        frame = headers.of(len(content), len(content)) + content
        expected = packets.datagram(*ends, content)
        kind, ip = frame[VIRTIO + 12 : VIRTIO + ETHERNET], frame[VIRTIO + ETHERNET :]
        if ends is V4:
            assert kind == b"\x08\x00"
            assert checksum(ip[:20]) == 0
            assert ip[:6] + ip[8:10] + ip[12:26] == expected[:6] + expected[8:10] + expected[12:26]
            start = 20
        else:
            assert kind == b"\x86\xdd"
            assert ip[:46] == expected[:46]
            start = 40
        assert ip[start + 8 :] == content
        assert struct.unpack_from("=BBHHHH", frame) == (1, 0, ETHERNET + start + 8, 0, ETHERNET + start, 6)
        # The field holds the sum of the pseudo-header; with that of all behind it, the checksum is right.
        udp = bytearray(ip[start:])
        udp[6:8] = struct.pack(">H", checksum(bytes(udp)))
        pseudo = (b"".join(socket.inet_pton(socket.AF_INET6 if ":" in one[0] else socket.AF_INET, one[0]) for one in ends)
                  + struct.pack(">HBB", len(udp), 0, 17))  # fmt: skip
        assert checksum(pseudo + bytes(udp)) == 0


def test_datagrams_that_came_together_are_cut_where_each_ends() -> None:
    cut = struct.unpack_from("=BBHHHH", _Headers(*V4).of(3_100, 1_200))
    assert cut == (1, 5, 42, 1_200, 34, 6)


class Recorder:
    """Stands for a socket; refuses all with `error`."""

    def __init__(self, error: int = 0) -> None:
        self.sent: list[bytes] = []
        self.error = error

    def setblocking(self, _: bool) -> None: ...

    def close(self) -> None: ...

    def sendmsg(self, parts: list[bytes]) -> None:
        self.sent.append(b"".join(parts))
        if self.error:
            raise OSError(self.error, os.strerror(self.error))

    def sendto(self, packet: bytes, _: object) -> None:
        self.sent.append(packet)
        if self.error:
            raise OSError(self.error, os.strerror(self.error))


def test_only_answers_to_the_own_address_leave_by_loopback() -> None:
    raw, loopback = Recorder(), Recorder()
    answers = Answers(raw, loopback, V4[1][0])  # type: ignore[arg-type]
    answers.way(*V4)(b"abcabca", 3)
    answers.way(V4[0], ("100.127.255.2", 9))(b"abcabca", 3)
    assert [one[VIRTIO + ETHERNET + 28 :] for one in loopback.sent] == [b"abcabca"]
    assert [one[28:] for one in raw.sent] == [b"abc", b"abc", b"a"]


def test_what_is_more_than_a_packet_holds_leaves_one_by_one() -> None:
    raw, loopback = Recorder(), Recorder()
    Answers(raw, loopback, V4[1][0]).way(*V4)(bytes(65_400), 32_700)  # type: ignore[arg-type]
    assert [len(one) for one in raw.sent] == [32_728, 32_728]
    assert not loopback.sent


def test_a_kernel_that_refuses_packets_of_several_is_asked_once() -> None:
    raw, loopback = Recorder(), Recorder(22)
    answers = Answers(raw, loopback, V4[1][0])  # type: ignore[arg-type]
    way = answers.way(*V4)
    way(b"abca", 3)
    way(b"defd", 3)
    assert [one[28:] for one in raw.sent] == [b"abc", b"a", b"def", b"d"]
    assert len(loopback.sent) == 1
    assert answers.dropped == 0


def test_what_there_is_no_room_for_is_counted() -> None:
    raw, loopback = Recorder(11), Recorder(105)
    answers = Answers(raw, loopback, V4[1][0])  # type: ignore[arg-type]
    answers.way(*V4)(b"abca", 3)
    assert answers.dropped == 2
    assert not raw.sent
    answers.way(V4[0], ("100.127.255.2", 9))(b"ab", 2)
    assert answers.dropped == 3


INSIDE = """
import socket, subprocess, sys
from pathlib import Path
from klinket.client.capture.answers import Answers, loopback_socket
from klinket.client.capture.namespace import rules

subprocess.run(["ip", "-batch", "-"], input=rules.links_and_routes(), text=True, check=True)
subprocess.run(["ip", "-6", "-batch", "-"], input=rules.links_and_routes6(), text=True, check=True)
Path("/proc/sys", rules.ACCEPT_LOCAL).write_text("1")
for family, own, far in ((socket.AF_INET, rules.OWN_ADDRESS, "10.96.0.2"), (socket.AF_INET6, rules.OWN_ADDRESS6, "fd00::9")):
    program = socket.socket(family, socket.SOCK_DGRAM)
    program.bind((own, 0))
    program.connect((far, 7000))
    program.settimeout(5)
    raw = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    answers = Answers(raw, loopback_socket(), own)
    way = answers.way((far, 7000), (own, program.getsockname()[1]))
    for size, total in ((1200, 9900), (1200, 1200), (1, 5), (0, 0), (1432, 62_000)):
        content = bytes(number * 7 % 251 for number in range(total))
        way(memoryview(content), size)
        for start in range(0, total or 1, size or 1):
            assert program.recv(65_535) == content[start : start + size], (family, size, total, start)
    assert answers._loopback is not None and not answers.dropped
print("as sent")
"""


@pytest.mark.root
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root for a network namespace")
def test_the_kernel_delivers_each_datagram_by_itself_with_its_content() -> None:
    done = subprocess.run(["unshare", "--net", sys.executable, "-c", INSIDE], capture_output=True, text=True, timeout=60)
    assert done.stdout == "as sent\n", done.stderr
