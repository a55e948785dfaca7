"""What a client decides: the resource, the way to it, and how long it trusts what it was told."""

from __future__ import annotations

import math

import pytest

from klinket.client.core import MAX_FORMER, ClientCore
from klinket.domain.connector_choice import FAILED_SECONDS
from klinket.domain.errors import FlowRefused, InvalidInput, ProtocolError
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.domain.resource import Resource
from klinket.wire.control import ClientConfiguration
from klinket.wire.inventory import ConnectorEntry, Grant, PortSpan, RelayEntry, RelayTicket, ResourceEntry

NOW = 1_800_000_000.0
SESSION = "s" * 22
EVERY_PORT = [PortSpan(1, 65_535)]


def entry(
    id: int, address: str, *, remote: int = 1, alias: str | None = None, name: str = "", tcp: object = None
) -> ResourceEntry:
    spans = EVERY_PORT if tcp is None else tcp
    return ResourceEntry(id=id, name=name or f"resource {id}", address=address, remote_network=remote, alias=alias, tcp=spans)  # type: ignore[arg-type]


def configuration(**more: object) -> ClientConfiguration:
    settings: dict[str, object] = {
        "epoch": 1,
        "revision": 5,
        "network": "acme",
        "session": SESSION,
        "time_ms": int(NOW * 1000),
        "connector_authority": "PEM",
        "resources": [entry(1, "db.internal", name="Orders database"), entry(2, "10.0.0.0/8", remote=2)],
        "connectors": [ConnectorEntry(id=id, name=f"c{id}", remote_network=1, relays=[1, 2]) for id in (1, 2, 3)],
        "relays": [RelayEntry(id=id, address=f"relay{id}:443", certificate_sha256="0" * 64) for id in (1, 2)],
        "tickets": [RelayTicket(relay=1, token="ticket one", expires_at_ms=0)],
        "grants": [Grant(remote_network=1, token="grant one", expires_at_ms=0)],
        "renew_at_ms": int(NOW * 1000) + 150_000,
        "valid_until_ms": int(NOW * 1000) + 300_000,
    }
    return ClientConfiguration(**{**settings, **more})  # type: ignore[arg-type]


def core(**more: object) -> ClientCore:
    made = ClientCore()
    made.configure(configuration(**more))
    return made


def tcp(host: str, port: int = 5432) -> Destination:
    return Destination(host, port, TransportProtocol.TCP)


def database(made: ClientCore) -> Resource:
    return made.find("Orders database")


# ---- deciding


def test_a_granted_flow() -> None:
    assert core().decide(tcp("db.internal"), NOW).name == "Orders database"
    assert core().decide(tcp("10.1.2.3"), NOW).id == 2


@pytest.mark.parametrize(
    "destination",
    [tcp("other.internal"), tcp("11.0.0.1"), tcp("x.db.internal"), Destination("db.internal", 53, TransportProtocol.UDP)],
    ids=str,
)
def test_what_was_not_granted(destination: Destination) -> None:
    with pytest.raises(FlowRefused) as caught:
        core().decide(destination, NOW)
    assert caught.value.failure is FlowFailure.NOT_GRANTED


def test_a_configuration_is_trusted_until_it_ends() -> None:
    made = core()
    made.decide(tcp("db.internal"), NOW + 299.9)
    with pytest.raises(FlowRefused) as caught:
        made.decide(tcp("db.internal"), NOW + 300)
    assert caught.value.failure is FlowFailure.GRANT_EXPIRED


def test_each_configuration_replaces_the_one_before() -> None:
    made = ClientCore()
    assert not made.configured
    with pytest.raises(FlowRefused) as early:  # until then nobody knows what is klinket's business
        made.resource_for("db.internal")
    assert early.value.failure is FlowFailure.CONTROLLER_UNREACHABLE
    made.configure(configuration())
    assert made.configured
    made.configure(configuration(resources=[entry(3, "web.internal")], grants=[]))
    assert [resource.id for resource in made.resources] == [3]
    assert made.resource_for("db.internal") is None
    with pytest.raises(FlowRefused) as caught:
        made.grant_for(1)
    assert caught.value.failure is FlowFailure.NOT_GRANTED


def test_a_configuration_that_is_not_understood_changes_nothing() -> None:
    made = core()
    with pytest.raises(ProtocolError):
        made.configure(configuration(revision=6, resources=[entry(1, "not an address!")]))
    assert made.configuration.revision == 5
    assert made.resource_for("db.internal") is not None


def test_grants_and_tickets() -> None:
    made = core()
    assert made.grant_for(1).token == "grant one"
    assert made.ticket_for(1) == "ticket one"
    assert made.ticket_for(2) == ""


# ---- grants that ended


def test_what_was_granted_once_stays_klinkets_business() -> None:
    made = core(resources=[entry(1, "10.0.0.0/8"), entry(2, "*.internal"), entry(3, "192.0.2.7", alias="db.corp")])
    made.configure(configuration(resources=[entry(9, "web.example")]))
    for host in ("10.20.30.40", "db.internal", "192.0.2.7", "db.corp", "web.example"):
        assert made.claims(host)
    assert not made.claims("11.0.0.1")
    assert not made.claims("internal.example")
    with pytest.raises(FlowRefused) as caught:
        made.decide(tcp("10.20.30.40"), NOW)
    assert caught.value.failure is FlowFailure.NOT_GRANTED
    assert "not granted any more" in caught.value.message


def test_nothing_is_claimed_or_let_go_before_the_first_configuration() -> None:
    with pytest.raises(FlowRefused) as early:
        ClientCore().claims("10.0.0.1")
    assert early.value.failure is FlowFailure.CONTROLLER_UNREACHABLE


def test_what_ended_longest_ago_is_forgotten_first_and_nothing_that_is_granted() -> None:
    made = core(resources=[entry(1, "kept.internal"), entry(2, "first.internal")])
    half = MAX_FORMER // 2
    for turn in range(3):
        many = [entry(10 + id, f"10.{turn}.{id // 250}.{id % 250}") for id in range(half)]
        made.configure(configuration(resources=[entry(1, "kept.internal"), *many]))
    assert made.claims("first.internal") is False
    assert made.claims("10.0.0.0")
    made.configure(configuration(resources=[entry(1, "kept.internal")]))
    assert not made.claims("10.0.0.0")
    assert made.claims("10.1.0.0")
    assert made.claims("kept.internal")


# ---- routes


def order(made: ClientCore, now: float = NOW) -> list[int]:
    return [route.connector.id for route in made.routes(database(made), now)]


def test_routes_lead_through_the_connectors_of_the_remote_network_only() -> None:
    foreign = ConnectorEntry(id=9, name="c9", remote_network=2, relays=[1])
    made = core(connectors=[*configuration().connectors, foreign])
    assert sorted(order(made)) == [1, 2, 3]
    assert [route.connector.id for route in made.routes(made.decide(tcp("10.1.1.1"), NOW), NOW)] == [9]


def test_the_order_is_the_same_each_time_and_whatever_the_list_s_order() -> None:
    shuffled = core(connectors=list(reversed(configuration().connectors)))
    assert order(core()) == order(core()) == order(shuffled)
    for route in core().routes(database(core()), NOW):
        assert {relay.id for relay in route.relays} == {1, 2}


def test_sessions_spread_over_the_connectors() -> None:
    first = [order(core(session=f"{number:022d}"))[0] for number in range(300)]
    for connector in (1, 2, 3):
        assert 60 < first.count(connector) < 140


def test_a_connector_that_goes_moves_only_its_own_sessions() -> None:
    for number in range(50):
        session = f"{number:022d}"
        before = order(core(session=session))
        left = [one for one in configuration().connectors if one.id != 2]
        assert order(core(session=session, connectors=left)) == [id for id in before if id != 2]


def test_a_connector_that_failed_comes_last_for_a_while() -> None:
    made = core()
    first, *others = order(made)
    made.choice.failed(first, NOW)
    assert order(made) == [*others, first]
    assert order(made, NOW + FAILED_SECONDS - 0.1) == [*others, first]
    assert order(made, NOW + FAILED_SECONDS) == [first, *others]
    made.choice.failed(first, NOW)
    made.choice.works(first)
    assert order(made) == [first, *others]


def test_all_failed_is_no_reason_not_to_try() -> None:
    made = core()
    before = order(made)
    for id in before:
        made.choice.failed(id, NOW)
    assert order(made) == before


def test_relays_that_are_not_listed_are_left_out() -> None:
    connectors = [
        ConnectorEntry(id=1, name="c1", remote_network=1, relays=[2, 77]),
        ConnectorEntry(id=2, name="c2", remote_network=1, relays=[77]),
        ConnectorEntry(id=3, name="c3", remote_network=1),
    ]
    made = core(connectors=connectors)
    (route,) = made.routes(database(made), NOW)
    assert (route.connector.id, [relay.id for relay in route.relays]) == (1, [2])


@pytest.mark.parametrize(
    ("connectors", "text"),
    [([], "it has none"), ([ConnectorEntry(id=1, name="c1", remote_network=1)], "none is connected")],
)
def test_without_a_way_the_refusal_says_why(connectors: list[ConnectorEntry], text: str) -> None:
    made = core(connectors=connectors)
    with pytest.raises(FlowRefused, match=text) as caught:
        made.routes(database(made), NOW)
    assert caught.value.failure is FlowFailure.NO_CONNECTOR


def test_a_connector_the_controller_has_not_met_again_is_reached_where_its_link_goes() -> None:
    made = core(connectors=[ConnectorEntry(id=id, name=f"c{id}", remote_network=1, relays=[], online=False) for id in (1, 2)])
    (route,) = made.routes(database(made), NOW, {2: [1, 77]})
    assert (route.connector.id, [relay.id for relay in route.relays]) == (2, [1])
    with pytest.raises(FlowRefused, match="none is connected"):
        made.routes(database(made), NOW, {9: [1]})  # linked once, and no connector of this network now


# ---- find


@pytest.mark.parametrize(
    ("wanted", "id"),
    [
        ("Orders database", 1),
        ("db.internal", 1),
        ("db.internal:5432", 1),
        ("DB.Internal.", 1),
        ("10.0.0.0/8", 2),
        ("10.1.2.3", 2),
        ("10.1.2.3:22", 2),
        ("www.acme.example", 3),
        ("www.acme.example:80", 3),
        ("[fd00::1]:443", 4),
        ("fd00::1", 4),
    ],
)
def test_resources_are_found_by_name_address_or_alias(wanted: str, id: int) -> None:
    more = [*configuration().resources, entry(3, "web.internal", alias="www.acme.example"), entry(4, "fd00::/16")]
    assert core(resources=more).find(wanted).id == id


@pytest.mark.parametrize(
    ("wanted", "host"),
    [
        ("Orders database:5432", "db.internal"),
        ("db.internal:5432", "db.internal"),
        ("www.acme.example:80", "www.acme.example"),
        ("web.internal:80", "web.internal"),
        ("one:80", "192.0.2.7"),
        ("10.1.2.3:22", "10.1.2.3"),
    ],
)
def test_a_resource_asked_for_by_its_name_is_dialled_at_its_address(wanted: str, host: str) -> None:
    more = [*configuration().resources, entry(3, "web.internal", alias="www.acme.example"), entry(4, "192.0.2.7", name="one")]
    made = core(resources=more)
    assert made.host_of(made.find(wanted), wanted.rpartition(":")[0]) == host


@pytest.mark.parametrize("address", ["172.16.0.0/12", "*.lab.internal"])
def test_a_resource_of_many_hosts_is_not_dialled_by_its_name(address: str) -> None:
    made = core(resources=[entry(1, address, name="lab")])
    with pytest.raises(FlowRefused) as caught:
        made.host_of(made.find("lab:80"), "lab")
    assert caught.value.hint == "name one of them: HOST:PORT"


def test_what_is_not_found_is_answered_with_what_is_granted() -> None:
    with pytest.raises(FlowRefused) as caught:
        core().find("nothing.internal")
    assert caught.value.hint == "granted: 'Orders database', 'resource 2'"


@pytest.mark.parametrize(
    "wanted", ["", "orders database", "nothing.internal", "db.internal:", ":80", "11.0.0.1", "a b", "[::1", "%"]
)
def test_what_was_not_granted_is_not_found(wanted: str) -> None:
    with pytest.raises(FlowRefused) as caught:
        core().find(wanted)
    assert caught.value.failure is FlowFailure.NOT_GRANTED


def test_what_was_not_chosen_is_refused_and_never_goes_past_klinket() -> None:
    made = ClientCore(["db.internal"])
    made.configure(configuration(resources=[entry(1, "db.internal"), entry(2, "*.internal"), entry(3, "web.example")]))
    assert [resource.id for resource in made.resources] == [1]
    assert made.decide(tcp("db.internal"), NOW).id == 1
    for host in ("other.internal", "web.example"):
        assert made.resource_for(host) is None
        assert made.claims(host)
        with pytest.raises(FlowRefused, match=r"is granted, but only db\.internal may be used here") as caught:
            made.decide(tcp(host), NOW)
        assert caught.value.failure is FlowFailure.NOT_GRANTED
    assert not made.claims("public.example")
    with pytest.raises(FlowRefused) as caught:
        made.find("web.example")
    assert "'resource 3'" in str(caught.value.hint) or "web.example" in str(caught.value.hint)


def test_a_choice_does_not_change_which_resource_serves_a_host() -> None:
    made = ClientCore(["*.internal"])
    made.configure(configuration(resources=[entry(1, "db.internal"), entry(2, "*.internal")]))
    assert made.decide(tcp("web.internal"), NOW).id == 2
    with pytest.raises(FlowRefused, match="is granted, but only"):
        made.decide(tcp("db.internal"), NOW)


@pytest.mark.parametrize(
    ("wanted", "host", "port"),
    [
        ("db.internal:5432", "db.internal", 5432),
        ("DB.internal:1", "db.internal", 1),
        ("[fd00::7]:22", "fd00::7", 22),
        ("one.internal", "one.internal", 443),
    ],
)
def test_a_resource_with_a_port_is_a_destination(wanted: str, host: str, port: int) -> None:
    only = entry(4, "one.internal", tcp=[PortSpan(443, 443)])
    made = core(resources=[entry(1, "db.internal"), entry(2, "fd00::/16"), only])
    assert made.destination(wanted) == tcp(host, port)


def test_a_resource_of_many_ports_needs_one_to_be_a_destination() -> None:
    with pytest.raises(InvalidInput, match="which port"):
        core(resources=[entry(1, "db.internal")]).destination("db.internal")


# ---- coming back to the controller


def test_it_waits_half_of_what_is_left_of_its_grants_at_the_most() -> None:
    made = core()  # valid for 300 s
    assert made.longest_wait(NOW) == 150
    assert made.longest_wait(NOW + 290) == 5


def test_without_grants_nothing_presses() -> None:
    assert ClientCore().longest_wait(NOW) == math.inf
    assert core().longest_wait(NOW + 300) == math.inf
