"""Signed cuts, beyond what holds for every token (test_wire_tokens)."""

from __future__ import annotations

import pytest

from klinket.domain.cut import Cut, CutScope, ScopeKind
from klinket.domain.errors import InvalidToken
from klinket.domain.flow import FlowFailure
from klinket.domain.identifiers import ConnectorId, CutId, Kid, ResourceId, ServiceAccountUuid, SessionId
from klinket.domain.ports import PortPolicy, PortRange, PortRule, Protocols
from klinket.domain.resource import Resource
from klinket.wire import signing
from klinket.wire.cut_token import sign_cut, verify_cut
from tests.unit.wire.conftest import NOW, forge, parts, resource

KEY = signing.SigningKey.generate("cut-1")
KEYS = signing.KeySet({KEY.kid: KEY.public_key})
ACCOUNT = ServiceAccountUuid("a1111111-2222-3333-4444-55555555555f")
SCOPES = {
    ScopeKind.ACCOUNT: CutScope.of_account(ACCOUNT),
    ScopeKind.KEY: CutScope.of_key(Kid("kid-1")),
    ScopeKind.SESSION: CutScope.of_session(SessionId("s" * 22)),
    ScopeKind.RESOURCE: CutScope.of_resource(ResourceId(9)),
    ScopeKind.ACCESS: CutScope.of_access(ACCOUNT, ResourceId(9)),
    ScopeKind.CONNECTOR: CutScope.of_connector(ConnectorId(7)),
}
NARROWED = resource(9, "10.0.0.0/8", protocols=Protocols(PortRule(PortPolicy.RESTRICTED, (PortRange(443, 443),))))


def cut(kind: ScopeKind, reason: FlowFailure = FlowFailure.CUT, narrowed: Resource | None = None) -> Cut:
    return Cut(CutId(5), SCOPES[kind], 2, 77, reason, NOW, narrowed)


def verify(token: str, now: float = NOW, network: str = "acme") -> Cut:
    return verify_cut(token, KEYS, network=network, now=now)


@pytest.mark.parametrize("kind", ScopeKind)
@pytest.mark.parametrize("narrowed", [None, NARROWED], ids=["whole", "narrowed"])
def test_a_cut_of_every_scope_arrives_whole(kind: ScopeKind, narrowed: Resource | None) -> None:
    original = cut(kind, narrowed=narrowed)
    assert verify(sign_cut(KEY, original, network="acme")) == original


@pytest.mark.parametrize("reason", FlowFailure)
def test_a_cut_keeps_its_reason(reason: FlowFailure) -> None:
    assert verify(sign_cut(KEY, cut(ScopeKind.KEY, reason), network="acme")).reason is reason


def test_a_cut_can_be_applied_again_for_a_week() -> None:
    token = sign_cut(KEY, cut(ScopeKind.KEY), network="acme")
    assert verify(token, NOW + 7 * 86_400) == cut(ScopeKind.KEY)
    with pytest.raises(InvalidToken):
        verify(token, NOW + 7 * 86_400 + 5)


def test_a_cut_of_a_controller_whose_clock_was_ahead_counts() -> None:
    assert verify(sign_cut(KEY, cut(ScopeKind.KEY), network="acme"), NOW - 3600) == cut(ScopeKind.KEY)


def test_a_cut_of_another_network_is_refused() -> None:
    with pytest.raises(InvalidToken):
        verify(sign_cut(KEY, cut(ScopeKind.KEY), network="acme"), network="other")


@pytest.mark.parametrize("kind", ScopeKind)
def test_a_cut_without_what_its_kind_is_about_is_refused(kind: ScopeKind) -> None:
    """Never read as an empty scope, which would cover nobody."""
    header, claims, _ = parts(sign_cut(KEY, cut(kind), network="acme"))
    about = [name for name in ("account", "key", "session", "resource", "connector") if name in claims]
    assert about
    for name in about:
        junk: list[dict[str, object]] = [{}, {name: None}, {name: ""}, {name: []}, {name: True}]
        for wrong in junk:
            rest = {other: value for other, value in claims.items() if other != name}
            with pytest.raises(InvalidToken):
                verify(forge(KEY.private_key, header, {**rest, **wrong}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "everything"),
        ("kind", None),
        ("kind", ["key"]),
        ("kind", {}),
        ("reason", "because"),
        ("reason", []),
        ("id", "5"),
        ("epoch", None),
        ("rev", 1.5),
        ("narrowed", {}),
        ("narrowed", []),
        ("narrowed", {"id": 9, "name": "x", "address": "10.0.0.1/8", "remote_network": 1}),
    ],
)
def test_a_cut_that_is_not_understood_is_refused(name: str, value: object) -> None:
    header, claims, _ = parts(sign_cut(KEY, cut(ScopeKind.KEY), network="acme"))
    with pytest.raises(InvalidToken):
        verify(forge(KEY.private_key, header, {**claims, name: value}))
