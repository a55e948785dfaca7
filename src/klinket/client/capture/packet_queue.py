"""Taking a packet queue of the kernel over."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from klinket.client.capture import nfqueue
from klinket.domain.errors import CaptureImpossible, ProtocolError

logger = logging.getLogger(__name__)

_SECONDS = 5.0


def bind(sock: socket.socket, number: int, copy_bytes: int = nfqueue.COPY_BYTES) -> None:
    """Receive this queue on a netlink socket, non-blocking afterwards; raises CaptureImpossible when the kernel refuses."""
    sock.settimeout(_SECONDS)
    for request in (nfqueue.bind(number), nfqueue.configure(number, copy_bytes)):
        try:
            sock.sendto(request, (0, 0))
            answers = list(nfqueue.decode(sock.recv(65_536)))
        except (OSError, ProtocolError) as error:
            raise CaptureImpossible(f"the kernel's packet queue: {error}") from error
        for answer in answers:
            if isinstance(answer, nfqueue.Acknowledgement) and answer.error:
                raise CaptureImpossible(f"the kernel's packet queue: errno {answer.error}")
    sock.setblocking(False)


def take_held(queue: socket.socket, size: int, rounds: int, take: Callable[[nfqueue.HeldPacket], None]) -> int:
    """Give each packet that the kernel holds to `take`, in so many reads of at most `size` bytes.

    Returns how often the kernel had no room for more (ENOBUFS), and has dropped what came.
    """
    lost = 0
    for _ in range(rounds):
        try:
            data = queue.recv(size)
        except (BlockingIOError, InterruptedError):
            break
        except OSError as error:
            lost += 1
            logger.debug("packet queue: %s", error)
            continue
        try:
            for message in nfqueue.decode(data):
                if isinstance(message, nfqueue.HeldPacket):
                    take(message)
        except ProtocolError as error:
            logger.error("packet queue: %s", error.message)
    return lost
