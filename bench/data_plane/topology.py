"""Three namespaces in a row: client - middle - server. The middle routes; relays and controllers stand in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

CLIENT, MIDDLE_CLIENT, MIDDLE_SERVER, SERVER = "10.93.1.2", "10.93.1.1", "10.93.2.1", "10.93.2.2"
#: An address of the server that nobody routes to: only what stands beside it leads there.
PRIVATE = "10.96.0.2"
#: The first port of what answers (bench.data_plane.load).
PORT = 7000
ROOT = Path(__file__).parents[2]


def sh(*command: str, text: str | None = None) -> str:
    """Run a command and return what it printed; raises RuntimeError with its error text."""
    done = subprocess.run(command, capture_output=True, text=True, input=text)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


class Topology:
    """`delay_ms`: one way, between client and middle; `loss_percent`: of the packets that cross the middle's client side."""

    def __init__(self, directory: Path, delay_ms: float = 0.0, loss_percent: int = 0) -> None:
        self.directory = directory
        self._delay_ms = delay_ms
        self._loss = loss_percent
        tag = f"kb{os.getpid() % 100000}"
        self.names = {role: f"{tag}{role}" for role in ("client", "middle", "server")}
        self._processes: list[subprocess.Popen[str]] = []

    def inside(self, role: str, *command: str) -> list[str]:
        """Return a command that runs in the namespace of `role`."""
        return ["ip", "netns", "exec", self.names[role], *command]

    def start(self, role: str, *command: str, log: str = "", **variables: str) -> subprocess.Popen[str]:
        """Start a process in a namespace; it ends with the topology."""
        output = (self.directory / f"{log or Path(command[0]).name}-{role}.log").open("a")
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", **variables}
        process = subprocess.Popen(
            self.inside(role, *command), stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True, env=environment
        )
        self._processes.append(process)
        return process

    def __enter__(self) -> Topology:
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
        client, middle, server = self.names["client"], self.names["middle"], self.names["server"]
        sh("ip", "netns", "exec", middle, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        if self._delay_ms:
            line = subprocess.Popen(
                [sys.executable, "-m", "bench.data_plane.line", client, middle, str(self._delay_ms)],
                stdout=subprocess.PIPE, text=True, cwd=ROOT,
            )  # fmt: skip
            self._processes.append(line)
            assert line.stdout is not None
            if line.stdout.readline().strip() != "ready":
                raise RuntimeError("the delayed line could not be made")
            for name, own, peer in ((client, CLIENT, MIDDLE_CLIENT), (middle, MIDDLE_CLIENT, CLIENT)):
                sh("ip", "-n", name, "addr", "add", own, "peer", peer, "dev", "line")
                sh("ip", "-n", name, "link", "set", "line", "up")
        else:
            self._wire(client, CLIENT, middle, MIDDLE_CLIENT, "toclient")
        self._wire(server, SERVER, middle, MIDDLE_SERVER, "toserver")
        sh("ip", "-n", client, "route", "add", "default", "via", MIDDLE_CLIENT)
        sh("ip", "-n", server, "route", "add", "default", "via", MIDDLE_SERVER)
        sh("ip", "-n", server, "addr", "add", f"{PRIVATE}/32", "dev", "lo")
        if self._loss:
            rules = (
                "table inet line {\n chain in { type filter hook prerouting priority -300;\n"
                f'  iifname "line" numgen random mod 100 < {self._loss} drop\n }}\n'
                " chain out { type filter hook postrouting priority 300;\n"
                f'  oifname "line" numgen random mod 100 < {self._loss} drop\n }}\n}}\n'
            )
            sh("ip", "netns", "exec", middle, "nft", "-f", "-", text=rules)
        self.start("server", sys.executable, "-m", "bench.data_plane.load", "serve", "0.0.0.0", str(PORT), log="target")

    def _wire(self, near: str, near_address: str, far: str, far_address: str, far_name: str) -> None:
        sh("ip", "-n", far, "link", "add", far_name, "type", "veth", "peer", "name", "eth0", "netns", near)
        for name, device, address in ((near, "eth0", near_address), (far, far_name, far_address)):
            sh("ip", "-n", name, "addr", "add", f"{address}/24", "dev", device)
            sh("ip", "-n", name, "link", "set", device, "up")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        for name in self.names.values():
            pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
            for pid in pids:
                subprocess.run(["kill", "-9", pid], capture_output=True)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
