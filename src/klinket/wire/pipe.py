"""Sealed pipes: hello, keys, frames (security.md 3-5). Byte layout and test vectors: docs/reference/wire.md.

    greeting   connector -> client, while idle    version (1) | connector random (32)
    hello      client -> connector                version (1) | purpose (1) | link handle (16) | client random (32)
    frame      both, after that                   length (4, big-endian) | AES-256-GCM over content || type (1)

The length counts ciphertext and tag, and is the associated data. The nonce is 4 zero bytes and a 64-bit counter per direction
that is never reset. A direction's key ratchets after each OPEN or OPENED, and after MAX_KEY_FRAMES or MAX_KEY_BYTES.
"""

from __future__ import annotations

import hmac
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Self
from weakref import ref

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from klinket.domain.errors import ProtocolError
from klinket.wire.link import HANDLE_BYTES, RANDOM_BYTES, Link

VERSION = 1
#: First byte of a TLS handshake record, where a pipe's version could stand: a link is to be made.
TLS_HANDSHAKE = 0x16
GREETING_BYTES = 1 + RANDOM_BYTES
HELLO_BYTES = 2 + HANDLE_BYTES + RANDOM_BYTES
HEADER_BYTES = 4
TAG_BYTES = 16
#: Bytes of content in one frame.
MAX_CONTENT_BYTES = 256 * 1024
#: Bytes after the length field in one frame; a longer one ends the connection before anything is buffered.
MAX_SEALED_BYTES = MAX_CONTENT_BYTES + 1 + TAG_BYTES
MAX_FRAME_BYTES = HEADER_BYTES + MAX_SEALED_BYTES
#: Frames, and bytes, sealed under one key.
MAX_KEY_FRAMES = 1 << 20
MAX_KEY_BYTES = 16 << 30
#: Directions of a process whose ciphers are kept ready; others make theirs when they need it.
MAX_READY = 512


class FrameType(IntEnum):
    """The last plaintext byte of a frame. Numbers are never reused."""

    OPEN = 1
    OPENED = 2
    FAIL = 3
    DATA = 4
    FIN = 5
    DATAGRAM = 6
    CONTROL = 7


class Purpose(IntEnum):
    """What a pipe is for; part of its keys."""

    FLOW = 1
    CONTROL = 2
    #: For a path of sealed datagrams at the relay it goes through; only to connectors that name it a feature.
    DATAGRAMS = 3


_TYPES = {int(type): type for type in FrameType}
_PURPOSES = {int(purpose) for purpose in Purpose}
_RATCHETS = (FrameType.OPEN, FrameType.OPENED)
_NONCE = struct.Struct(">4xQ")
#: A direction as one process of a role hands it to another of the same machine: key, chain, counter, frames and bytes of the key.
_STATE = struct.Struct(">32s32sQQQ")
STATE_BYTES = _STATE.size


class _NoKey:
    """In the place of a key that was forgotten."""

    def encrypt(self, *_: object) -> bytes:
        raise ConnectionResetError("the keys of this pipe were forgotten")

    def encrypt_into(self, *_: object) -> int:
        raise ConnectionResetError("the keys of this pipe were forgotten")

    def decrypt(self, *_: object) -> bytes:
        raise ProtocolError("the keys of this pipe were forgotten")

    def decrypt_into(self, *_: object) -> int:
        raise ProtocolError("the keys of this pipe were forgotten")


class _Direction:
    """One direction's chain of keys and its counter."""

    __slots__ = ("__weakref__", "_aead", "_bytes", "_chain", "_counter", "_frames", "_key", "_listed")
    #: Raised for the frame after the last one: a counter never begins again.
    used_up: ClassVar[type[Exception]]

    def __init__(self, chain: bytes) -> None:
        #: None while the direction rests: a cipher that is ready takes 40 times the memory of its key.
        self._aead: AESGCM | _NoKey | None
        #: It is in _READY, once.
        self._listed = False
        self._chain = chain
        self._counter = 0
        self._new_key()

    @classmethod
    def resumed(cls, state: bytes) -> Self:
        """Return a direction that goes on where another one, which handed its state over, has stopped."""
        made = cls.__new__(cls)
        made._key, made._chain, made._counter, made._frames, made._bytes = _STATE.unpack(state)
        made._aead = None
        made._listed = False
        return made

    def hand_over(self) -> bytes:
        """Return the state, STATE_BYTES long, and forget the keys: only one may go on, or nonces would be used twice."""
        if not self._key:
            raise ConnectionResetError("the keys of this pipe were forgotten")
        state = _STATE.pack(self._key, self._chain, self._counter, self._frames, self._bytes)
        self.forget()
        return state

    def forget(self) -> None:
        """Have no key from now on: sealing raises ConnectionResetError, opening ProtocolError."""
        self._aead = _NoKey()
        self._chain = self._key = b""

    def _new_key(self) -> None:
        self._key = _expand(self._chain, b"key")
        self._aead = None
        self._chain = _expand(self._chain, b"ratchet")  # the chain that made this key is gone: no way back
        self._frames = 0
        self._bytes = 0

    def _ready(self) -> AESGCM:
        """Return the cipher of the present key, made anew; of many directions the one made ready first rests again."""
        made = self._aead = AESGCM(self._key)
        if not self._listed:
            if len(_READY) >= MAX_READY and (oldest := _READY.popleft()()) is not None:
                oldest._rest()
            _READY.append(ref(self))
            self._listed = True
        return made

    def _rest(self) -> None:
        self._listed = False
        if self._key:
            self._aead = None

    def _nonce(self) -> bytes:
        number = self._counter
        self._counter = number + 1  # moved before use: no path seals or opens twice under one nonce
        try:
            return _NONCE.pack(number)
        except struct.error:
            raise self.used_up("the frames of this pipe are used up") from None

    def _count(self, type: int, size: int) -> None:
        self._frames += 1
        self._bytes += size
        if type in _RATCHETS or self._frames >= MAX_KEY_FRAMES or self._bytes >= MAX_KEY_BYTES:
            self._new_key()


#: Directions with a cipher that is ready, the first made ready first.
_READY: deque[ref[_Direction]] = deque()


class Sealer(_Direction):
    """Seals the frames of the direction this end sends. The frame after the 2^64th raises ConnectionResetError."""

    __slots__ = ()
    used_up = ConnectionResetError

    def seal(self, type: FrameType, content: bytes = b"") -> bytes:
        """Return one frame; raises ValueError above MAX_CONTENT_BYTES."""
        if len(content) > MAX_CONTENT_BYTES:
            raise ValueError(f"{len(content)} bytes in one frame, the limit is {MAX_CONTENT_BYTES}")
        size = len(content) + 1 + TAG_BYTES
        header = size.to_bytes(HEADER_BYTES, "big")
        sealed = (self._aead or self._ready()).encrypt(self._nonce(), content + bytes((type,)), header)
        self._count(type, size)
        return header + sealed

    def seal_into(self, type: FrameType, plain: memoryview, size: int, frame: memoryview) -> int:
        """Seal `plain[:size]` into `frame`; returns the frame's length. `plain[size]` is overwritten with the type.

        `plain` may be where the content stands in `frame`, behind the header, and nowhere else in it.
        """
        plain[size] = type
        sealed = size + 1 + TAG_BYTES
        header = sealed.to_bytes(HEADER_BYTES, "big")
        frame[:HEADER_BYTES] = header
        aead = self._aead or self._ready()
        aead.encrypt_into(self._nonce(), plain[: size + 1], header, frame[HEADER_BYTES : HEADER_BYTES + sealed])
        self._count(type, sealed)
        return HEADER_BYTES + sealed


class Opener(_Direction):
    """Opens the frames of the direction this end receives."""

    __slots__ = ()
    used_up = ProtocolError

    def open_into(self, frame: memoryview, plain: memoryview) -> tuple[int, int]:
        """Open one whole frame into `plain`; returns (type, content length). Raises ProtocolError.

        `plain` needs room for the content and one byte more. It may be where the content stands in `frame`, not elsewhere in it.
        """
        sealed = len(frame) - HEADER_BYTES
        size = sealed - 1 - TAG_BYTES
        aead = self._aead or self._ready()
        try:
            aead.decrypt_into(self._nonce(), frame[HEADER_BYTES:], frame[:HEADER_BYTES], plain[: size + 1])
        except InvalidTag as error:
            raise ProtocolError("a frame of a pipe does not verify") from error
        type = plain[size]
        if type not in _TYPES:
            raise ProtocolError(f"a frame of unknown type {type}")
        self._count(type, sealed)
        return type, size

    def open(self, frame: bytes | memoryview) -> tuple[FrameType, bytes]:
        """Return type and content of one whole frame; raises ProtocolError. For single frames: it makes a copy."""
        aead = self._aead or self._ready()
        try:
            plain = aead.decrypt(self._nonce(), frame[HEADER_BYTES:], frame[:HEADER_BYTES])
        except InvalidTag as error:
            raise ProtocolError("a frame of a pipe does not verify") from error
        type = _TYPES.get(plain[-1])
        if type is None:
            raise ProtocolError(f"a frame of unknown type {plain[-1]}")
        self._count(type, len(frame) - HEADER_BYTES)
        return type, plain[:-1]


def frame_length(buffer: memoryview | bytes) -> int | None:
    """Return the length of the frame at the start of `buffer`, header included, or None while its header is incomplete.

    Raises ProtocolError for a length outside the limits, before anything of the frame is needed.
    """
    if len(buffer) < HEADER_BYTES:
        return None
    sealed = int.from_bytes(buffer[:HEADER_BYTES], "big")
    if not 1 + TAG_BYTES <= sealed <= MAX_SEALED_BYTES:
        raise ProtocolError(f"a frame of {sealed} bytes, the limit is {MAX_SEALED_BYTES}")
    return HEADER_BYTES + sealed


def greeting(connector_random: bytes) -> bytes:
    """Return the connector's greeting."""
    return bytes((VERSION,)) + connector_random


def parse_greeting(data: bytes) -> bytes:
    """Return the connector's random of a greeting (GREETING_BYTES); raises ProtocolError for another version."""
    if len(data) != GREETING_BYTES or data[0] != VERSION:
        raise ProtocolError("not a greeting of this version")
    return data[1:]


def hello(purpose: Purpose, handle: bytes, client_random: bytes) -> bytes:
    """Return the client's hello."""
    return bytes((VERSION, purpose)) + handle + client_random


def parse_hello(data: bytes) -> tuple[Purpose, bytes, bytes]:
    """Return purpose, link handle and client random of a hello (HELLO_BYTES); raises ProtocolError."""
    if len(data) != HELLO_BYTES or data[0] != VERSION or data[1] not in _PURPOSES:
        raise ProtocolError("not a hello of this version")
    return Purpose(data[1]), data[2 : 2 + HANDLE_BYTES], data[2 + HANDLE_BYTES :]


@dataclass(frozen=True, slots=True)
class PipeKeys:
    """The two directions of a new pipe, as one end uses them."""

    sealer: Sealer
    opener: Opener


def client_keys(link: Link, purpose: Purpose, client_random: bytes, connector_random: bytes) -> PipeKeys:
    """Return the client's keys of a pipe."""
    root = _root(link, purpose, client_random, connector_random)
    return PipeKeys(Sealer(_expand(root, b"client")), Opener(_expand(root, b"connector")))


def connector_keys(link: Link, purpose: Purpose, client_random: bytes, connector_random: bytes) -> PipeKeys:
    """Return the connector's keys of a pipe."""
    root = _root(link, purpose, client_random, connector_random)
    return PipeKeys(Sealer(_expand(root, b"connector")), Opener(_expand(root, b"client")))


def _root(link: Link, purpose: Purpose, client_random: bytes, connector_random: bytes) -> bytes:
    return _expand(link.secret, b"klinket pipe" + bytes((VERSION, purpose)) + link.handle + client_random + connector_random)


def _expand(secret: bytes, info: bytes) -> bytes:
    """Return HKDF-Expand (RFC 5869) of one block, with SHA-256: that is one HMAC."""
    return hmac.digest(secret, info + b"\x01", "sha256")


#: Finds the link of a handle at the connector; None when there is none.
LinkLookup = Callable[[bytes], Link | None]
