"""From the commit of a cut to the end of its flow, as the private service saw it.

10,000 live flows over 10 connectors; 1,000 cuts, one after another, end one flow each (an account's access to one resource); then
one cut, a revoked key, ends all that is left of an account at once. A time is that of the flow's end at the target less the time
of the cut's transaction, which is before its commit: neither network nor disk is left out. Afterwards the receipts are held
against what the targets saw, and every other flow has to echo.
"""

from __future__ import annotations

import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.command import options, say
from bench.main_job import percentile
from examples.deployment import Deployment, clean_environment, free_port
from klinket.cli.admin.api import AdminApiClient
from klinket.wire.paths import CUTS_PATH

ROOT = Path(__file__).parents[1]
#: The last number of the addresses to which the flows lead that no single cut ends.
STEADY = 250
#: Seconds for receipts and ends to come in after the last cut.
SETTLE_SECONDS = 30.0
#: Cuts between two lines of progress.
TOLD_EVERY = 50


@dataclass(frozen=True)
class Size:
    """`pairs`: resources in each network, to each of which each account has one flow that a cut of its own ends."""

    connectors: int
    accounts: int
    pairs: int
    flows: int

    @property
    def cuts(self) -> int:
        """Return how many cuts end one flow each."""
        return self.connectors * self.accounts * self.pairs

    @property
    def steady(self) -> int:
        """Return how many other flows each account has at each connector."""
        return (self.flows - self.cuts) // (self.connectors * self.accounts)


FULL, QUICK = Size(10, 10, 10, 10_000), Size(3, 3, 10, 900)


@dataclass
class Ended:
    """A cut of the measurement and what it has to end: tags. `began_ms`: of its transaction."""

    number: int
    tags: set[str]
    began_ms: int = 0


@dataclass
class World:
    """What runs. `tags`: by (account, network, resource); steady flows have several at resource STEADY."""

    size: Size
    deployment: Deployment
    api: AdminApiClient
    ports: list[int] = field(default_factory=list)
    resources: dict[tuple[int, int], str] = field(default_factory=dict)
    accounts: list[str] = field(default_factory=list)
    uuids: list[str] = field(default_factory=list)
    keys: list[Path] = field(default_factory=list)
    holders: list[subprocess.Popen[str]] = field(default_factory=list)
    tags: dict[tuple[int, int, int], list[str]] = field(default_factory=dict)

    def seen(self) -> dict[str, float]:
        """Return when each flow ended that has, as the targets saw it."""
        found = {}
        for network in range(self.size.connectors):
            for line in self.told(network).read_text().splitlines():
                tag, at, _ = line.split(" ")
                found[tag] = float(at)
        return found

    def told(self, network: int) -> Path:
        return self.deployment.directory / f"target-{network}"


def address(network: int, resource: int) -> str:
    return f"127.77.{100 + network}.{resource}"


def prepare(world: World) -> None:
    """Bring up everything and open all flows."""
    size, deployment, admin = world.size, world.deployment, world.deployment.admin
    deployment.start_controller()
    object.__setattr__(world.api, "token", deployment.api_token)
    create = "entity { id }"
    for network in range(size.connectors):
        hosts = [address(network, resource) for resource in (*range(1, size.pairs + 1), STEADY)]
        port = free_port(hosts[0])
        world.ports.append(port)
        world.told(network).touch()
        command = [sys.executable, "-m", "bench.cut_flows", "target", str(world.told(network)), str(port), *hosts]
        deployment.start(f"target-{network}", command, PYTHONPATH=str(ROOT))
        id = world.api.mutate("remoteNetworkCreate", create, name=("String!", f"net-{network}"))["entity"]["id"]
        deployment.add_connector(f"net-{network}", f"connector-{network}")
        for resource in (*range(1, size.pairs + 1), STEADY):
            made = world.api.mutate(
                "resourceCreate", create, remoteNetworkId=("ID!", id), name=("String!", f"resource {network} {resource}"),
                address=("String!", address(network, resource)),
            )  # fmt: skip
            world.resources[network, resource] = made["entity"]["id"]
    for account in range(size.accounts):
        ids = list(world.resources.values())
        made = world.api.mutate("serviceAccountCreate", create, name=("String!", f"job-{account}"), resourceIds=("[ID]", ids))
        world.accounts.append(made["entity"]["id"])
        world.keys.append(deployment.add_key(f"job-{account}", "runner"))
        world.uuids.append(json.loads(world.keys[-1].read_text())["service_account_id"])
    for network in range(size.connectors):  # direct: a relay would need two files for each flow
        deployment.start_connector(f"connector-{network}", KLINKET_LISTEN=f"127.0.0.1:{free_port()}")
    _open_flows(world)
    assert admin("connector", "list")


def _open_flows(world: World) -> None:
    size = world.size
    numbers = iter(range(10**9))

    def flows(account: int) -> list[tuple[str, str, int]]:
        wanted = []
        for network in range(size.connectors):
            for resource in (*range(1, size.pairs + 1), *[STEADY] * size.steady):
                tag = f"{account:02d}{network:02d}{next(numbers):08d}"
                world.tags.setdefault((account, network, resource), []).append(tag)
                wanted.append((tag, address(network, resource), world.ports[network]))
        return wanted

    def start(account: int) -> int:
        socks = free_port()
        command = [sys.executable, "-m", "klinket", "client", "--key-file", str(world.keys[account])]
        world.deployment.start(f"client-{account}", [*command, "--socks", f"127.0.0.1:{socks}"])
        time.sleep(3.0)  # the direct ways are met meanwhile
        holder = subprocess.Popen(
            [sys.executable, "-m", "bench.cut_flows", "hold", str(socks)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**clean_environment(), "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        world.holders.append(holder)
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(json.dumps(wanted[account]) + "\n")
        holder.stdin.flush()
        return int(holder.stdout.readline() or 0)

    wanted = [flows(account) for account in range(size.accounts)]
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        opened = sum(pool.map(start, range(size.accounts)))
    if opened != size.flows:
        raise SystemExit(f"only {opened} of {size.flows} flows were opened")
    say(f"{opened} flows over {size.connectors} connectors opened in {time.monotonic() - began:.0f} s")


def cut_one_by_one(world: World) -> list[Ended]:
    """Take each account's access to each resource of one flow away, in a random order of a fixed seed."""
    pairs = [key for key in world.tags if key[2] != STEADY]
    random.Random(7).shuffle(pairs)
    made: list[Ended] = []
    for account, network, resource in pairs:
        world.api.mutate(
            "resourceAccessRemove",
            resourceId=("ID!", world.resources[network, resource]), principalIds=("[ID!]!", [world.accounts[account]]),
        )  # fmt: skip
        made.append(Ended(len(made) + 1, set(world.tags[account, network, resource])))
        if len(made) % TOLD_EVERY == 0:
            say(f"{len(made)} of {len(pairs)} cuts made")
    return made


def cut_at_once(world: World, number: int) -> Ended:
    """Delete the first account: all its flows that are left end by one cut."""
    world.api.mutate("serviceAccountDelete", id=("ID!", world.accounts[0]))
    tags = [tag for (account, _, resource), listed in world.tags.items() if (account, resource) == (0, STEADY) for tag in listed]
    return Ended(number, set(tags))


def receipts(world: World, cuts: list[Ended]) -> list[dict[str, Any]]:
    """Return the cuts with all their receipts, as the controller gives them."""
    found = []
    until = time.monotonic() + SETTLE_SECONDS
    for cut in cuts:
        while True:
            shown = world.api.get(f"{CUTS_PATH}/{cut.number}")
            if all(receipt["state"] == "answered" for receipt in shown["receipts"]) or time.monotonic() > until:
                break
            time.sleep(0.05)
        cut.began_ms = shown["created_at_ms"]
        found.append(shown)
    return found


def disagreements(world: World, cuts: list[Ended], shown: list[dict[str, Any]], seen: dict[str, float]) -> list[str]:
    """Return where receipts and the targets differ; each flow by (account, host)."""
    of_tag = {
        tag: (world.uuids[account], address(network, resource))
        for (account, network, resource), tags in world.tags.items()
        for tag in tags
    }
    wrong = []
    for cut, one in zip(cuts, shown, strict=True):
        told = Counter((flow["service_account"], flow["host"]) for receipt in one["receipts"] for flow in receipt["flows"])
        ended = Counter(of_tag[tag] for tag in cut.tags if tag in seen)
        if told != ended or len(cut.tags & set(seen)) != len(cut.tags):
            wrong.append(f"cut {cut.number}: receipts name {told.total()} flows, {ended.total()} of {len(cut.tags)} have ended")
        pending = [receipt["connector"] for receipt in one["receipts"] if receipt["state"] != "answered"]
        if pending:
            wrong.append(f"cut {cut.number}: no answer from {', '.join(pending)}")
    if strangers := set(seen) - set().union(*(cut.tags for cut in cuts)):
        wrong.append(f"{len(strangers)} flows ended that no cut was about")
    return wrong


def living(world: World) -> set[str]:
    """Return the flows that echo."""
    found: set[str] = set()
    for holder in world.holders:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write("echo\n")
        holder.stdin.flush()
    for holder in world.holders:
        assert holder.stdout is not None
        found |= set(json.loads(holder.stdout.readline() or "[]"))
    return found


def main() -> None:
    """Measure and print; exit with 1 where receipts and targets differ."""
    parser = options("cut", __doc__ or "", "--quick")
    parser.add_argument("--quick", action="store_true", help="90 cuts with 900 flows over 3 connectors")
    given = parser.parse_args()
    size = QUICK if given.quick else FULL
    with tempfile.TemporaryDirectory() as folder, Deployment(Path(folder)) as deployment:
        world = World(size, deployment, AdminApiClient(deployment.url, "", str(deployment.authority)))
        try:
            say(f"bringing up {size.connectors} connectors and {size.flows} flows")
            prepare(world)
            say(f"making {size.cuts} cuts of one flow each, then one of many")
            began = time.monotonic()
            cuts = cut_one_by_one(world)
            pace = time.monotonic() - began
            all_at_once = cut_at_once(world, len(cuts) + 1)
            say("holding receipts against what the targets saw, and asking all other flows for an echo")
            shown = receipts(world, [*cuts, all_at_once])
            alive = living(world)
            seen = world.seen()
        finally:
            for holder in world.holders:
                holder.kill()
                holder.wait()
    wrong = disagreements(world, [*cuts, all_at_once], shown, seen)
    everything = {tag for tags in world.tags.values() for tag in tags}
    lost = everything - alive - set().union(*(cut.tags for cut in cuts), all_at_once.tags)
    if lost:
        wrong.append(f"{len(lost)} flows do not echo that no cut was about")
    times = sorted((seen[tag] * 1000 - cut.began_ms) for cut in cuts for tag in cut.tags if tag in seen)
    at_once = sorted(seen[tag] * 1000 - all_at_once.began_ms for tag in all_at_once.tags if tag in seen)
    own = [receipt["took_ms"] for one in shown[:-1] for receipt in one["receipts"] if receipt["flows"]]
    found: dict[str, Any] = {
        "flows": len(everything),
        "connectors": size.connectors,
        "cuts": len(cuts),
        "seconds": round(pace, 1),
        "end_at_the_target_ms": {name: round(percentile(times, share), 1) for name, share in _SHARES},
        "at_the_connector_ms": {name: round(percentile(own, share), 2) for name, share in _SHARES},
        "flows_of_the_last_cut": len(all_at_once.tags),
        "end_of_the_last_cut_ms": {name: round(percentile(at_once, share), 1) for name, share in _SHARES},
        "in_receipts": sum(len(receipt["flows"]) for one in shown for receipt in one["receipts"]),
        "ended_at_targets": len(seen),
        "echoing": len(alive),
        "wrong": wrong,
    }
    print(json.dumps(found, indent=2) if given.json else _as_text(found))
    if wrong:
        raise SystemExit(1)


def _as_text(found: dict[str, Any]) -> str:
    def shares(name: str) -> str:
        return ", ".join(f"{share} {value} ms" for share, value in found[name].items())

    return "\n".join(
        [
            f"klinket cut, Python {platform.python_version()}, {found['flows']} flows, {found['connectors']} connectors",
            f"{found['cuts']} cuts of one flow each in {found['seconds']} s, from commit to the end at the target:",
            f"  {shares('end_at_the_target_ms')}",
            f"  at the connector alone, as its receipts say: {shares('at_the_connector_ms')}",
            f"one cut of {found['flows_of_the_last_cut']} flows: {shares('end_of_the_last_cut_ms')}",
            f"receipts name {found['in_receipts']} flows; the targets saw {found['ended_at_targets']} end; "
            f"{found['echoing']} others echo",
            *[f"WRONG: {line}" for line in found["wrong"]],
        ]
    )


_SHARES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))

if __name__ == "__main__":
    main()
