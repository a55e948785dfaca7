"""The honest peers of `./dev bench abuse`: flows through a relay and past it, logins, and pages of the console, each at its pace.

Prints a line per round: what it was, when it began (monotonic seconds), how many milliseconds it took, and why it failed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from bench.abuse_console import pages
from bench.load import dial_through_socks
from klinket.client.login import log_in, log_out
from klinket.net.channel import controller_context
from klinket.wire.key_file import parse_key_file

#: Seconds between the beginnings of rounds; one that takes longer delays the next.
FLOW_SECONDS, LOGIN_SECONDS, PAGE_SECONDS = 0.04, 0.15, 0.15
#: Seconds after which a round has failed.
PATIENCE_SECONDS = 10.0
_print = threading.Lock()


def tell(kind: str, began: float, error: str = "") -> None:
    """Print one round, which ends now."""
    with _print:
        print(json.dumps([kind, began, (time.monotonic() - began) * 1000, error]), flush=True)


def paced(seconds: float, kind: str, work: Callable[[], None]) -> None:
    """Do `work` again and again."""
    while True:
        began = time.monotonic()
        try:
            work()
        except Exception as error:  # whatever it is, the honest one did not get through
            tell(kind, began, f"{type(error).__name__}: {error}"[:200])
        else:
            tell(kind, began)
        time.sleep(max(0.0, seconds - (time.monotonic() - began)))


def flows(socks: int, host: str, port: int) -> Callable[[], None]:
    """Return a round that connects through the client's proxy, and has one byte come back."""
    dial = dial_through_socks(("127.0.0.1", socks), host, port)

    def work() -> None:
        with dial() as connection:
            connection.settimeout(PATIENCE_SECONDS)
            connection.sendall(b"x")
            if connection.recv(1) != b"x":
                raise ConnectionError("no echo")

    return work


def logins(key: Path) -> Callable[[], None]:
    """Return a round that logs in with the service key; the session is ended apart from it."""
    key_file = parse_key_file(key.read_bytes())
    context = controller_context(key_file.controller_ca)

    def work() -> None:
        session = asyncio.run(log_in(key_file, context))
        threading.Thread(target=lambda: asyncio.run(log_out(key_file, session, context)), daemon=True).start()

    return work


def main() -> None:
    """Run until killed, or until standard input ends."""
    wanted = json.loads(sys.stdin.readline())
    made: dict[str, tuple[float, Callable[[], Callable[[], None]]]] = {
        "relayed": (FLOW_SECONDS, lambda: flows(wanted["socks"], *wanted["relayed"])),
        "direct": (FLOW_SECONDS, lambda: flows(wanted["socks"], *wanted["direct"])),
        "login": (LOGIN_SECONDS, lambda: logins(Path(wanted["key"]))),
        "console": (PAGE_SECONDS, lambda: pages(wanted["url"], wanted["authority"], wanted["link"])),
    }
    for kind in wanted["kinds"]:
        seconds, make = made[kind]
        threading.Thread(target=paced, args=(seconds, kind, make()), daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
