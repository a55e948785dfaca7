"""`--dry-run`: the command says what it would cut, and changes nothing."""

from __future__ import annotations

import pytest

from klinket.controller.app import flow_events
from klinket.wire.control import FlowEvent
from tests.unit.cli.conftest import Admin

pytestmark = pytest.mark.sqlite_only


@pytest.fixture
async def carrying(admin: Admin) -> Admin:
    """Two live flows of `ci` at office-1, to ports 443 and 5432 of Database."""
    running = admin.running
    network = await running.add_network()
    connector = await running.add_connector(network, "office-1")
    await running.enrol(await running.connector_tokens(connector))
    _, file = await running.add_key(await running.add_account(resources=[await running.add_resource(network)]))
    flows = [
        FlowEvent(
            event="established", flow=f"flow-{port}", time_ms=round(running.clock() * 1000), session="s", key=file.key_id,
            service_account=file.service_account_id, resource=1, host="db.internal", port=port, protocol="tcp",
        )
        for port in (443, 5432)
    ]  # fmt: skip
    await running.write(lambda tx: flow_events.keep(tx, 1, 1, flows))
    return admin


COMMANDS = {
    "service key revoke ci runner": 2,
    "service delete ci": 2,
    "service ungrant ci Database": 2,
    "resource ungrant Database --service ci": 2,
    "resource update Database --tcp 443": 1,
    "resource disable Database": 2,
    "resource delete Database": 2,
    "network update office --inactive": 2,
    "connector delete office-1": 2,
    "connector tokens office-1": 2,
    "resource update Database --name Renamed": 0,
}


@pytest.mark.parametrize("command", COMMANDS)
async def test_every_command_that_ends_access_tells_what_it_would_cut(carrying: Admin, command: str) -> None:
    before = await carrying.running.read(lambda tx: (tx.head(), tx.audit.find()))
    told = await carrying.json(*command.split(), "--dry-run")
    assert await carrying.running.read(lambda tx: (tx.head(), tx.audit.find())) == before
    assert (told["dryRun"], told["flows"], len(told["listed"])) == (True, COMMANDS[command], COMMANDS[command])
    assert [connector["flows"] for cut in told["cuts"] for connector in cut["connectors"]] == [COMMANDS[command]] * len(
        told["cuts"]
    )


async def test_people_are_told_in_a_sentence_and_a_table(carrying: Admin) -> None:
    told = await carrying.ok("resource", "update", "Database", "--tcp", "443", "--dry-run")
    assert "nothing was changed: 1 live flow would end at once" in told
    assert "Database, for everybody" in told
    assert "office-1" in told


async def test_a_dry_run_does_not_wait(carrying: Admin) -> None:
    code, text = await carrying.fails("service", "delete", "ci", "--dry-run", "--wait")
    assert (code, "exclude each other" in text) == (2, True)


async def test_what_cannot_be_done_fails_in_a_dry_run_as_well(carrying: Admin) -> None:
    _, text = await carrying.fails("network", "delete", "office", "--dry-run")
    assert "still has" in text
