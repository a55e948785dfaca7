"""A process that outlives klinket by a moment: sees it die, gives DNS and routes back, and closes the way to resources.

It runs as a file of its own with nothing but a few modules of the standard library, in its own session. Its will comes as one
line of JSON on standard input: {"claim": name of the abstract socket in hex, "commands": [[arguments, input], ...]}. A second
line means that klinket has cleaned up itself; the end of the input without one means that it has died.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time

#: Seconds for one command.
COMMAND_SECONDS = 20.0
#: Seconds to wait for the claim.
CLAIM_SECONDS = 10.0


def take(name: bytes) -> socket.socket | None:
    """Return the claim, or None when somebody has it. A process that dies frees it some milliseconds after its pipes."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    deadline = time.monotonic() + CLAIM_SECONDS
    while True:
        try:
            claim.bind(name)
            return claim
        except OSError:
            if time.monotonic() > deadline:
                return None
            time.sleep(0.005)


def main() -> int:
    """Wait, and execute the will if there is one to execute."""
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGPIPE"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)  # a stop reaches us as well, and klinket may not be done
    will = json.loads(sys.stdin.buffer.readline() or b"{}")
    if not will or sys.stdin.buffer.readline():
        return 0
    claim = take(bytes.fromhex(will["claim"]))
    if claim is None:
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
