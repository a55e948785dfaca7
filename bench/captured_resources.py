"""How long a captured machine takes to follow a change of what is granted, with 10,000 resources. As root.

In a network namespace of its own, with the real rules and routes; who grants is a stand-in.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

RESOURCES = 10_000
ROUNDS = 5


def measure_captured_resources(note: Callable[[str, float], None]) -> None:
    """Note the seconds of each change."""
    with tempfile.TemporaryDirectory(prefix="klinket-bench-resources-") as name:
        Path(name, "resolv.conf").write_text("nameserver 192.0.2.1\n")
        program = [sys.executable, "-m", "bench.captured_resources", name]
        inside = ["unshare", "--net", "--mount", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *program]
        done = subprocess.run(inside, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise RuntimeError(f"{program}: {done.stdout} {done.stderr}")
    for figure, seconds in json.loads(done.stdout.splitlines()[-1]):
        note(figure, seconds)


async def _measure(folder: Path) -> list[tuple[str, float]]:
    from klinket.client.capture.host.capture import HostCapture
    from klinket.client.capture.host.settings import HostSettings
    from tests.unit.client.conftest import FakeClient

    figures = []
    for _ in range(ROUNDS):
        client = FakeClient()
        settings = HostSettings(resolver_files=(folder / "resolv.conf",))
        capture = HostCapture(client, lambda line: print(line, file=sys.stderr), settings)
        await capture.start()
        try:

            async def follow(what: str) -> None:
                cpu, begun = time.process_time(), time.perf_counter()
                await capture.follow(client.resources)  # noqa: B023
                figures.append((f"{what}, ms", (time.perf_counter() - begun) * 1000))
                figures.append((f"{what}, CPU ms", (time.process_time() - cpu) * 1000))

            for number in range(RESOURCES):
                client.grant(f"10.{number >> 8}.{number & 255}.7")
            await follow(f"{RESOURCES:,} resources at once")
            client.grant("192.0.2.77")
            await follow(f"one more than {RESOURCES:,} resources")
            client.resources.pop()
            await follow(f"one less than {RESOURCES:,} resources")
        finally:
            await capture.aclose()
    return figures


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_measure(Path(sys.argv[1])))))
