"""Remote networks, connectors and resources over the Admin API: what was written reads back; mistakes have known words."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from klinket.controller.app import connectors
from klinket.controller.graphql.global_id import to_global_id
from klinket.wire.version import CONNECTOR_VERSION
from tests.unit.controller.running import Running

NOWHERE = to_global_id("RemoteNetwork", 999)
NETWORK = "id name location networkType isActive"
CONNECTOR = (
    "id name state hasStatusNotificationsEnabled hostname version publicIP privateIPs lastHeartbeatAt remoteNetwork { id name }"
)
RESOURCE = (
    "id name address { type value } alias isActive isVisible isBrowserShortcutEnabled routingMode approvalMode "
    "accessPolicy { mode durationSeconds } usageBasedAutolockDurationDays securityPolicy { id } tags { key value } "
    "protocols { allowIcmp tcp { policy ports { start end } } udp { policy ports { start end } } } remoteNetwork { id }"
)
ALL_PORTS = {"policy": "ALLOW_ALL", "ports": []}
PRISTINE = {
    "name": "Database",
    "address": {"type": "DNS", "value": "db.internal"},
    "alias": None,
    "isActive": True,
    "isVisible": True,
    "isBrowserShortcutEnabled": False,
    "routingMode": "THROUGH_TWINGATE",
    "approvalMode": "MANUAL",
    "accessPolicy": {"mode": "MANUAL", "durationSeconds": None},
    "usageBasedAutolockDurationDays": None,
    "securityPolicy": None,
    "tags": [],
    "protocols": {"allowIcmp": True, "tcp": ALL_PORTS, "udp": ALL_PORTS},
}


async def network_of(controller: Running, id: str) -> Any:
    return (await controller.query(f"query ($i: ID) {{ remoteNetwork(id: $i) {{ {NETWORK} }} }}", i=id))["remoteNetwork"]


async def connector_of(controller: Running, id: str) -> Any:
    return (await controller.query(f"query ($i: ID!) {{ connector(id: $i) {{ {CONNECTOR} }} }}", i=id))["connector"]


async def resource_of(controller: Running, id: str) -> Any:
    query = f"query ($i: ID!) {{ resource(id: $i) {{ ... on NetworkResource {{ {RESOURCE} }} }} }}"
    return (await controller.query(query, i=id))["resource"]


async def update(controller: Running, field: str, id: str, arguments: str) -> dict[str, Any]:
    return await controller.try_change(f'mutation {{ {field}(id: "{id}", {arguments}) {{ ok error entity {{ id }} }} }}')


async def updated(controller: Running, field: str, id: str, arguments: str) -> None:
    assert await update(controller, field, id, arguments) == {"ok": True, "error": None, "entity": {"id": id}}


async def refused(controller: Running, field: str, id: str, arguments: str, told: str) -> None:
    answer = await update(controller, field, id, arguments)
    assert (answer["ok"], answer["entity"]) == (False, None)
    assert told in answer["error"]


# ---- remote networks


async def test_a_remote_network_has_the_contracts_defaults_also_for_explicit_nulls(controller: Running) -> None:
    for name, more in (("one", ""), ("two", ", isActive: null, location: null, networkType: null")):
        payload = await controller.change(
            f'mutation {{ remoteNetworkCreate(name: "{name}"{more}) {{ ok error entity {{ {NETWORK} }} }} }}'
        )
        expected = {"name": name, "location": "OTHER", "networkType": "REGULAR", "isActive": True}
        assert payload["entity"] == {"id": payload["entity"]["id"], **expected}
        assert await network_of(controller, payload["entity"]["id"]) == payload["entity"]


async def test_a_remote_network_changes_where_something_is_given(controller: Running) -> None:
    id = await controller.add_network("office")
    await updated(controller, "remoteNetworkUpdate", id, "name: null, isActive: null, location: null")
    assert (await network_of(controller, id))["name"] == "office"
    await updated(controller, "remoteNetworkUpdate", id, 'name: " head office ", location: AWS, isActive: false')
    assert await network_of(controller, id) == {
        "id": id,
        "name": "head office",
        "location": "AWS",
        "networkType": "REGULAR",
        "isActive": False,
    }


async def test_a_remote_network_is_found_by_name_and_an_empty_id_is_none(controller: Running) -> None:
    id = await controller.add_network("office")
    for arguments in ('name: "office"', 'id: "", name: "office"', 'id: null, name: "office"', f'id: "{id}", name: "other"'):
        assert await controller.query(f"{{ remoteNetwork({arguments}) {{ id }} }}") == {"remoteNetwork": {"id": id}}
    for arguments in ('name: "Office"', f'id: "{NOWHERE}", name: "office"', 'id: ""'):
        assert await controller.query(f"{{ remoteNetwork({arguments}) {{ id }} }}") == {"remoteNetwork": None}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "name must not be empty"),
        ("office", "a remote network with this name exists already"),
        ("a\\u0007b", "printable"),
        ("x" * 256, "the limit is 255"),
    ],
)
async def test_a_bad_network_name_is_refused_and_nothing_is_made(controller: Running, name: str, told: str) -> None:
    id = await controller.add_network("office")
    other = await controller.add_network("other")
    payload = await controller.try_change(f'mutation {{ remoteNetworkCreate(name: "{name}") {{ ok error entity {{ id }} }} }}')
    assert (payload["ok"], payload["entity"]) == (False, None)
    assert told in payload["error"]
    await refused(controller, "remoteNetworkUpdate", other, f'name: "{name}"', told)
    found = await controller.query("{ remoteNetworks { edges { node { id name } } } }")
    assert [edge["node"] for edge in found["remoteNetworks"]["edges"]] == [
        {"id": id, "name": "office"},
        {"id": other, "name": "other"},
    ]


async def test_only_an_empty_network_is_deleted_and_its_id_never_comes_back(controller: Running) -> None:
    id = await controller.add_network()
    connector = await controller.add_connector(id)
    resource = await controller.add_resource(id)
    delete = f'mutation {{ remoteNetworkDelete(id: "{id}") {{ ok error }} }}'
    payload = await controller.try_change(delete)
    assert payload["ok"] is False
    assert "1 connectors and 1 resources" in payload["error"]
    await controller.change(f'mutation {{ connectorDelete(id: "{connector}") {{ ok error }} }}')
    await controller.change(f'mutation {{ resourceDelete(id: "{resource}") {{ ok error }} }}')
    await controller.change(delete)
    assert await network_of(controller, id) is None
    assert await controller.try_change(delete) == {"ok": False, "error": f"Remote network with id '{id}' does not exist"}
    assert await controller.add_network() != id


# ---- connectors


async def test_a_connector_before_and_after_its_first_report(controller: Running) -> None:
    network = await controller.add_network()
    id = await controller.add_connector(network, "office-1")
    silent = {
        "id": id,
        "name": "office-1",
        "state": "DEAD_NO_HEARTBEAT",
        "hasStatusNotificationsEnabled": True,
        "hostname": None,
        "version": None,
        "publicIP": None,
        "privateIPs": [],
        "lastHeartbeatAt": None,
        "remoteNetwork": {"id": network, "name": "office"},
    }
    assert await connector_of(controller, id) == silent
    report = {"version": CONNECTOR_VERSION, "hostname": "host-1", "public_ip": "192.0.2.9", "private_ips": ["10.0.0.5"]}
    await controller.write(lambda tx: tx.connectors.change(1, enrolled_jkt="jkt"))
    await controller.write(lambda tx: connectors.heartbeat(tx, 1, "jkt", **report))
    found = await connector_of(controller, id)
    beaten = datetime.fromisoformat(found.pop("lastHeartbeatAt"))
    assert beaten.utcoffset() is not None
    assert abs(beaten.timestamp() - controller.clock()) < 30
    reported = {"state": "ALIVE", "hostname": "host-1", "version": CONNECTOR_VERSION, "publicIP": "192.0.2.9"}
    del silent["lastHeartbeatAt"]
    assert found == {**silent, **reported, "privateIPs": ["10.0.0.5"]}
    controller.offset += 36
    assert (await connector_of(controller, id))["state"] == "DEAD_HEARTBEAT_TOO_OLD"


async def test_a_connector_without_a_name_gets_two_words_and_null_leaves_alone(controller: Running) -> None:
    network = await controller.add_network()
    id = await controller.add_connector(network)
    name = (await connector_of(controller, id))["name"]
    assert name.count("-") == 1
    await updated(controller, "connectorUpdate", id, "name: null, hasStatusNotificationsEnabled: null")
    assert (await connector_of(controller, id))["name"] == name
    await updated(controller, "connectorUpdate", id, 'name: "office-1", hasStatusNotificationsEnabled: false')
    found = await connector_of(controller, id)
    assert (found["name"], found["hasStatusNotificationsEnabled"]) == ("office-1", False)


async def test_connector_names_are_unique_and_their_network_must_exist(controller: Running) -> None:
    network = await controller.add_network()
    await controller.add_connector(network, "office-1")
    second = await controller.add_connector(network, "office-2")
    taken = "a connector with this name exists already"
    await refused(controller, "connectorUpdate", second, 'name: "office-1"', taken)
    create = 'mutation ($n: ID!) { connectorCreate(remoteNetworkId: $n, name: "office-1") { ok error entity { id } } }'
    assert await controller.try_change(create, n=network) == {"ok": False, "error": taken, "entity": None}
    for wrong in (NOWHERE, second, "office", ""):
        payload = await controller.try_change(create, n=wrong)
        assert payload == {"ok": False, "error": f"Remote network with id '{wrong}' does not exist", "entity": None}


async def test_connector_tokens_are_shown_once_and_new_ones_replace_them(controller: Running) -> None:
    network = await controller.add_network()
    id = await controller.add_connector(network)
    first = await controller.connector_tokens(id)
    second = await controller.connector_tokens(id)
    assert len({*first.values(), *second.values()}) == 4
    assert first["access_token"].startswith("kl_conn_")
    assert first["refresh_token"].startswith("kl_refresh_")
    stored = controller.everything_stored()
    assert b"office" in stored
    for token in (*first.values(), *second.values()):
        assert token.encode() not in stored
    audit = await controller.audit()
    assert [event.detail for event in audit if event.detail.get("tokens")] == [{"tokens": "issued"}] * 2


# ---- resources


async def test_a_resource_has_the_contracts_defaults_also_for_explicit_nulls(controller: Running) -> None:
    network = await controller.add_network()
    nulls = (
        ", protocols: null, isVisible: null, isBrowserShortcutEnabled: null, alias: null, groupIds: null, "
        "securityPolicyId: null, routingMode: null, tags: null, approvalMode: null, accessPolicy: null, "
        "usageBasedAutolockDurationDays: null"
    )
    for more in ("", nulls):
        payload = await controller.change(
            f'mutation {{ resourceCreate(name: "Database", address: "db.internal", remoteNetworkId: "{network}"{more}) '
            f"{{ ok error entity {{ {RESOURCE} }} }} }}"
        )
        id = payload["entity"]["id"]
        assert payload["entity"] == {"id": id, **PRISTINE, "remoteNetwork": {"id": network}}
        assert await resource_of(controller, id) == payload["entity"]


async def test_what_was_given_reads_back_in_the_same_order_and_spelling(controller: Running) -> None:
    network = await controller.add_network()
    variables = {
        "r": network,
        "t": [{"key": "team", "value": "b"}, {"key": "env", "value": "Prod"}],
        "p": {
            "allowIcmp": False,
            "tcp": {"policy": "RESTRICTED", "ports": [{"start": 8000, "end": 8999}, {"start": 22, "end": 22}]},
            "udp": {"policy": "RESTRICTED"},
        },
    }
    payload = await controller.change(
        "mutation ($r: ID!, $t: [TagInput!], $p: ProtocolsInput) { resourceCreate(remoteNetworkId: $r, tags: $t, protocols: $p, "
        'name: "Web", address: "DB-1.Internal", alias: "web.acme.internal", isVisible: false, isBrowserShortcutEnabled: true, '
        "approvalMode: AUTOMATIC, accessPolicy: {mode: AUTO_LOCK, durationSeconds: 172800}) "
        f"{{ ok error entity {{ {RESOURCE} }} }} }}",
        **variables,
    )
    assert payload["entity"] == {
        **PRISTINE,
        "id": payload["entity"]["id"],
        "remoteNetwork": {"id": network},
        "name": "Web",
        "address": {"type": "DNS", "value": "DB-1.Internal"},
        "alias": "web.acme.internal",
        "isVisible": False,
        "isBrowserShortcutEnabled": True,
        "approvalMode": "AUTOMATIC",
        "accessPolicy": {"mode": "AUTO_LOCK", "durationSeconds": 172_800},
        "usageBasedAutolockDurationDays": 2,
        "tags": variables["t"],
        "protocols": {
            "allowIcmp": False,
            "tcp": {"policy": "RESTRICTED", "ports": [{"start": 8000, "end": 8999}, {"start": 22, "end": 22}]},
            "udp": {"policy": "RESTRICTED", "ports": []},
        },
    }
    assert await resource_of(controller, payload["entity"]["id"]) == payload["entity"]


@pytest.mark.parametrize(("address", "type_"), [("10.0.0.1", "IP"), ("10.0.0.0/8", "IP"), ("*.a.b", "DNS"), ("fd00::1", "IP")])
async def test_an_address_is_typed_ip_or_dns(controller: Running, address: str, type_: str) -> None:
    id = await controller.add_resource(await controller.add_network(), address=address)
    assert (await resource_of(controller, id))["address"] == {"type": type_, "value": address}


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        ("name: null, address: null, protocols: null, isActive: null, routingMode: null, accessPolicy: null", {}),
        ('alias: "d.acme.internal"', {"alias": "d.acme.internal"}),
        ("alias: null", {"alias": None}),
        ("tags: null", {"tags": []}),
        ("tags: []", {"tags": []}),
        ('tags: [{key: "a", value: "1"}]', {"tags": [{"key": "a", "value": "1"}]}),
        (
            "usageBasedAutolockDurationDays: null",
            {"accessPolicy": PRISTINE["accessPolicy"], "usageBasedAutolockDurationDays": None},
        ),
        (
            "usageBasedAutolockDurationDays: 7",
            {"accessPolicy": {"mode": "AUTO_LOCK", "durationSeconds": 604_800}, "usageBasedAutolockDurationDays": 7},
        ),
        ("accessPolicy: {mode: MANUAL}", {"accessPolicy": PRISTINE["accessPolicy"], "usageBasedAutolockDurationDays": None}),
        ("protocols: {}", {"protocols": PRISTINE["protocols"]}),
        ("isActive: false, isVisible: false", {"isActive": False, "isVisible": False}),
        ("securityPolicyId: null, groupIds: [], addedGroupIds: null, removedGroupIds: []", {}),
        ('name: "Orders", address: "10.1.2.3"', {"name": "Orders", "address": {"type": "IP", "value": "10.1.2.3"}}),
    ],
)
async def test_null_and_absent_mean_what_the_contract_says(controller: Running, arguments: str, changed: dict[str, Any]) -> None:
    network = await controller.add_network()
    payload = await controller.change(
        f'mutation {{ resourceCreate(name: "Database", address: "db.internal", remoteNetworkId: "{network}", '
        'alias: "db.acme.internal", tags: [{key: "k", value: "v"}], accessPolicy: {mode: AUTO_LOCK, durationSeconds: 86400}, '
        "protocols: {tcp: {policy: RESTRICTED, ports: [{start: 5432, end: 5432}]}}) "
        f"{{ ok error entity {{ {RESOURCE} }} }} }}"
    )
    before = payload["entity"]
    await updated(controller, "resourceUpdate", before["id"], arguments)
    assert await resource_of(controller, before["id"]) == {**before, **changed}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ('address: "10.0.0.1/24"', "Invalid IP or FQDN"),
        ('alias: ""', "Alias must be a valid DNS"),
        ('alias: "db"', "Alias must be a valid DNS"),
        ('alias: "taken.acme.internal"', "another resource has this alias"),
        ('address: "*.internal", isBrowserShortcutEnabled: true', "Resources with a CIDR range or wildcard"),
        ("protocols: {tcp: {policy: RESTRICTED, ports: [{start: 0, end: 1}]}}", "ports are 1 to 65535"),
        ("protocols: {udp: {policy: ALLOW_ALL, ports: [{start: 1, end: 1}]}}", "ALLOW_ALL takes no ports"),
        ('tags: [{key: "tg-x", value: "1"}]', "may not start with 'tg'"),
        ('name: ""', "name must not be empty"),
        (f'remoteNetworkId: "{NOWHERE}"', f"Remote network with id '{NOWHERE}' does not exist"),
        ('groupIds: ["R3JvdXA6MQ=="]', "Group with id 'R3JvdXA6MQ==' does not exist"),
        ('securityPolicyId: "U2VjdXJpdHlQb2xpY3k6MQ=="', "Security policy with id 'U2VjdXJpdHlQb2xpY3k6MQ==' does not exist"),
        ("usageBasedAutolockDurationDays: 0", "usageBasedAutolockDurationDays"),
        ("usageBasedAutolockDurationDays: -1", "usageBasedAutolockDurationDays"),
        ("usageBasedAutolockDurationDays: 2147483647", "usageBasedAutolockDurationDays"),
        ("accessPolicy: {mode: AUTO_LOCK, durationSeconds: -5}", "durationSeconds"),
        ("accessPolicy: {mode: AUTO_LOCK}", "durationSeconds"),
    ],
)
async def test_a_change_that_breaks_a_rule_leaves_the_resource_as_it_was(controller: Running, arguments: str, told: str) -> None:
    network = await controller.add_network()
    await controller.change(
        f'mutation {{ resourceCreate(name: "Other", address: "other.internal", remoteNetworkId: "{network}", '
        'alias: "taken.acme.internal") { ok error } }'
    )
    id = await controller.add_resource(network)
    before, events = await resource_of(controller, id), len(await controller.audit())
    await refused(controller, "resourceUpdate", id, f"isVisible: false, {arguments}", told)
    assert await resource_of(controller, id) == before
    assert len(await controller.audit()) == events


async def test_a_deleted_resource_reads_as_null_and_is_gone_from_its_network(controller: Running) -> None:
    network = await controller.add_network()
    id = await controller.add_resource(network)
    delete = f'mutation {{ resourceDelete(id: "{id}") {{ ok error }} }}'
    await controller.change(delete)
    assert await resource_of(controller, id) is None
    answer = await controller.query(f'{{ remoteNetwork(id: "{network}") {{ resources {{ totalCount }} }} }}')
    assert answer["remoteNetwork"]["resources"]["totalCount"] == 0
    assert await controller.try_change(delete) == {"ok": False, "error": f"Resource with id '{id}' does not exist"}


# ---- several changes in one document


async def test_a_change_that_fails_leaves_its_neighbours_alone(controller: Running) -> None:
    answer = await controller.ask(
        'mutation { a: remoteNetworkCreate(name: "one") { ok } b: remoteNetworkCreate(name: "one") { ok error } '
        'c: remoteNetworkCreate(name: "two") { ok } }'
    )
    assert [answer["data"][name]["ok"] for name in "abc"] == [True, False, True]
    assert [row.name for row in await controller.read(lambda tx: tx.remote_networks.find())] == ["one", "two"]
    assert [event.targets[0]["name"] for event in await controller.audit() if event.action == "create"][-2:] == ["one", "two"]


async def test_the_audit_names_the_token_and_the_address_that_changed_something(controller: Running) -> None:
    await controller.add_network("office")
    event = await controller.last_event()
    assert event.actor["type"] == "API"
    assert event.actor["info"] == {"name": "read and write and provision"}
    assert event.actor["source"] == "192.0.2.7"
    assert (event.action, event.targets[0]["type"], event.targets[0]["name"]) == ("create", "remoteNetwork", "office")


async def test_an_error_that_is_not_ours_is_told_as_internal_only(controller: Running, caplog: pytest.LogCaptureFixture) -> None:
    network = await controller.add_network()

    def spoil(tx: Any) -> None:
        row = tx.resources.find(name="Database")[0]
        tx.resources.change(row.id, protocols="not an object: /secret/path")

    id = await controller.add_resource(network)
    await controller.write(spoil)
    answer = await controller.ask(f'{{ resource(id: "{id}") {{ protocols {{ tcp {{ ports {{ start }} }} }} }} }}')
    assert "secret" not in str(answer)
    assert answer["errors"]
