"""The trial's network: the hub (its own namespace), and one namespace for each connector and for a client.

Each is on a cable of its own that nft can cut.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Callable, Iterable, Sequence

#: Where controller and relay listen, and what the services listen on.
HUB = "10.94.0.1"
SERVICE_ADDRESS = "10.94.0.60"
TABLE = "chaos"


def sh(*command: str, text: str | None = None) -> str:
    """Run a command and return its output; raises RuntimeError with its error text."""
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


class Network:
    """Made once, in a namespace where nothing else is; it goes with it."""

    def __init__(self, parts: Sequence[str]) -> None:
        """`parts`: those that have a namespace of their own."""
        self._names = list(parts)

    def make(self) -> None:
        """Bring the hub up, and a cable to each namespace."""
        # Names of namespaces are files of the machine: here they are files of the trial.
        subprocess.run(["mkdir", "-p", "/run/netns"], check=True)
        sh("mount", "-t", "tmpfs", "-o", "size=1m", "chaos-netns", "/run/netns")
        sh("ip", "link", "set", "lo", "up")
        for address in (HUB, SERVICE_ADDRESS):
            sh("ip", "addr", "add", f"{address}/32", "dev", "lo")
        for number, name in enumerate(self._names, 1):
            near, far = f"10.94.{number}.1", f"10.94.{number}.2"
            sh("ip", "netns", "add", name)
            sh("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", name)
            sh("ip", "addr", "add", f"{near}/24", "dev", f"to-{name}")
            sh("ip", "link", "set", f"to-{name}", "up")
            sh("ip", "-n", name, "addr", "add", f"{far}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                sh("ip", "-n", name, "link", "set", link, "up")
            sh("ip", "-n", name, "route", "add", "default", "via", near)

    def enter(self, name: str) -> list[str]:
        """Return the command prefix that runs a part where it belongs."""
        return ["nsenter", f"--net=/run/netns/{name}"] if name in self._names else []

    def dials(self, name: str, dial: Callable[[], socket.socket]) -> Callable[[], socket.socket]:
        """Return `dial` as a program does it where a part is: a socket stays in the namespace it was made in."""
        libc = ctypes.CDLL(None, use_errno=True)

        def go(descriptor: int) -> None:  # this thread alone
            if libc.setns(descriptor, 0):
                raise OSError(ctypes.get_errno(), "setns")

        hub = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)

        def from_there() -> socket.socket:
            go(there)
            try:
                return dial()
            finally:
                go(hub)

        return from_there

    def part(self, name: str, ports: Iterable[int] = ()) -> None:
        """Drop silently what passes between a part and the hub: all of it, or only the TCP ports given."""
        told = ", ".join(map(str, ports))
        to, back = (f"tcp dport {{ {told} }}", f"tcp sport {{ {told} }}") if told else ("", "")
        sh("nft", "-f", "-", text=f"""
            table inet {TABLE} {{
              chain in {{ type filter hook input priority 0; iifname "to-{name}" {to} drop; }}
              chain out {{ type filter hook output priority 0; oifname "to-{name}" {back} drop; }}
            }}""")  # fmt: skip

    def join(self) -> None:
        """Let everything pass again."""
        sh("nft", "-f", "-", text=f"table inet {TABLE} {{ }}\ndelete table inet {TABLE}\n")

    def rules(self) -> list[str]:
        """Return who has rules in any of the trial's namespaces."""
        every = [("the hub", []), *((name, self.enter(name)) for name in self._names)]
        return [name for name, prefix in every if sh(*prefix, "nft", "list", "ruleset").strip()]
