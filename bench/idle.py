"""What flows that move nothing cost, in each part that holds them.

Real processes on loopback: a controller, `klinket relay`, `klinket connector`, `klinket client`, a program with many connections
through it, and a target. Memory is the proportional set size of each part's processes (smaps_rollup); what the kernel holds for
sockets is told for the whole machine, the program's and the target's own sockets among it.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.command import options
from bench.data_plane.measure import cpu_seconds, family
from examples.deployment import Deployment, clean_environment, free_port

HOST = "127.0.0.9"
#: Connects at a time, and a second: an account may open 500 flows a second.
AT_ONCE, PER_SECOND = 16, 400.0
#: Flows that are opened and ended before the first measurement: what comes with load and stays is not the flows'.
WARM_UP = 200
SECONDS = 30.0
Flow = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def serve(port: int) -> None:
    """Echo until killed, with little memory."""

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    server = await asyncio.get_running_loop().create_server(Echo, HOST, port, backlog=4096)
    await server.serve_forever()


async def hold(proxy: int, port: int) -> None:
    """For each number on standard input: hold so many flows, say how many echo and how many could not be opened."""
    flows: list[Flow] = []
    request = b"\x05\x01\x00\x05\x01\x00\x01" + bytes(map(int, HOST.split("."))) + port.to_bytes(2, "big")

    async def one() -> Flow:
        async with asyncio.timeout(SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy)
            writer.write(request)
            answer = await reader.readexactly(12)
            if answer[3]:
                raise ConnectionError(f"refused: {answer[3]}")
            return reader, writer

    async def echoes(flow: Flow) -> bool:
        flow[1].write(b"ping")
        return await asyncio.wait_for(flow[0].readexactly(4), SECONDS) == b"ping"

    while line := await asyncio.to_thread(sys.stdin.readline):
        wanted, failed = int(line), 0
        for _, writer in flows[wanted:]:
            writer.close()
        del flows[wanted:]
        begun, opened = time.monotonic(), len(flows)
        while len(flows) + failed < wanted:
            count = min(AT_ONCE, wanted - len(flows) - failed)
            for result in await asyncio.gather(*(one() for _ in range(count)), return_exceptions=True):
                if isinstance(result, BaseException):
                    failed += 1
                    print(f"{type(result).__name__}: {result}", file=sys.stderr, flush=True)
                else:
                    flows.append(result)
            ahead = (len(flows) + failed - opened) / PER_SECOND - (time.monotonic() - begun)
            await asyncio.sleep(max(0.0, ahead))
        results = []
        for start in range(0, len(flows), 100):
            results += await asyncio.gather(*map(echoes, flows[start : start + 100]), return_exceptions=True)
        print(sum(result is True for result in results), failed, flush=True)


def pss_kb(pids: list[int]) -> dict[str, int]:
    """Return the proportional set size of processes and their descendants in kB, and how many they are."""
    total, count = 0, 0
    for pid in family(pids):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        count += 1
    return {"kB": total, "processes": count}


def system_kb() -> int:
    """Return the memory the kernel does not give to processes: slabs and socket buffers, in kB."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    pages = 0
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        words = line.split()
        if words[0] == "TCP:":
            pages = int(words[words.index("mem") + 1])
    return int(lines["Slab"].split()[0]) + pages * resource.getpagesize() // 1024


def start(deployment: Deployment, port: int) -> tuple[dict[str, int], int]:
    """Start everything; returns the process of each part that is measured, and the port of the client's proxy."""
    deployment.start_controller()
    deployment.start("target", [sys.executable, "-m", "bench.idle", "serve", str(port)])
    deployment.admin("network", "create", "office")
    deployment.add_connector("office", "office-1")
    deployment.admin("resource", "create", "--network", "office", "--address", HOST, "Target")
    connector = deployment.start_connector("office-1")
    deployment.admin("service", "create", "idle")
    deployment.admin("service", "grant", "idle", "Target")
    key = deployment.add_key("idle", "idle")
    proxy = free_port()
    command = [sys.executable, "-m", "klinket", "client", "--key-file", str(key), "--socks", f"127.0.0.1:{proxy}"]
    client = deployment.start("client", command)
    deployment.wait_for("the client", lambda: "online" in client.log.read_text(), client)
    relay = int((deployment.state / "relay" / "relay.pid").read_text())
    return {"client": client.pid, "relay": relay, "connector": connector.pid}, proxy


def measure(flows: int, settle: float) -> dict[str, object]:
    """Return memory and CPU time of each part with `flows` idle flows, and what was lost of them."""
    with tempfile.TemporaryDirectory(prefix="klinket-bench-") as folder, Deployment(Path(folder)) as deployment:
        port = free_port()
        parts, proxy = start(deployment, port)
        held = subprocess.Popen(
            [sys.executable, "-m", "bench.idle", "hold", str(proxy), str(port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=clean_environment(),
        )  # fmt: skip
        assert held.stdin is not None
        assert held.stdout is not None

        def told(count: int) -> list[str]:
            assert held.stdin is not None
            assert held.stdout is not None
            held.stdin.write(f"{count}\n")
            held.stdin.flush()
            words = held.stdout.readline().split()
            time.sleep(settle)
            return words

        try:
            for count in (WARM_UP, 0):
                told(count)
            before, system = {name: pss_kb([pid]) for name, pid in parts.items()}, system_kb()
            begun = time.monotonic()
            echoed, failed = told(flows)
            took = time.monotonic() - begun - settle
            after, system_after = {name: pss_kb([pid]) for name, pid in parts.items()}, system_kb()
            used = {name: cpu_seconds([pid]) for name, pid in parts.items()}
            time.sleep(settle)
            idle_cpu = {name: round((cpu_seconds([pid]) - used[name]) / settle * 100, 1) for name, pid in parts.items()}
            again, _ = told(flows)
        finally:
            held.kill()
            held.wait()
    return {
        "flows": flows,
        "echo": int(echoed),
        "failed to open": int(failed),
        "echo again": int(again),
        "opened in s": round(took, 1),
        "sum of PSS, MB": round(sum(one["kB"] for one in after.values()) / 1000, 1),
        "kB a flow, all parts": round(sum(after[name]["kB"] - before[name]["kB"] for name in parts) / flows, 1),
        "kB of the kernel a flow, with the program's and the target's sockets": round((system_after - system) / flows, 1),
        "parts": {
            name: {
                "MB before": round(before[name]["kB"] / 1000, 1),
                "MB": round(after[name]["kB"] / 1000, 1),
                "kB a flow": round((after[name]["kB"] - before[name]["kB"]) / flows, 2),
                "processes": after[name]["processes"],
                "% of a core while idle": idle_cpu[name],
            }
            for name in parts
        },
    }


def main() -> None:
    """Print one JSON object, with `--json` or without."""
    parser = options("idle", __doc__ or "", "--flows 200 --settle 1")
    parser.add_argument("--flows", type=int, default=2_000, metavar="N", help="how many (%(default)s)")
    parser.add_argument("--settle", type=float, default=5.0, metavar="SECONDS", help="until memory is looked at (%(default)s)")
    given = parser.parse_args()
    print(json.dumps(measure(given.flows, given.settle), indent=2))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(serve(int(sys.argv[2])))
    else:
        asyncio.run(hold(int(sys.argv[2]), int(sys.argv[3])))
