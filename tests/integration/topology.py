"""Network namespaces: client - middle - private - services, and no route from client to private or services.

The middle holds `PUBLIC`, an address both sides reach; controller and relay run there. It forwards nothing. The connector runs
in private, what it leads to in services, a host of its own behind it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

#: Reached from client and from private; controller and relay listen on it.
PUBLIC = "10.91.0.1"
CLIENT = "10.91.1.2"
CONNECTOR = "10.91.2.2"
#: The host of the services, and an address of it that no resource names.
PRIVATE = "10.91.3.2"
HIDDEN = "10.91.3.3"


def sh(*command: str) -> None:
    """Run a command; raises with its error text."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")


class Topology:
    """Makes the namespaces on entry and removes them on exit, with every process left in them."""

    def __init__(self, directory: Path) -> None:
        tag = f"klk{os.getpid() % 100000}"
        self.names = {role: f"{tag}-{role}" for role in ("client", "middle", "private", "services")}
        self.resolv_conf = directory / "private-resolv.conf"

    def __enter__(self) -> Topology:
        for name in self.names.values():
            sh("ip", "netns", "add", name)
            sh("ip", "-n", name, "link", "set", "lo", "up")
        middle = self.names["middle"]
        sh("ip", "netns", "exec", middle, "sysctl", "-qw", "net.ipv4.ip_forward=0")
        sh("ip", "-n", middle, "addr", "add", f"{PUBLIC}/32", "dev", "lo")
        for role, address in (("client", CLIENT), ("private", CONNECTOR)):
            name = self.names[role]
            gateway = address.rsplit(".", 1)[0] + ".1"
            sh("ip", "-n", middle, "link", "add", f"to-{role}", "type", "veth", "peer", "name", "eth0", "netns", name)
            sh("ip", "-n", middle, "addr", "add", f"{gateway}/24", "dev", f"to-{role}")
            sh("ip", "-n", middle, "link", "set", f"to-{role}", "up")
            sh("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            sh("ip", "-n", name, "link", "set", "eth0", "up")
            sh("ip", "-n", name, "route", "add", f"{PUBLIC}/32", "via", gateway)
        private, services = self.names["private"], self.names["services"]
        sh("ip", "-n", private, "link", "add", "inner", "type", "veth", "peer", "name", "eth0", "netns", services)
        for name, link, addresses in ((private, "inner", ["10.91.3.1"]), (services, "eth0", [PRIVATE, HIDDEN])):
            for address in addresses:
                sh("ip", "-n", name, "addr", "add", f"{address}/24", "dev", link)
            sh("ip", "-n", name, "link", "set", link, "up")
        self.resolv_conf.write_text(f"nameserver {PRIVATE}\n")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for name in self.names.values():
            pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
            for pid in pids:
                subprocess.run(["kill", "-9", pid], capture_output=True)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def prefix(self, role: str) -> Sequence[str]:
        """Return the command prefix that runs a program in the namespace of `role`, as root."""
        if role == "private":
            # The resolver of the private side is known there only.
            inner = f'mount --bind {self.resolv_conf} /etc/resolv.conf && exec "$@"'
            return ["ip", "netns", "exec", self.names[role], "sh", "-c", inner, "sh"]
        return ["ip", "netns", "exec", self.names[role]]

    def prefix_unprivileged(self, role: str, user: int = 65534) -> Sequence[str]:
        """Return the prefix that runs a program in the namespace of `role` without any privilege, as `user`."""
        return [
            *self.prefix(role),
            "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all",
        ]  # fmt: skip
