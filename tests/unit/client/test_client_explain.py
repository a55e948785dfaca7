"""`klinket explain` against a real controller, relay and connector: the first step that fails, what was seen, what to do."""

from __future__ import annotations

import asyncio

import pytest

from examples.deployment import free_port
from klinket.client.explain import Explanation, destination_of, explain
from klinket.domain.errors import ServiceKeyInvalid
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.net.relay_path import RelayPath, RelayUnavailable
from klinket.wire.key_file import KeyFile
from tests.eventually import PATIENCE, eventually
from tests.unit.connector.test_connector_dial import closed_port
from tests.unit.whole import Whole

TCP, UDP = TransportProtocol.TCP, TransportProtocol.UDP
ALL = ["key", "account", "resource", "grant", "path", "connector", "dns", "dial"]


async def ask(whole: Whole, destination: Destination) -> Explanation:
    return await explain(lambda: whole.key_file, destination, PATIENCE)


def ended(found: Explanation) -> tuple[str, str | None]:
    """Return the step that failed, which is the last, and its code word."""
    assert found.failed is found.steps[-1]
    assert [step.name.value for step in found.steps if step.ok] == ALL[: len(found.steps) - 1]
    return found.failed.name.value, found.failed.code


async def test_every_step_of_what_is_reached_is_told_with_its_evidence(whole: Whole) -> None:
    found = await ask(whole, whole.resource.destination)
    assert found.failed is None
    assert found.resource == "Echo"
    assert [step.name.value for step in found.steps] == ALL
    told = {step.name.value: (step.text, step.evidence) for step in found.steps}
    assert whole.key_file.key_id in told["key"][0]
    assert "1 resource granted" in told["account"][0]
    assert told["path"][0] == "1 of 1 relays can be reached"
    assert f"relay 127.0.0.1:{whole.relay_port}: reached in" in told["path"][1][0]
    assert told["connector"][0] == "connector office-1 has answered and taken the grant"
    assert told["dns"][0] == "127.0.0.1 is an address: nothing to look up"
    async with asyncio.timeout(PATIENCE):
        while [row.ended_at_ms for row in await whole.sessions()] == [None]:  # it leaves no session behind
            await asyncio.sleep(0.02)


async def test_what_refuses_ends_at_the_dial(whole: Whole) -> None:
    found = await ask(whole, Destination("127.0.0.1", closed_port(), TCP))
    assert ended(found) == ("dial", "refused")
    assert found.steps[-1].evidence[0].startswith("connector office-1 says refused after ")
    assert found.steps[-1].hint is not None


async def test_datagrams_are_told_as_what_they_are(whole: Whole) -> None:
    found = await ask(whole, Destination("127.0.0.1", closed_port(), UDP))
    assert found.failed is None
    assert "only a program can tell" in found.steps[-1].text


async def test_a_name_nobody_knows_ends_at_dns(whole: Whole) -> None:
    resource = await whole.controller.add_resource(whole.office, "Gone", "nobody-has-this.invalid")
    await whole.controller.grant(whole.account, resource)
    assert ended(await ask(whole, Destination("nobody-has-this.invalid", 80, TCP))) == ("dns", "name-not-found")


async def test_a_name_that_leads_where_it_must_not_ends_at_dns(whole: Whole) -> None:
    resource = await whole.controller.add_resource(whole.office, "Inside", "localhost")
    await whole.controller.grant(whole.account, resource)
    assert ended(await ask(whole, Destination("localhost", 80, TCP))) == ("dns", "address-forbidden")


async def test_what_is_not_granted_ends_at_the_resource_and_names_what_is(whole: Whole) -> None:
    found = await ask(whole, Destination("other.internal", 80, TCP))
    assert ended(found) == ("resource", "not-granted")
    assert found.steps[-1].evidence == ("granted: 'Echo' (127.0.0.1)",)


async def test_a_connector_that_is_away_ends_at_the_connector(whole: Whole) -> None:
    await whole.end_connector()
    await eventually(lambda: not whole.controller.peers.online())
    found = await ask(whole, whole.resource.destination)
    assert found.failed is not None
    assert (found.failed.name.value, found.failed.code) == ("connector", "no-connector")
    assert found.failed.evidence == ("connector office-1: not online",)


async def test_a_relay_that_cannot_be_reached_ends_at_the_path(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(self: RelayPath) -> None:
        raise RelayUnavailable(f"cannot reach relay {self.relay.address}: no route")

    monkeypatch.setattr(RelayPath, "_dial", nobody)
    found = await ask(whole, whole.resource.destination)
    assert ended(found) == ("path", "no-connector")
    relay = f"relay 127.0.0.1:{whole.relay_port}"
    assert found.steps[-1].evidence == (f"{relay}: cannot reach {relay}: no route",)


async def test_a_key_that_was_revoked_ends_at_the_key(whole: Whole) -> None:
    await whole.controller.revoke_key(whole.key)
    found = await ask(whole, whole.resource.destination)
    assert ended(found) == ("key", "service-key-revoked")
    assert found.steps[-1].evidence[-1] == f"so says {whole.key_file.network}"


async def test_a_controller_that_does_not_answer_ends_at_the_account(whole: Whole) -> None:
    away = KeyFile(f"127.0.0.1:{free_port()}", whole.key_file.service_account_id, "key-1", whole.key_file.private_key_pem)
    found = await explain(lambda: away, whole.resource.destination, PATIENCE)
    assert ended(found) == ("account", "controller-unreachable")


async def test_a_key_that_is_none_ends_at_the_key() -> None:
    def load() -> KeyFile:
        raise ServiceKeyInvalid("key file: it is empty")

    found = await explain(load, destination_of("DB.internal", 80, TCP), PATIENCE)
    assert found.destination.host == "db.internal"
    assert ended(found) == ("key", "service-key-invalid")


async def test_time_that_is_up_ends_it(whole: Whole) -> None:
    found = await explain(lambda: whole.key_file, whole.resource.destination, 0.0)
    assert found.failed is not None
    assert found.failed.code == FlowFailure.TIMED_OUT.value
