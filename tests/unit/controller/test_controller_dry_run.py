"""A dry run makes the change and undoes it: it tells what the change then cuts, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from klinket.controller.app import (
    access,
    connectors,
    cuts,
    flow_events,
    rehearsal,
    remote_networks,
    resources,
    service_accounts,
    service_keys,
)
from klinket.controller.app.ports import Transaction
from klinket.controller.graphql import deadline
from klinket.domain.audit import SYSTEM
from klinket.wire.control import FlowEvent
from klinket.wire.paths import DRY_RUN, EXTENSION_PATH, GRAPHQL_PATH
from tests.unit.controller.running import Running

#: A narrowing change: its mutation with the ids of `World`, and which of the flows end by it.
CHANGES: dict[str, tuple[str, set[str]]] = {
    "revoked key": ('serviceAccountKeyRevoke(id: "{key}")', {"web", "db", "udp"}),
    "deleted account": ('serviceAccountDelete(id: "{account}")', {"web", "db", "udp"}),
    "ended session": ('sessionEnd(id: "session-1")', {"web"}),
    "access taken away": ('resourceAccessRemove(resourceId: "{resource}", principalIds: ["{account}"])', {"web", "db", "udp"}),
    "unassigned from the account": (
        'serviceAccountUpdate(id: "{account}", removedResourceIds: ["{resource}"])',
        {"web", "db", "udp"},
    ),
    "narrower ports": (
        'resourceUpdate(id: "{resource}", protocols: {{allowIcmp: false, udp: {{policy: ALLOW_ALL}}, '
        "tcp: {{policy: RESTRICTED, ports: [{{start: 443, end: 443}}]}}}})",
        {"db", "others"},
    ),
    "no datagrams": (
        'resourceUpdate(id: "{resource}", protocols: {{allowIcmp: false, tcp: {{policy: ALLOW_ALL}}, '
        "udp: {{policy: RESTRICTED, ports: []}}}})",
        {"udp"},
    ),
    "another address": ('resourceUpdate(id: "{resource}", address: "other.internal")', {"web", "db", "udp", "others"}),
    "another network": ('resourceUpdate(id: "{resource}", remoteNetworkId: "{branch}")', {"web", "db", "udp", "others"}),
    "disabled resource": ('resourceUpdate(id: "{resource}", isActive: false)', {"web", "db", "udp", "others"}),
    "deleted resource": ('resourceDelete(id: "{resource}")', {"web", "db", "udp", "others"}),
    "disabled network": ('remoteNetworkUpdate(id: "{network}", isActive: false)', {"web", "db", "udp", "others", "wiki"}),
    "deleted connector": ('connectorDelete(id: "{connector}")', {"web", "db", "udp", "others", "wiki"}),
    "new tokens of a connector": ('connectorGenerateTokens(connectorId: "{connector}")', {"web", "db", "udp", "others", "wiki"}),
    "a wider address": ('resourceUpdate(id: "{resource}", address: "*.internal")', set()),
    "more ports": ('resourceUpdate(id: "{resource}", protocols: null)', set()),
    "another name": ('resourceUpdate(id: "{resource}", name: "Renamed")', set()),
}


class World:
    """One account with a key and five flows of its own and of others at one connector, as that has told of them."""

    def __init__(self, controller: Running) -> None:
        self.controller = controller
        self.ids: dict[str, str] = {}

    async def fill(self) -> None:
        running = self.controller
        network, branch = await running.add_network(), await running.add_network("branch")
        connector = await running.add_connector(network, "office-1")
        await running.add_connector(branch, "branch-1")
        await running.enrol(await running.connector_tokens(connector))
        resource = await running.add_resource(network)
        wiki = await running.add_resource(network, "Wiki", "wiki.internal")
        account, other = await running.add_account(resources=[resource]), await running.add_account("other", [resource, wiki])
        key, file = await running.add_key(account)
        _, others = await running.add_key(other)
        self.ids = {
            "network": network, "branch": branch, "connector": connector, "resource": resource, "account": account, "key": key,
        }  # fmt: skip
        names = {row.name: row.id for row in await running.read(lambda tx: tx.resources.find())}
        await running.write(self._sessions)

        def flow(name: str, session: int, of: Any, port: int, protocol: str = "tcp", resource: str = "Database") -> FlowEvent:
            host = {"Database": "db.internal", "Wiki": "wiki.internal"}[resource]
            return FlowEvent(
                event="established", flow=name, time_ms=round(running.clock() * 1000), session=f"session-{session}",
                service_account=of.service_account_id, key=of.key_id, resource=names[resource], host=host, port=port,
                protocol=protocol, resource_ip="10.0.0.5",
            )  # fmt: skip

        told = [
            flow("web", 1, file, 443), flow("db", 2, file, 5432), flow("udp", 2, file, 53, "udp"),
            flow("others", 3, others, 5432), flow("wiki", 3, others, 443, resource="Wiki"),
        ]  # fmt: skip
        await running.write(lambda tx: flow_events.keep(tx, 1, 1, told))

    def _sessions(self, tx: Any) -> None:
        accounts = {row.name: row.id for row in tx.service_accounts.find()}
        keys = {row.service_account_id: row.id for row in tx.service_keys.find()}
        for number, name in ((1, "ci"), (2, "ci"), (3, "other")):
            account = accounts[name]
            tx.sessions.add(
                id=f"session-{number}", service_account_id=account, service_key_id=keys[account], jkt="j", hostname="h",
                address="192.0.2.1", client_version="0.1.0", ended_at_ms=None, end_reason=None,
            )  # fmt: skip

    async def asked(self, mutation: str, *, dry_run: bool, scopes: tuple[str, ...] | None = None) -> dict[str, Any]:
        path = EXTENSION_PATH if mutation.startswith("sessionEnd") else GRAPHQL_PATH
        body = {"query": f"mutation {{ {mutation.format(**self.ids)} {{ ok error }} }}"}
        token = self.controller.tokens[scopes or ("read", "write", "provision")]
        answer = await self.controller.post(path + (DRY_RUN if dry_run else ""), body, headers={"X-API-KEY": token})
        return {"status": answer.status_code, **answer.json()}


@pytest.fixture
async def world(controller: Running) -> World:
    world = World(controller)
    await world.fill()
    return world


async def everything(controller: Running) -> Any:
    """Return the head, the cuts, the audit, and what the inventory holds."""
    return await controller.read(
        lambda tx: (
            tx.head(), tx.cuts.find(), tx.cut_receipts.find(), tx.audit.find(), tx.resources.find(), tx.access.find(),
            tx.service_accounts.find(), tx.service_keys.find(), tx.sessions.find(), tx.connectors.find(),
            tx.remote_networks.find(),
        )
    )  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.sqlite_only
async def test_a_dry_run_tells_the_flows_that_the_change_then_cuts_and_changes_nothing(world: World, name: str) -> None:
    mutation, ends = CHANGES[name]
    before = await everything(world.controller)
    told = await world.asked(mutation, dry_run=True)
    assert await everything(world.controller) == before
    (payload,) = told["data"].values()
    assert payload == {"ok": True, "error": None}
    foreseen = told["extensions"]["wouldCut"]
    assert {flow["flow"] for flow in foreseen["listed"]} == ends
    assert foreseen["flows"] == len(ends)

    done = await world.asked(mutation, dry_run=False)
    assert "extensions" not in done
    ordered = await world.controller.read(lambda tx: tx.cuts.find())
    # The same cuts, told to the same connectors.
    assert [cut["kind"].lower() for cut in foreseen["cuts"]] == [row.scope.split(" ")[0] for row in ordered]
    concerned = [sorted(one["connector"] for one in cut["connectors"]) for cut in foreseen["cuts"]]
    receipts = await world.controller.read(lambda tx: [tx.cut_receipts.find(cut_id=row.id) for row in ordered])
    assert concerned == [sorted(receipt.connector_name for receipt in found) for found in receipts]


async def test_what_is_refused_is_refused_in_a_dry_run_as_well(world: World) -> None:
    told = await world.asked('remoteNetworkDelete(id: "{network}")', dry_run=True)
    assert told["data"]["remoteNetworkDelete"]["ok"] is False
    assert "still has" in told["data"]["remoteNetworkDelete"]["error"]
    assert told["extensions"]["wouldCut"] == {"flows": 0, "cuts": [], "listed": []}


async def test_a_dry_run_needs_the_scope_of_the_change(world: World) -> None:
    refused = await world.asked('resourceDelete(id: "{resource}")', dry_run=True, scopes=("read",))
    assert refused["status"] == 403


async def test_a_flow_that_two_cuts_strike_counts_once(world: World) -> None:
    both = 'serviceAccountKeyRevoke(id: "{key}") {{ ok error }} second: serviceAccountDelete(id: "{account}")'
    foreseen = (await world.asked(both, dry_run=True))["extensions"]["wouldCut"]
    assert [cut["kind"] for cut in foreseen["cuts"]] == ["KEY", "ACCOUNT"]
    assert foreseen["flows"] == 3
    assert sum(one["flows"] for cut in foreseen["cuts"] for one in cut["connectors"]) == 6


async def test_what_a_dry_run_reads_ends_at_the_deadline(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rehearse = rehearsal.rehearse

    def then_no_time_is_left(tx: Transaction, change: Callable[[Transaction], Any]) -> Any:
        found = rehearse(tx, change)
        monkeypatch.setattr(deadline, "MAX_EXECUTE_SECONDS", 0.0)
        return found

    monkeypatch.setattr(rehearsal, "rehearse", then_no_time_is_left)
    refused = await world.asked('resourceDelete(id: "{resource}")', dry_run=True)
    assert (refused["status"], refused["errors"][0]["extensions"]["code"]) == (503, "took-too-long")


async def test_peers_hear_nothing_of_a_dry_run(world: World) -> None:
    heard: list[Any] = []
    world.controller.store.on_commit(heard.append)
    await world.asked('resourceDelete(id: "{resource}")', dry_run=True)
    assert heard == []
    await world.asked('resourceDelete(id: "{resource}")', dry_run=False)
    assert len(heard) == 1


async def test_a_query_on_the_path_of_dry_runs_is_answered_as_ever(world: World) -> None:
    body = {"query": "{ remoteNetworks { edges { node { name } } } }"}
    headers = {"X-API-KEY": world.controller.tokens[("read",)]}
    answer = await world.controller.post(GRAPHQL_PATH + DRY_RUN, body, headers=headers)
    assert "extensions" not in answer.json()
    assert len(answer.json()["data"]["remoteNetworks"]["edges"]) == 2


@pytest.mark.parametrize("what", ["key", "access"])
@pytest.mark.sqlite_only
async def test_what_ends_by_itself_ends_at_its_instant_with_a_cut_of_its_scope(world: World, what: str) -> None:
    table = {"key": "service_keys", "access": "access"}[what]
    ends = round(world.controller.clock() * 1000) + 1_000
    await world.controller.write(lambda tx: getattr(tx, table).change(1, expires_at_ms=ends))
    end = {"key": service_keys.end_expired, "access": access.end_expired}[what]
    assert await world.controller.write(end) == 0
    world.controller.offset += 2.0
    assert await world.controller.write(end) == 1
    (cut,) = await world.controller.read(cuts.receipts)
    assert cut["scope"].startswith(what)
    assert {receipt["connector"] for receipt in cut["receipts"]} == {"office-1"}
    assert cut["actor"]["type"] == SYSTEM.type.value


@pytest.mark.sqlite_only
async def test_the_numbers_that_the_console_confirms_with_are_those_of_the_use_cases(world: World) -> None:
    """Its pages count live flows by one column each; the change itself says the same."""
    running = world.controller

    def both(tx: Transaction) -> list[tuple[int, int]]:
        resource = next(row for row in tx.resources.find() if row.name == "Database")
        account = next(row for row in tx.service_accounts.find() if row.name == "ci")
        key = tx.service_keys.find(service_account_id=account.id)[0]
        connector, network = tx.connectors.find(name="office-1")[0], tx.remote_networks.find(name="office")[0]
        changes: list[tuple[dict[str, Any], Callable[[Transaction], object]]] = [
            ({"resource_id": resource.id}, lambda tx: resources.update(tx, SYSTEM, resource, {"is_active": False})),
            ({"resource_id": resource.id}, lambda tx: resources.delete(tx, SYSTEM, resource)),
            (
                {"resource_id": resource.id, "service_account_id": account.id},
                lambda tx: access.revoke(tx, SYSTEM, resource, account),
            ),
            ({"service_account_id": account.id}, lambda tx: service_accounts.delete(tx, SYSTEM, account)),
            ({"service_key_id": key.id}, lambda tx: service_keys.revoke(tx, SYSTEM, key)),
            ({"connector_id": connector.id}, lambda tx: connectors.delete(tx, SYSTEM, connector)),
            (
                {"connector_id": connector.id},
                lambda tx: remote_networks.update(tx, SYSTEM, network, name=None, location=None, is_active=False),
            ),
        ]
        return [(rehearsal.count(tx, change), tx.live_flows.count(**shown)) for shown, change in changes]

    found = await running.write(both)
    assert [counted for counted, _ in found] == [shown for _, shown in found]
    assert all(counted > 0 for counted, _ in found)
