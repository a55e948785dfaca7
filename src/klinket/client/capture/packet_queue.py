"""Taking a packet queue of the kernel over."""

from __future__ import annotations

import socket

from klinket.client.capture import nfqueue
from klinket.domain.errors import CaptureImpossible, ProtocolError

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
