"""Resources cross the wire unchanged, and only what keeps the domain's rules comes out."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.address import ResourceAddress
from klinket.domain.errors import ProtocolError
from klinket.domain.identifiers import RemoteNetworkId, ResourceId
from klinket.domain.ports import PortPolicy, PortRange, PortRule, Protocols
from klinket.domain.resource import Resource
from klinket.wire.inventory import PortSpan, ResourceEntry, entry_of, resource_of
from tests.unit.wire.conftest import MODERATE, messages

PORT = st.integers(1, 65_535)
SPAN = st.tuples(PORT, PORT).map(lambda ends: PortRange(min(ends), max(ends))).filter(lambda span: span != PortRange(1, 65_535))
RULE = st.just(PortRule()) | st.lists(SPAN, max_size=4).map(lambda spans: PortRule(PortPolicy.RESTRICTED, tuple(spans)))


@st.composite
def resources(draw: st.DrawFn) -> Resource:
    address = draw(st.sampled_from(["10.0.0.1", "10.0.0.0/8", "::1", "DB.Internal", "*.Internal", "b?.x", "bücher.example"]))
    return Resource(
        ResourceId(draw(st.integers(1, 2**40))),
        draw(st.text(min_size=1, max_size=20)),
        ResourceAddress.parse(address),
        RemoteNetworkId(draw(st.integers(1, 2**40))),
        draw(st.sampled_from([None, "db.acme", "x.y.z"])),
        Protocols(draw(RULE), draw(RULE), draw(st.booleans())),
        draw(st.booleans()),
    )


@MODERATE
@given(resources())
def test_a_resource_arrives_as_it_was_sent(resource: Resource) -> None:
    data = msgspec.json.encode(entry_of(resource))
    assert resource_of(msgspec.json.decode(data, type=ResourceEntry)) == resource


def test_ports_keep_their_order_and_nothing_open_stays_nothing() -> None:
    entry = ResourceEntry(id=1, name="x", address="a.b", remote_network=1, tcp=[PortSpan(443, 443), PortSpan(80, 80)])
    protocols = resource_of(entry).protocols
    assert [span.first for span in protocols.tcp.ports] == [443, 80]
    assert protocols.udp == PortRule(PortPolicy.RESTRICTED)
    assert not protocols.allow_icmp


@pytest.mark.parametrize(
    "entry",
    [
        ResourceEntry(id=1, name="x", address="10.0.0.1/8", remote_network=1),
        ResourceEntry(id=1, name="x", address="", remote_network=1),
        ResourceEntry(id=1, name="x", address="a.b", remote_network=1, alias=""),
        ResourceEntry(id=1, name="x", address="a.b", remote_network=1, alias="nodot"),
        ResourceEntry(id=1, name="x", address="a.b", remote_network=1, tcp=[PortSpan(0, 1)]),
        ResourceEntry(id=1, name="x", address="a.b", remote_network=1, udp=[PortSpan(9, 5)]),
        ResourceEntry(id=1, name="x", address="a.b", remote_network=1, udp=[PortSpan(1, 70_000)]),
        ResourceEntry(id=1, name="x", address="a.b", remote_network=1, tcp=[PortSpan(1, 1)] * 65),
    ],
)
def test_an_entry_that_breaks_a_rule_is_refused(entry: ResourceEntry) -> None:
    with pytest.raises(ProtocolError, match="resource 1"):
        resource_of(entry)


@MODERATE
@given(messages(ResourceEntry))
def test_any_entry_is_a_resource_or_refused(entry: ResourceEntry) -> None:
    try:
        resource = resource_of(entry)
    except ProtocolError:
        return
    assert resource_of(entry_of(resource)) == resource
