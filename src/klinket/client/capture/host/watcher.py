"""A process that outlives klinket by a moment: sees it die, gives DNS and routes back, and closes the way to resources.

It runs as a file of its own with nothing but a few modules of the standard library, in its own session. Its will comes as one
line of JSON on standard input: {"claim": name of the link, "commands": [[arguments, input], ...]}. A second
line means that klinket has cleaned up itself; the end of the input without one means that it has died.
"""

import errno
import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import time

DEVICE = "/dev/net/tun"
#: linux/if_tun.h
_TUNSETIFF = 0x4004_54CA
_IFF_TUN, _IFF_NO_PI = 1, 0x1000
#: Seconds for one command.
COMMAND_SECONDS = 20.0
#: Seconds to wait for the claim.
CLAIM_SECONDS = 10.0


def take(link: str) -> int:
    """Return the descriptor of a TUN interface of this name, which only one process has at a time (klinket's claim).

    Raises OSError: EBUSY while another has it, with a file name where there are no such interfaces.
    """
    descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH14x", link.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _take_over(link: str) -> bool:
    """Wait for the claim; returns whether nobody else has it. A process that dies frees it some milliseconds after its pipes."""
    deadline = time.monotonic() + CLAIM_SECONDS
    while True:
        try:
            take(link)  # until this process ends
            return True
        except OSError as error:
            if error.errno != errno.EBUSY:
                os.write(2, f"klinket: {link}: {error}\n".encode())
                return True  # better twice than not at all
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)


def main() -> int:
    """Wait, and execute the will if there is one to execute."""
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGPIPE"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)  # a stop reaches us as well, and klinket may not be done
    will = json.loads(sys.stdin.buffer.readline() or b"{}")
    if not will or sys.stdin.buffer.readline():
        return 0
    if not _take_over(will["claim"]):
        return 0  # a new klinket is there already, and has taken over what was left
    failed = 0
    for arguments, text in will["commands"]:
        try:
            done = subprocess.run(arguments, input=text.encode(), capture_output=True, timeout=COMMAND_SECONDS)
            if done.returncode and "-force" not in arguments:
                os.write(2, done.stderr[:500])
                failed = 1
        except (OSError, subprocess.TimeoutExpired) as error:
            os.write(2, f"klinket: {error}\n".encode())
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
