"""Grant tokens, beyond what holds for every token (test_wire_tokens)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from klinket.domain.errors import InvalidToken
from klinket.domain.grant import Principal
from klinket.domain.identifiers import Kid, RemoteNetworkId, ServiceAccountUuid, SessionId, Thumbprint
from klinket.domain.ports import PortPolicy, PortRange, PortRule, Protocols
from klinket.domain.resource import Resource
from klinket.wire import signing
from klinket.wire.grant_token import GrantClaims, sign_grant, verify_grant
from tests.unit.wire.conftest import NOW, forge, parts, resource

KEY = signing.SigningKey.generate("grant-1")
KEYS = signing.KeySet({KEY.kid: KEY.public_key})
PRINCIPAL = Principal(ServiceAccountUuid("a1111111-2222-3333-4444-55555555555f"), Kid("kid-1"), SessionId("s" * 22))
OFFICE, LAB = RemoteNetworkId(1), RemoteNetworkId(2)
RESOURCES = [
    resource(1, "DB.internal", alias="db.acme"),
    resource(2, "10.0.0.0/8", protocols=Protocols(PortRule(PortPolicy.RESTRICTED, (PortRange(443, 443), PortRange(80, 90))))),
    resource(3, "*.Internal", protocols=Protocols(PortRule(PortPolicy.RESTRICTED), PortRule(PortPolicy.RESTRICTED), False)),
]


def sign(resources: Sequence[Resource] = RESOURCES, lifetime: float = 300) -> str:
    return sign_grant(
        KEY,
        network="acme",
        remote_network=OFFICE,
        principal=PRINCIPAL,
        jkt=Thumbprint("thumb"),
        stamp=(3, 41),
        resources=resources,
        now=NOW,
        lifetime=lifetime,
    )


def verify(token: str, remote_network: RemoteNetworkId = OFFICE) -> GrantClaims:
    return verify_grant(token, KEYS, network="acme", remote_network=remote_network, now=NOW)


def refuse(token: str, remote_network: RemoteNetworkId = OFFICE) -> str:
    with pytest.raises(InvalidToken) as refused:
        verify(token, remote_network)
    return refused.value.message


def test_a_grant_says_everything_the_connector_decides_by() -> None:
    assert verify(sign()) == GrantClaims(OFFICE, PRINCIPAL, Thumbprint("thumb"), (3, 41), NOW + 300, tuple(RESOURCES), NOW)


def test_a_grant_of_nothing_is_a_grant() -> None:
    assert verify(sign([])).resources == ()


def test_a_grant_of_thousands_of_resources_is_accepted() -> None:
    many = [resource(number, f"host-{number}.internal") for number in range(1, 5001)]
    token = sign(many)
    assert len(token) > 1_000_000
    assert verify(token).resources == tuple(many)


def test_a_grant_for_another_remote_network_is_refused() -> None:
    refuse(sign(), LAB)


def test_a_grant_that_names_a_resource_of_another_remote_network_is_refused() -> None:
    assert "another remote network" in refuse(sign([*RESOURCES, resource(9, "10.0.0.1", network=2)]))


def test_an_hour_is_the_longest_life() -> None:
    assert verify(sign(lifetime=3600)).expires_at == NOW + 3600
    refuse(sign(lifetime=3602))


@pytest.mark.parametrize(
    "entry",
    [
        {"address": "10.0.0.1/8"},
        {"address": ""},
        {"alias": "nodot"},
        {"tcp": [[0, 5]]},
        {"tcp": [[9, 5]]},
        {"udp": [[1, 70_000]]},
        {"tcp": [[1, 2, 3], "x"]},
        {"tcp": [[n, n] for n in range(1, 100)]},
        {"tcp": None},
        {"icmp": "yes"},
        {"id": "1"},
        {"id": 1.5},
        {"id": True},
        {"name": None},
        {"remote_network": "1"},
    ],
)
def test_a_resource_that_breaks_a_rule_spoils_the_grant(entry: dict[str, object]) -> None:
    header, claims, _ = parts(sign())
    claims["resources"][1] |= entry
    refuse(forge(KEY.private_key, header, claims))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sub", "x" * 37),
        ("sub", ""),
        ("key", "x" * 65),
        ("key", 5),
        ("sid", "s" * 23),
        ("sid", None),
        ("rev", "1"),
        ("epoch", 1.0),
    ],
)
def test_a_principal_and_a_stamp_have_their_shape(name: str, value: object) -> None:
    header, claims, _ = parts(sign())
    assert name in refuse(forge(KEY.private_key, header, {**claims, name: value}))
