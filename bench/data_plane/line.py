"""A line with delay, in user space: packets between two namespaces wait before they go on (there is no netem everywhere).

As a program: `python -m bench.data_plane.line NETNS_A NETNS_B MILLISECONDS`; makes a tun device `line` in each and forwards.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import select
import struct
import sys
import time

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000
#: Packets that wait at the most in one direction; further ones are dropped, as a queue does.
MAX_WAITING = 20_000


def open_in(namespace: str) -> int:
    """Return the descriptor of a new tun device `line` in a namespace of /run/netns."""
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if libc.setns(there, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"line", _IFF_TUN | _IFF_NO_PI))
        if libc.setns(own, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(own)
        os.close(there)
    return device


def forward(first: int, second: int, seconds: float) -> None:
    """Move packets between two devices, each after `seconds`. Never returns."""
    other = {first: second, second: first}
    waiting: list[tuple[float, int, int, bytes]] = []
    number = 0
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, device, packet = heapq.heappop(waiting)
            try:
                os.write(device, packet)
            except OSError:
                pass  # the device is full or down: a line loses packets
        pause = max(0.0, waiting[0][0] - now) if waiting else 1.0
        for device in select.select([first, second], [], [], pause)[0]:
            for _ in range(64):
                try:
                    packet = os.read(device, 65_536)
                except OSError:
                    break
                if len(waiting) < 2 * MAX_WAITING:
                    number += 1
                    heapq.heappush(waiting, (time.monotonic() + seconds, number, other[device], packet))


if __name__ == "__main__":
    ends = open_in(sys.argv[1]), open_in(sys.argv[2])
    print("ready", flush=True)
    forward(*ends, float(sys.argv[3]) / 1000)
