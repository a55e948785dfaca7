"""Which resource serves a host, which lost and why, and whether the port is open: in words."""

from __future__ import annotations

import pytest

from klinket.domain.address import ResourceAddress
from klinket.domain.explanation import MAX_LOST, StepName, found_resource, opens
from klinket.domain.flow import Destination, TransportProtocol
from klinket.domain.identifiers import RemoteNetworkId, ResourceId
from klinket.domain.ports import PortPolicy, PortRange, PortRule, Protocols
from klinket.domain.resource import Resource, ResourceIndex


def made(id: int, address: str, alias: str | None = None, protocols: Protocols | None = None) -> Resource:
    return Resource(ResourceId(id), f"r{id}", ResourceAddress.parse(address), RemoteNetworkId(1), alias, protocols or Protocols())


EVERYTHING = [
    made(1, "*.internal"),
    made(2, "db.internal"),
    made(3, "db.internal"),
    made(4, "10.0.0.0/8", alias="db.internal"),
    made(5, "db*.internal"),
    made(6, "10.0.0.0/24"),
    made(7, "10.0.0.7"),
    made(8, "?b.internal"),
    made(9, "10.0.0.9", alias="db.internal"),
]


@pytest.mark.parametrize("host", ["db.internal", "web.internal", "10.0.0.7", "10.0.0.8", "10.1.1.1", "nowhere.example"])
def test_the_first_that_serves_is_the_one_that_is_found(host: str) -> None:
    index = ResourceIndex(EVERYTHING)
    serving = index.serving(host)
    assert index.lookup(host) == (serving[0] if serving else None)
    assert set(serving) == {one for one in EVERYTHING if one.serves(host)}


@pytest.mark.parametrize(
    ("host", "text", "lost"),
    [
        (
            "db.internal",
            "resource 'r4' serves db.internal by its alias db.internal",
            [
                "resource 'r9' (alias db.internal) lost: the same alias, and a later resource",
                "resource 'r2' (address db.internal) lost: an alias comes first",
                "resource 'r3' (address db.internal) lost: an alias comes first",
                "resource 'r5' (pattern db*.internal) lost: an alias comes first",
                "resource 'r8' (pattern ?b.internal) lost: an alias comes first",
                "1 more lost",
            ],
        ),
        (
            "10.0.0.7",
            "resource 'r7' serves 10.0.0.7 by its address 10.0.0.7",
            [
                "resource 'r6' (range 10.0.0.0/24) lost: the address itself comes before ranges and patterns",
                "resource 'r4' (range 10.0.0.0/8) lost: the address itself comes before ranges and patterns",
            ],
        ),
        (
            "10.0.0.8",
            "resource 'r6' serves 10.0.0.8 by its range 10.0.0.0/24",
            ["resource 'r4' (range 10.0.0.0/8) lost: the narrower one comes first"],
        ),
        ("web.internal", "resource 'r1' serves web.internal by its pattern *.internal", []),
    ],
)
def test_what_lost_is_named_with_its_reason(host: str, text: str, lost: list[str]) -> None:
    step = found_resource(ResourceIndex(EVERYTHING).serving(host), host)
    assert (step.name, step.ok, step.text) == (StepName.RESOURCE, True, text)
    assert list(step.evidence) == lost
    assert len(lost) <= MAX_LOST + 1


def test_equal_ones_are_told_apart_by_age() -> None:
    step = found_resource(ResourceIndex([made(2, "10.0.0.0/8"), made(1, "10.0.0.0/8")]).serving("10.0.0.1"), "10.0.0.1")
    assert step.evidence == ("resource 'r2' (range 10.0.0.0/8) lost: as narrow, and a later resource",)
    step = found_resource(ResourceIndex([made(2, "a.b"), made(1, "a.b")]).serving("a.b"), "a.b")
    assert step.evidence == ("resource 'r2' (address a.b) lost: the same address, and a later resource",)


def test_a_port_that_is_not_open_is_told_with_those_that_are() -> None:
    restricted = PortRule(PortPolicy.RESTRICTED, (PortRange(443, 443), PortRange(8000, 8999)))
    resource = made(1, "a.b", protocols=Protocols(restricted, PortRule(PortPolicy.RESTRICTED)))
    assert opens(resource, Destination("a.b", 8001, TransportProtocol.TCP)).ok
    step = opens(resource, Destination("a.b", 22, TransportProtocol.TCP))
    assert (step.ok, step.code, step.evidence) == (False, "not-granted", ("open tcp ports: 443, 8000-8999",))
    assert opens(resource, Destination("a.b", 443, TransportProtocol.UDP)).evidence == ("open udp ports: none",)
