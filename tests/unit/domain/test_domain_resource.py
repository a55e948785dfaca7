"""Which of several resources serves a host, and what is dialled for it (facts §4)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.address import ResourceAddress, parse_ip
from klinket.domain.identifiers import RemoteNetworkId, ResourceId
from klinket.domain.resource import Resource, ResourceIndex, choose
from tests.unit.domain.conftest import MODERATE, resource


@pytest.mark.parametrize(
    ("host", "candidates", "winner"),
    [
        ("10.1.1.1", {1: "0.0.0.0/0", 2: "10.0.0.0/8", 3: "10.1.0.0/16", 4: "10.1.1.1"}, 4),
        ("10.1.1.2", {1: "0.0.0.0/0", 2: "10.0.0.0/8", 3: "10.1.0.0/16", 4: "10.1.1.1"}, 3),
        ("10.2.1.2", {1: "0.0.0.0/0", 2: "10.0.0.0/8", 3: "10.1.0.0/16", 4: "10.1.1.1"}, 2),
        ("10.1.1.1", {1: "10.1.1.0/31", 2: "10.1.1.1/32"}, 2),
        ("db.a.b", {1: "*.a.b", 2: "db.a.b", 3: "db.?.b"}, 2),
        ("db.a.b", {1: "*", 2: "*.b", 3: "*.a.b"}, 3),
        ("db.a.b", {1: "d?.a.b", 2: "*.a.b"}, 1),
        ("db.a.b", {7: "*.a.b", 3: "d*a.b", 5: "db*.b"}, 3),  # as many literal characters: the oldest
        ("db.a.b", {9: "db.a.b", 4: "db.a.b"}, 4),
        ("10.1.1.1", {1: "*"}, None),
        ("db.a.b", {1: "10.0.0.0/8", 2: "x.a.b"}, None),
        ("db.a.b", {}, None),
    ],
)
def test_the_most_specific_resource_serves(host: str, candidates: dict[int, str], winner: int | None) -> None:
    resources = [resource(id, address) for id, address in candidates.items()]
    for order in (resources, resources[::-1]):
        found = ResourceIndex(order).lookup(host)
        assert (found.id if found else None) == winner


def test_an_alias_comes_before_everything_else() -> None:
    resources = [resource(1, "db.a.b"), resource(2, "10.0.0.1", alias="db.a.b"), resource(3, "10.0.0.2", alias="db.a.b")]
    assert ResourceIndex(resources).lookup("db.a.b") is resources[1]


def test_an_alias_does_not_hide_the_address() -> None:
    index = ResourceIndex([resource(1, "10.0.0.1", alias="db.a.b")])
    assert index.lookup("10.0.0.1") is index.lookup("db.a.b") is not None


@pytest.mark.parametrize(
    ("address", "alias", "host", "dialled"),
    [
        ("10.0.0.1", "db.a.b", "db.a.b", "10.0.0.1"),
        ("DB.internal", "db.a.b", "db.a.b", "db.internal"),
        ("db.internal", "db.a.b", "db.internal", "db.internal"),
        ("*.internal", None, "db.internal", "db.internal"),
        ("10.0.0.0/8", None, "10.0.0.9", "10.0.0.9"),
    ],
)
def test_what_is_dialled(address: str, alias: str | None, host: str, dialled: str) -> None:
    assert resource(1, address, alias).host_to_dial(host) == dialled


ADDRESSES = st.sampled_from(
    [
        "10.0.0.1",
        "10.0.0.2/32",
        "10.0.0.0/30",
        "10.0.0.0/8",
        "0.0.0.0/0",
        "::/0",
        "::1",
        "a.b",
        "x.a.b",
        "*.a.b",
        "?.a.b",
        "*.b",
        "*",
    ]
)
HOSTS = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.9.9.9", "::1", "::2", "a.b", "x.a.b", "y.a.b", "b", "al.ias", "q"])


@st.composite
def inventories(draw: st.DrawFn) -> list[Resource]:
    ids = draw(st.lists(st.integers(1, 40), unique=True, max_size=8))
    return [resource(id, draw(ADDRESSES), draw(st.sampled_from([None, None, "al.ias", "x.a.b"]))) for id in ids]


def rank(candidate: Resource, host: str) -> tuple[object, ...]:
    """Order by facts §4, told in other words than the index tells it."""
    text, network = candidate.address.text, candidate.address.network
    if candidate.alias == host:
        place = (0, 0)
    elif network is not None:
        place = (1 if network.num_addresses == 1 else 2, network.num_addresses)
    else:
        literal = len(text.replace("*", "").replace("?", ""))
        place = (1 if literal == len(text) else 2, -literal)
    return (*place, candidate.id)


@MODERATE
@given(inventories(), HOSTS, st.randoms(use_true_random=False))
def test_the_index_finds_what_a_search_through_all_finds(resources: list[Resource], host: str, rng: random.Random) -> None:
    rng.shuffle(resources)
    serving = [one for one in resources if one.serves(host)]
    expected = min(serving, key=lambda one: rank(one, host)) if serving else None
    assert ResourceIndex(resources).lookup(host) is expected


@MODERATE
@given(inventories(), HOSTS)
def test_an_ip_is_never_served_by_a_name_pattern(resources: list[Resource], host: str) -> None:
    found = ResourceIndex(resources).lookup(host)
    if found is not None and found.alias != host:
        assert (found.address.network is not None) == (parse_ip(host) is not None)


def test_resources_are_found_by_id() -> None:
    index = ResourceIndex([resource(5, "a.b"), resource(2, "c.d")])
    assert index.get(ResourceId(5)) is index.lookup("a.b")
    assert index.get(ResourceId(3)) is None
    assert [one.id for one in index.resources] == [2, 5]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ([], set()),
        (["Twice"], {4, 5}),
        (["db.internal"], {1}),
        (["the-db.alias"], {1}),
        (["10.0.0.0/8"], {2}),
        (["10.1.2.3"], {2}),
        (["WEB.internal"], {3}),
        (["*.internal"], {3}),
        (["nobody.example", "a b", ""], set()),
        (["db.internal", "10.1.2.3"], {1, 2}),
    ],
)
def test_people_choose_resources_by_name_alias_address_or_a_host_they_serve(wanted: list[str], chosen: set[int]) -> None:
    index = ResourceIndex(
        Resource(ResourceId(id), name, ResourceAddress.parse(address), RemoteNetworkId(1), alias)
        for id, name, address, alias in [
            (1, "Database", "db.internal", "the-db.alias"),
            (2, "Office", "10.0.0.0/8", None),
            (3, "All names", "*.internal", None),
            (4, "Twice", "one.example", None),
            (5, "Twice", "two.example", None),
        ]
    )
    assert choose(index, wanted) == chosen
