"""The link of FALLBACK's routes: a TUN interface that nobody reads. It lives as long as its descriptor."""

from __future__ import annotations

import fcntl
import os
import struct

from klinket.client.capture.host.routes import LINK
from klinket.domain.errors import CaptureImpossible

_DEVICE = "/dev/net/tun"
#: linux/if_tun.h
_TUNSETIFF = 0x4004_54CA
_IFF_TUN, _IFF_NO_PI = 1, 0x1000


def make() -> int:
    """Return the descriptor of the new link; raises CaptureImpossible."""
    try:
        descriptor = os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise CaptureImpossible(
            f"{_DEVICE}: {error.strerror}",
            hint="load the kernel's module with `modprobe tun`; give a container --device /dev/net/tun",
        ) from error
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH14x", LINK.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError as error:
        os.close(descriptor)
        raise CaptureImpossible(
            f"the interface {LINK}: {error.strerror}", hint="run as root, or with CAP_NET_ADMIN (--cap-add NET_ADMIN)"
        ) from error
    return descriptor
