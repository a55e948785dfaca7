"""Sealed datagrams (security.md 7). Byte layout and test vectors: docs/reference/wire.md.

    datagram   type (1) | process (1) | index (6) | counter (8) | AES-256-GCM over content || flow (8) || kind (1)

The first 16 bytes are the associated data; process and index are the receiver's, and tell it which path this is. The nonce is
4 zero bytes and the counter. A direction's key changes every EPOCH_COUNTERS datagrams, told by the counter alone, and its former
one is forgotten as soon as the replay window has left it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from klinket.domain.errors import ProtocolError
from klinket.wire.datagram_header import (
    FLOW_BYTES,
    HEAD_BYTES,
    HEADER_BYTES,
    INDEX_BYTES,
    OVERHEAD_BYTES,
    RECEIVER_BYTES,
    SEALED,
    TAG_BYTES,
    TRAILER_BYTES,
    receiver_of,
)
from klinket.wire.link import Link
from klinket.wire.replay_window import WINDOW, ReplayWindow

__all__ = [
    "FLOW_BYTES",
    "HEADER_BYTES",
    "HEAD_BYTES",
    "INDEX_BYTES",
    "OVERHEAD_BYTES",
    "RECEIVER_BYTES",
    "SEALED",
    "TAG_BYTES",
    "TRAILER_BYTES",
    "receiver_of",
]

VERSION = 1
#: Bytes of the largest sealed datagram: what UDP carries over IPv4.
MAX_SEALED_BYTES = 65_507
MAX_CONTENT_BYTES = MAX_SEALED_BYTES - OVERHEAD_BYTES
#: Datagrams under one key; a receiver follows at most one key ahead of the newest it has seen in use.
EPOCH_BITS = 20
EPOCH_COUNTERS = 1 << EPOCH_BITS
#: The highest counter; a path that has used it is over.
MAX_COUNTER = (1 << 44) - 1
#: Datagrams that do not verify after which a path is over.
MAX_FORGERIES = 1 << 30

#: Bytes of the secret in a challenge, which comes back in a probe from the same address.
PROOF_BYTES = 16

_HEADER = struct.Struct(">B7sQ")
#: A probe: bytes found to arrive (2) | the secret of the newest challenge, zeros before the first (16) | zeros.
_PROBE = struct.Struct(f">H{PROOF_BYTES}s")
_TRAILER = struct.Struct(">8sB")


class DatagramKind(IntEnum):
    """The last plaintext byte of a datagram. Numbers are never reused."""

    PAYLOAD = 1
    PROBE = 2
    PROBE_ANSWER = 3
    CHALLENGE = 4


_KINDS = {int(kind) for kind in DatagramKind}
_PAYLOAD = int(DatagramKind.PAYLOAD)
#: The flow of probes.
NO_FLOW = bytes(FLOW_BYTES)


def receiver(process: int, index: int) -> bytes:
    """Return the 7 bytes that name a path to its receiver: which process of it, and which path there."""
    return bytes((process,)) + index.to_bytes(INDEX_BYTES, "big")


def probe(found: int, proof: bytes) -> bytes:
    """Return how the content of a PROBE begins. `found`: bytes of the largest sealed datagram that is known to arrive."""
    return _PROBE.pack(found, proof)


def read_probe(content: memoryview | bytes) -> tuple[int, bytes] | None:
    """Return what a PROBE says was found, and its proof; None for one that is too short to say it."""
    if len(content) < _PROBE.size:
        return None
    found, proof = _PROBE.unpack_from(content)
    return found, proof


class _Chain:
    """The keys of one direction, one after the other; there is no way back."""

    __slots__ = ("_chain", "epoch")

    def __init__(self, chain: bytes) -> None:
        self._chain = chain
        self.epoch = -1

    def next(self) -> AESGCM:
        key = _expand(self._chain, b"key")
        self._chain = _expand(self._chain, b"ratchet")
        self.epoch += 1
        return AESGCM(key)

    def forget(self) -> None:
        self._chain = b""


class DatagramSealer:
    """Seals the datagrams this end sends, for one receiver."""

    __slots__ = ("_aead", "_chain", "_counter", "_receiver")

    def __init__(self, chain: bytes, receiver: bytes) -> None:
        self._receiver = receiver
        self._chain = _Chain(chain)
        self._aead: AESGCM | None = self._chain.next()
        self._counter = 0

    def _next(self) -> tuple[AESGCM, int]:
        """Return key and counter of the next datagram; raises ProtocolError when the path is over."""
        counter = self._counter
        if counter >> EPOCH_BITS != self._chain.epoch:
            self._aead = self._chain.next()
        if self._aead is None or counter > MAX_COUNTER:
            raise ProtocolError("the keys of this datagram path are used up, or were forgotten")
        self._counter = counter + 1  # moved before use: nothing is sealed twice under one nonce
        return self._aead, counter

    def seal_into(self, kind: int, flow: bytes, plain: memoryview, size: int, sealed: memoryview) -> int:
        """Seal `plain[:size]` into `sealed`; returns its length. The TRAILER_BYTES behind the content are overwritten.

        Raises ProtocolError when the path is over.
        """
        aead, counter = self._next()
        _TRAILER.pack_into(plain, size, flow, kind)
        _HEADER.pack_into(sealed, 0, SEALED, self._receiver, counter)
        end = size + OVERHEAD_BYTES
        aead.encrypt_into(
            counter.to_bytes(12, "big"), plain[: size + TRAILER_BYTES], sealed[:HEADER_BYTES], sealed[HEADER_BYTES:end]
        )
        return end

    def seal_run(
        self, flow: bytes, contents: Sequence[bytes | memoryview], size: int, plain: memoryview, sealed: memoryview
    ) -> None:
        """Seal payloads of `size` bytes each into `sealed`, one behind the other. `plain`: room for one and its trailer.

        Raises ProtocolError when the path is over, with any number of them sealed: then none may be sent.
        """
        _TRAILER.pack_into(plain, size, flow, _PAYLOAD)
        content, inside = plain[:size], plain[: size + TRAILER_BYTES]
        at = 0
        for one in contents:
            aead, counter = self._next()
            content[:] = one
            begin = at + HEADER_BYTES
            end = at + size + OVERHEAD_BYTES
            _HEADER.pack_into(sealed, at, SEALED, self._receiver, counter)
            aead.encrypt_into(counter.to_bytes(12, "big"), inside, sealed[at:begin], sealed[begin:end])
            at = end

    def seal(self, kind: DatagramKind, flow: bytes, content: bytes) -> bytes:
        """Return one sealed datagram."""
        sealed = bytearray(len(content) + OVERHEAD_BYTES)
        self.seal_into(kind, flow, memoryview(bytearray(content) + bytearray(TRAILER_BYTES)), len(content), memoryview(sealed))
        return bytes(sealed)

    def forget(self) -> None:
        """Seal nothing any more."""
        self._aead = None
        self._counter = MAX_COUNTER + 1
        self._chain.epoch = self._counter >> EPOCH_BITS
        self._chain.forget()


class DatagramOpener:
    """Opens the datagrams this end receives. `forgeries`: how many did not verify; `replayed`: how many had come before."""

    __slots__ = ("_chain", "_current", "_former", "_next", "_window", "forgeries", "replayed")

    def __init__(self, chain: bytes) -> None:
        self._chain = _Chain(chain)
        self._former: AESGCM | None = None
        self._current: AESGCM | None = self._chain.next()
        self._next: AESGCM | None = None
        self._window = ReplayWindow()
        self.forgeries = 0
        self.replayed = 0

    @property
    def highest(self) -> int:
        """Return the highest counter that has verified, -1 before the first."""
        return self._window.highest

    def is_newest(self, sealed: memoryview) -> bool:
        """Return whether a datagram that has just been opened has the highest counter that has verified."""
        return int.from_bytes(sealed[8:HEADER_BYTES], "big") == self._window.highest

    def open_into(self, sealed: memoryview, plain: memoryview) -> tuple[int, bytes, int]:
        """Open one datagram into `plain`; returns (kind, flow, content length). Raises ProtocolError.

        `plain` needs room for the content and TRAILER_BYTES more. Nothing of this object's state, but what it counts, is moved by
        a datagram that does not verify.
        """
        inside = len(sealed) - HEADER_BYTES - TAG_BYTES
        if inside < TRAILER_BYTES or sealed[0] != SEALED:
            raise ProtocolError("not a sealed datagram of this version")
        counter = int.from_bytes(sealed[8:HEADER_BYTES], "big")
        if counter > MAX_COUNTER or not self._window.fresh(counter):
            self.replayed += 1
            raise ProtocolError("a datagram that was seen before, or is too old to know")
        if self.forgeries >= MAX_FORGERIES:
            raise ProtocolError("too many forged datagrams: the path is over")
        ahead = (counter >> EPOCH_BITS) - max(0, self._window.highest >> EPOCH_BITS)
        aead = self._key(ahead)
        if aead is None:
            raise ProtocolError("a datagram of a key that is over, or not there yet")
        try:
            aead.decrypt_into(counter.to_bytes(12, "big"), sealed[HEADER_BYTES:], sealed[:HEADER_BYTES], plain[:inside])
        except InvalidTag as error:
            self.forgeries += 1
            raise ProtocolError("a datagram does not verify") from error
        self._window.mark(counter)
        if ahead == 1:
            self._former, self._current, self._next = self._current, aead, None
        if self._former is not None and self._window.highest % EPOCH_COUNTERS >= WINDOW - 1:
            self._former = None
        size = inside - TRAILER_BYTES
        flow, kind = _TRAILER.unpack_from(plain, size)
        if kind not in _KINDS:
            raise ProtocolError(f"a datagram of unknown kind {kind}")
        return kind, flow, size

    def open_run(self, sealed: memoryview, size: int, plain: memoryview) -> tuple[int, bytes]:
        """Open datagrams of `size` bytes each, as long as that goes straight on: payload of one flow, each counter the next after
        all that were seen, under the key of now, none empty.

        Returns (how many, flow); their contents lie one behind the other in `plain`. What comes next, if anything does, is for
        open_into() to judge: nothing has been noted of it.
        """
        aead, window = self._current, self._window
        counter = first = window.highest + 1
        run = NO_FLOW
        inside = size - HEADER_BYTES - TAG_BYTES
        if aead is None or not first % EPOCH_COUNTERS or inside <= TRAILER_BYTES or self.forgeries >= MAX_FORGERIES:
            return 0, run
        most = min(len(sealed) // size, EPOCH_COUNTERS - first % EPOCH_COUNTERS)
        read_header, read_trailer, decrypt_into = _HEADER.unpack_from, _TRAILER.unpack_from, aead.decrypt_into
        content = inside - TRAILER_BYTES
        end = 0
        try:
            for start in range(0, most * size, size):
                kind, _, seen = read_header(sealed, start)
                if seen != counter or kind != SEALED:
                    break
                begin = start + HEADER_BYTES
                decrypt_into(
                    counter.to_bytes(12, "big"), sealed[begin : start + size], sealed[start:begin], plain[end : end + inside]
                )
                end += content
                flow, kind = read_trailer(plain, end)
                if kind != _PAYLOAD or (start and flow != run):
                    break
                run = flow
                counter += 1
        except InvalidTag:
            pass  # open_into() counts it
        if counter > first:
            window.mark_run(counter - first)
            if self._former is not None and (counter - 1) % EPOCH_COUNTERS >= WINDOW - 1:
                self._former = None
        return counter - first, run

    def _key(self, ahead: int) -> AESGCM | None:
        if ahead == 0:
            return self._current
        if ahead == -1:
            return self._former
        if ahead == 1 and self._current is not None:
            if self._next is None:  # made once, however many forgeries ask for it
                self._next = self._chain.next()
            return self._next
        return None

    def open(self, sealed: bytes) -> tuple[DatagramKind, bytes, bytes]:
        """Return kind, flow and content of one datagram; raises ProtocolError."""
        plain = bytearray(len(sealed))
        kind, flow, size = self.open_into(memoryview(sealed), memoryview(plain))
        return DatagramKind(kind), flow, bytes(plain[:size])

    def forget(self) -> None:
        """Open nothing any more."""
        self._former = self._current = self._next = None
        self._chain.forget()


@dataclass(frozen=True, slots=True)
class DatagramKeys:
    """The two directions of a datagram path, as one end uses them."""

    sealer: DatagramSealer
    opener: DatagramOpener


def client_keys(link: Link, client: bytes, connector: bytes, client_random: bytes, connector_random: bytes) -> DatagramKeys:
    """Return the client's keys. `client`, `connector`: the receiver (7 bytes) that each end gave itself."""
    root = _root(link, client, connector, client_random, connector_random)
    return DatagramKeys(DatagramSealer(_expand(root, b"client"), connector), DatagramOpener(_expand(root, b"connector")))


def connector_keys(link: Link, client: bytes, connector: bytes, client_random: bytes, connector_random: bytes) -> DatagramKeys:
    """Return the connector's keys, as client_keys()."""
    root = _root(link, client, connector, client_random, connector_random)
    return DatagramKeys(DatagramSealer(_expand(root, b"connector"), client), DatagramOpener(_expand(root, b"client")))


def _root(link: Link, client: bytes, connector: bytes, client_random: bytes, connector_random: bytes) -> bytes:
    purpose = b"klinket datagrams" + bytes((VERSION,))
    return _expand(link.secret, purpose + link.handle + client + connector + client_random + connector_random)


def _expand(secret: bytes, info: bytes) -> bytes:
    return HKDFExpand(SHA256(), 32, info).derive(secret)
