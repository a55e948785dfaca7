"""The decision about one flow: granted, open, and not expired, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.domain.grant import Allowed, Denied, decide
from klinket.domain.ports import PortPolicy, PortRange, PortRule, Protocols
from klinket.domain.resource import ResourceIndex
from tests.unit.domain.conftest import MODERATE, resource

TCP, UDP = TransportProtocol.TCP, TransportProtocol.UDP
ONLY_5432 = Protocols(tcp=PortRule(PortPolicy.RESTRICTED, (PortRange(5432, 5432),)), udp=PortRule(PortPolicy.RESTRICTED))
DATABASE = resource(1, "db.internal", alias="orders.acme", protocols=ONLY_5432)
EVERY_DB = resource(2, "*.internal")
INDEX = ResourceIndex([DATABASE, EVERY_DB])


@pytest.mark.parametrize(
    ("host", "port", "protocol", "allowed_by"),
    [
        ("db.internal", 5432, TCP, 1),
        ("orders.acme", 5432, TCP, 1),
        ("db.internal", 5433, TCP, None),  # the wildcard that would open it is less specific
        ("db.internal", 5432, UDP, None),
        ("web.internal", 80, TCP, 2),
        ("web.internal", 53, UDP, 2),
        ("web.internal", 0, TCP, None),
        ("web.internal", 65_536, TCP, None),
        ("internal", 80, TCP, None),
        ("10.0.0.1", 5432, TCP, None),
    ],
)
def test_a_flow_passes_only_where_a_resource_opens_it(
    host: str, port: int, protocol: TransportProtocol, allowed_by: int | None
) -> None:
    decision = decide(INDEX, Destination(host, port, protocol), now=10, expires_at=20)
    if allowed_by is not None:
        assert isinstance(decision, Allowed)
        assert decision.resource.id == allowed_by
    else:
        assert isinstance(decision, Denied)
        assert decision.failure is FlowFailure.NOT_GRANTED


def test_a_refusal_names_what_was_wanted() -> None:
    closed = decide(INDEX, Destination("db.internal", 80, TCP), now=10, expires_at=20)
    unknown = decide(INDEX, Destination("other.example", 80, TCP), now=10, expires_at=20)
    assert isinstance(closed, Denied)
    assert isinstance(unknown, Denied)
    assert "resource 1" in closed.text
    assert "tcp port 80" in closed.text
    assert "other.example" in unknown.text


@pytest.mark.parametrize("now", [20, 20.001, 1e12])
def test_an_expired_grant_allows_nothing(now: float) -> None:
    decision = decide(INDEX, Destination("db.internal", 5432, TCP), now=now, expires_at=20)
    assert isinstance(decision, Denied)
    assert decision.failure is FlowFailure.GRANT_EXPIRED


def test_a_grant_without_resources_allows_nothing() -> None:
    decision = decide(ResourceIndex([]), Destination("db.internal", 5432, TCP), now=0, expires_at=20)
    assert isinstance(decision, Denied)
    assert decision.failure is FlowFailure.NOT_GRANTED


@MODERATE
@given(
    st.sampled_from(["db.internal", "orders.acme", "web.internal", "10.0.0.1"]),
    st.integers(-1, 70_000),
    st.sampled_from([TCP, UDP]),
    st.floats(0, 100),
    st.floats(0, 100),
)
def test_what_is_allowed_is_always_covered(
    host: str, port: int, protocol: TransportProtocol, now: float, expires_at: float
) -> None:
    decision = decide(INDEX, Destination(host, port, protocol), now=now, expires_at=expires_at)
    serving = DATABASE if DATABASE.serves(host) else EVERY_DB if EVERY_DB.serves(host) else None
    passes = now < expires_at and serving is not None and serving.protocols.allows(protocol, port)
    assert isinstance(decision, Allowed) is passes
    assert not isinstance(decision, Allowed) or decision.resource is serving
