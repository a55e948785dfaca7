"""A flow between two moves of its bytes, as one process hands it to another of the same machine and version.

keys (176) | flags (1) | bytes sent (8) | bytes received (8) | three lengths (4 each) | left | to pipe | to local
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Protocol

from klinket.domain.errors import ProtocolError
from klinket.wire.pipe import STATE_BYTES
from klinket.wire.pipe_messages import Failure

KEYS_BYTES = 2 * STATE_BYTES
_HEAD = struct.Struct(f">{KEYS_BYTES}sBQQIII")
_LOCAL_ENDED, _PIPE_ENDED = 1, 2


class Elsewhere(Protocol):
    """Another process that carries a flow."""

    def end(self, failure: Failure) -> None:
        """End it there, at once."""

    def come_back(self) -> None:
        """Have it handed back."""


@dataclass(frozen=True, slots=True)
class PumpState:
    """`keys`: of both directions of the pipe; `left`: received of it and not opened. `to_pipe`: sealed; `to_local`: opened."""

    keys: bytes = field(repr=False)
    left: bytes = field(repr=False)
    to_pipe: bytes = field(repr=False)
    to_local: bytes = field(repr=False)
    local_ended: bool
    pipe_ended: bool
    bytes_sent: int
    bytes_received: int

    def encode(self) -> bytes:
        """Return the bytes that decode() reads."""
        flags = _LOCAL_ENDED * self.local_ended | _PIPE_ENDED * self.pipe_ended
        parts = self.left, self.to_pipe, self.to_local
        return _HEAD.pack(self.keys, flags, self.bytes_sent, self.bytes_received, *map(len, parts)) + b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> PumpState:
        """Return the state; raises ProtocolError for anything else."""
        if len(data) < _HEAD.size:
            raise ProtocolError("the state of a flow is too short")
        keys, flags, sent, received, left, to_pipe, to_local = _HEAD.unpack_from(data)
        rest = data[_HEAD.size :]
        if flags > _LOCAL_ENDED | _PIPE_ENDED or left + to_pipe + to_local != len(rest):
            raise ProtocolError("the state of a flow is not of this version")
        return cls(
            keys=keys,
            left=rest[:left],
            to_pipe=rest[left : left + to_pipe],
            to_local=rest[left + to_pipe :],
            local_ended=bool(flags & _LOCAL_ENDED),
            pipe_ended=bool(flags & _PIPE_ENDED),
            bytes_sent=sent,
            bytes_received=received,
        )
