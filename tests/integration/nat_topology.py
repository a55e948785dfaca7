"""Network namespaces: client - NAT - internet - NAT - private. Controller and relay run in the internet, which routes.

Nobody is reached behind a NAT unless it has begun: a SYN that a NAT does not expect is answered with RST.
"""

from __future__ import annotations

import os
import re
import subprocess
from types import TracebackType

from tests.integration.topology import sh

#: Where controller and relay listen, and how each side is seen from there.
PUBLIC, CLIENT_NAT, PRIVATE_NAT = "10.94.0.1", "10.94.1.2", "10.94.2.2"
CLIENT, PRIVATE = "192.168.94.2", "192.168.95.2"


class NatTopology:
    """Makes the namespaces on entry and removes them on exit, with every process left in them.

    `fully_random`: the client's NAT gives each connection another port. `silent`: what NATs do not expect they drop.
    """

    def __init__(self, *, fully_random: bool = False, silent: bool = False) -> None:
        tag = f"kln{os.getpid() % 100000}"
        self.names = {role: f"{tag}-{role}" for role in ("client", "nat-c", "internet", "nat-p", "private")}
        self._silent = silent
        self._masquerade = "masquerade random,fully-random" if fully_random else "masquerade"

    def __enter__(self) -> NatTopology:
        try:
            self._make()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _make(self) -> None:
        for name in self.names.values():
            sh("ip", "netns", "add", name)
            sh("ip", "-n", name, "link", "set", "lo", "up")
        internet = self.names["internet"]
        sh("ip", "-n", internet, "addr", "add", f"{PUBLIC}/32", "dev", "lo")
        for host, nat, inner, outer, masquerade in (
            ("client", "nat-c", CLIENT, CLIENT_NAT, self._masquerade),
            ("private", "nat-p", PRIVATE, PRIVATE_NAT, "masquerade"),
        ):
            self._wire(nat, "inside", host, "eth0", inner)
            self._wire("internet", f"to-{nat}", nat, "outside", outer)
            rules = f'table ip nat {{ chain out {{ type nat hook postrouting priority 100; oifname "outside" {masquerade}; }}; }}'
            if self._silent:
                rules += '; table ip silent { chain in { type filter hook input priority 0; iifname "outside" drop; }; }'
            sh("ip", "netns", "exec", self.names[nat], "nft", rules)
        for name in (self.names["nat-c"], internet, self.names["nat-p"]):
            sh("ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv4.ip_forward=1")

    def _wire(self, near: str, near_device: str, far: str, far_device: str, address: str) -> None:
        """Connect two namespaces; `address`: of the far one, whose default route leads to the near one."""
        gateway = address.rsplit(".", 1)[0] + ".1"
        one, other = self.names[near], self.names[far]
        sh("ip", "-n", one, "link", "add", "name", near_device, "type", "veth", "peer", "name", far_device, "netns", other)
        for name, device, own in ((one, near_device, gateway), (other, far_device, address)):
            sh("ip", "-n", name, "addr", "add", f"{own}/24", "dev", device)
            sh("ip", "-n", name, "link", "set", device, "up")
        sh("ip", "-n", other, "route", "add", "default", "via", gateway)

    def count(self, port: int) -> None:
        """Count from now on what comes to a TCP port in the internet."""
        chain = f"chain in {{ type filter hook input priority 0; tcp dport {port} counter name came; }}"
        rules = f"table ip counted {{ counter came {{ }}; {chain}; }}"
        sh("ip", "netns", "exec", self.names["internet"], "nft", rules)

    def counted(self) -> int:
        """Return the bytes that have come to the port."""
        command = ["ip", "netns", "exec", self.names["internet"], "nft", "list", "counter", "ip", "counted", "came"]
        found = re.search(r"bytes (\d+)", subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        assert found is not None
        return int(found.group(1))

    def prefix(self, role: str) -> list[str]:
        """Return the command prefix that runs a program in the namespace of `role`, as root."""
        return ["ip", "netns", "exec", self.names[role]]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for name in self.names.values():
            pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
            for pid in pids:
                subprocess.run(["kill", "-9", pid], capture_output=True)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
