"""Security policies do not apply to services (facts §1, §8): a valid key is the only condition. A group keeps its own policy."""

from __future__ import annotations

from typing import Any

from klinket.controller.app import security_policies
from klinket.controller.graphql.global_id import from_global_id, to_global_id
from klinket.controller.trust import KeyPurpose
from klinket.domain.audit import SYSTEM
from klinket.domain.identifiers import RemoteNetworkId
from klinket.wire import control, signing
from klinket.wire.grant_token import verify_grant
from klinket.wire.key_file import LOGIN_PATH
from tests.unit.controller.running import Running

EDGES = "access { edges { node { __typename ... on Group { id } } securityPolicy { id } accessPolicy { mode } approvalMode } }"


def number(id: str) -> int:
    parsed = from_global_id(id)
    assert parsed is not None
    return parsed[1]


def granted(live: Running, configuration: control.ClientConfiguration, network: str) -> list[str]:
    """Return the names of the resources of the verified grant for a remote network, as its connector reads it."""
    keys = live.trust.keys[KeyPurpose.GRANT]
    (grant,) = [one for one in configuration.grants if one.remote_network == number(network)]
    claims = verify_grant(
        grant.token, keys, network="acme", remote_network=RemoteNetworkId(grant.remote_network), now=live.clock()
    )
    return [resource.name for resource in claims.resources]


async def policy(live: Running, name: str) -> str:
    return to_global_id("SecurityPolicy", await live.write(lambda tx: security_policies.create(tx, SYSTEM, name=name).id))


async def group_edges(live: Running, resource: str) -> list[dict[str, Any]]:
    found = (await live.query(f'{{ resource(id: "{resource}") {{ securityPolicy {{ id }} {EDGES} }} }}'))["resource"]
    return [edge for edge in found["access"]["edges"] if edge["node"]["__typename"] == "Group"]


async def test_a_service_reaches_a_resource_of_the_strictest_policy_and_a_group_keeps_its_own(live: Running) -> None:
    """Everything that could ask something of a user is set: none of it is asked of a service, before or while it is connected."""
    strict, own = await policy(live, "Strictest"), await policy(live, "Own")
    network = await live.add_network()
    connector = await live.enrol(await live.connector_tokens(await live.add_connector(network)))
    resource = await live.add_resource(network)
    made = await live.change('mutation { groupCreate(name: "ops") { ok error entity { id } } }')
    group = made["entity"]["id"]
    strictest = (
        f'securityPolicyId: "{strict}", approvalMode: MANUAL, accessPolicy: {{mode: ACCESS_REQUEST, durationSeconds: 3600}}'
    )
    await live.change(f'mutation {{ resourceUpdate(id: "{resource}", {strictest}) {{ ok error }} }}')
    account = await live.add_account()
    for principal, settings in (
        (group, f', securityPolicyId: "{own}", approvalMode: AUTOMATIC'),
        (account, f', securityPolicyId: "{strict}"'),
    ):
        access = f'access: [{{principalId: "{principal}"{settings}}}]'
        await live.change(f'mutation {{ resourceAccessAdd(resourceId: "{resource}", {access}) {{ ok error }} }}')
    kept = [
        {
            "node": {"__typename": "Group", "id": group},
            "securityPolicy": {"id": own},
            "accessPolicy": None,
            "approvalMode": "AUTOMATIC",
        }
    ]
    assert await group_edges(live, resource) == kept

    session = await live.log_in((await live.add_key(account))[1])
    async with live.attached(connector), live.attached(session) as client:
        configuration = await client.take(control.ClientConfiguration)
        assert [entry.name for entry in configuration.resources] == ["Database"]
        assert [entry.id for entry in configuration.connectors] == [connector.id]
        assert granted(live, configuration, network) == ["Database"]

        other = await policy(live, "Stricter still")
        await live.change(
            f'mutation {{ resourceUpdate(id: "{resource}", securityPolicyId: "{other}", name: "Orders") {{ ok error }} }}'
        )
        while granted(live, configuration, network) != ["Orders"]:
            configuration = await client.wait_for(control.ClientConfiguration)
        assert await client.is_alive()
        assert await group_edges(live, resource) == kept

        await live.change(f'mutation {{ resourceUpdate(id: "{resource}", securityPolicyId: null) {{ ok error }} }}')
        assert await group_edges(live, resource) == kept
        assert await client.is_alive()


async def test_without_a_valid_key_no_policy_lets_a_service_in(live: Running) -> None:
    network = await live.add_network()
    account = await live.add_account(resources=[await live.add_resource(network)])
    key, file = await live.add_key(account)
    session = await live.log_in(file)
    async with live.attached(session) as client:
        assert [entry.name for entry in (await client.take(control.ClientConfiguration)).resources] == ["Database"]
        await live.revoke_key(key)
        assert await client.closed() == 1008
    answer = await live.post(LOGIN_PATH, live.login_body(file, signing.generate_private_key()))
    assert (answer.status_code, answer.json()["code"]) == (401, "service-key-revoked")
