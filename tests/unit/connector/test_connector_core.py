"""Every flow is checked against the grant in force now, and again before OPENED; the end of access ends it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klinket.connector import core as connector_core
from klinket.connector import limits
from klinket.connector.core import ConnectorCore, Flow, LinkRecord
from klinket.domain.cut import CutScope
from klinket.domain.errors import FlowRefused, InvalidToken, ProtocolError
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.domain.identifiers import RemoteNetworkId, ResourceId
from klinket.domain.resource import Resource
from klinket.wire.control import AccountLimits, LimitsOfAccount
from klinket.wire.grant_token import MAX_LIFETIME_SECONDS
from klinket.wire.pipe_messages import OpenRequest
from klinket.wire.signing import LEEWAY_SECONDS, KeySet, SigningKey
from tests.unit.connector.conftest import (
    ACCOUNT,
    DATABASE,
    KEY,
    LIMITS,
    NETWORK,
    NOW,
    OTHER_ACCOUNT,
    REMOTE,
    WEB,
    World,
    principal,
    record,
    request,
    resource,
    rule,
    tcp,
)


def refused(world: World, link: LinkRecord, destination: Destination, now: float = NOW) -> FlowFailure:
    """Open a flow that must be refused; returns why. Nothing stays in the table."""
    before = world.core.flows
    with pytest.raises(FlowRefused) as caught:
        world.core.open(link, request(destination), now)
    assert world.core.flows == before
    assert isinstance(caught.value.failure, FlowFailure)
    return caught.value.failure


# ---- the grant


def test_a_granted_flow_is_entered_in_the_table_and_taken_out_at_its_end(world: World) -> None:
    link = world.granted(DATABASE)
    flow = world.core.open(link, request(tcp("db.internal", 5432)), NOW)
    assert (flow.resource, flow.principal, flow.opened_at) == (DATABASE, link.principal, NOW)
    assert world.core.flows == 1
    world.core.close(flow)
    world.core.close(flow)  # once more changes nothing
    assert world.core.flows == 0


def test_without_a_grant_nothing_opens(world: World) -> None:
    assert refused(world, record(), tcp("db.internal", 5432)) is FlowFailure.NOT_GRANTED


@pytest.mark.parametrize(
    "destination",
    [
        tcp("db.internal", 5433),
        tcp("other.internal", 5432),
        tcp("sub.db.internal", 5432),
        tcp("10.0.0.1", 5432),
        tcp("web.internal", 81),
        tcp("web.internal", 7999),
        tcp("web.internal", 9000),
        Destination("db.internal", 5432, TransportProtocol.UDP),
        Destination("web.internal", 80, TransportProtocol.UDP),
    ],
    ids=str,
)
def test_what_the_grant_does_not_name_is_refused(world: World, destination: Destination) -> None:
    assert refused(world, world.granted(DATABASE, WEB), destination) is FlowFailure.NOT_GRANTED


@pytest.mark.parametrize(
    "destination",
    [
        tcp("web.internal", 80),
        tcp("web.internal", 8000),
        tcp("web.internal", 8999),
        tcp("www.acme.example", 80),
        Destination("web.internal", 53, TransportProtocol.UDP),
    ],
    ids=str,
)
def test_what_the_grant_names_is_allowed_up_to_the_edge_of_its_ranges(world: World, destination: Destination) -> None:
    assert world.core.open(world.granted(DATABASE, WEB), request(destination), NOW).resource == WEB


def test_the_resource_a_client_names_in_its_open_does_not_matter(world: World) -> None:
    link = world.granted(DATABASE)
    lying = request(tcp("web.internal", 80))
    assert lying.resource == 0
    with pytest.raises(FlowRefused, match=r"web\.internal"):
        world.core.open(link, lying, NOW)


def test_a_grant_ends_with_its_time_and_the_leeway(world: World) -> None:
    link = world.granted(DATABASE)
    last = NOW + 300 + LEEWAY_SECONDS
    assert world.core.open(link, request(tcp("db.internal", 5432)), last - 0.001)
    assert refused(world, link, tcp("db.internal", 5432), last) is FlowFailure.GRANT_EXPIRED


@pytest.mark.parametrize("lifetime", [-300.0, -10.0])
def test_an_expired_grant_cannot_be_presented(world: World, lifetime: float) -> None:
    link = record()
    token = world.grant(link, DATABASE, now=NOW + lifetime - 100, lifetime=100)
    with pytest.raises(InvalidToken, match="expired"):
        world.core.present_grant(link, token, NOW)
    assert refused(world, link, tcp("db.internal", 5432)) is FlowFailure.NOT_GRANTED


def test_a_grant_from_the_future_or_for_too_long_cannot_be_presented(world: World) -> None:
    link = record()
    with pytest.raises(InvalidToken, match="future"):
        world.core.present_grant(link, world.grant(link, DATABASE, now=NOW + 60), NOW)
    with pytest.raises(InvalidToken, match="longer"):
        world.core.present_grant(link, world.grant(link, DATABASE, lifetime=MAX_LIFETIME_SECONDS + 60), NOW)


@pytest.mark.parametrize(
    "other",
    [principal(session="b" * 22), principal(key="key-2"), principal(account=OTHER_ACCOUNT)],
    ids=["session", "key", "account"],
)
def test_a_grant_of_somebody_else_is_not_taken(world: World, other: object) -> None:
    link = record()
    token = world.grant(link, DATABASE, who=other)  # type: ignore[arg-type]
    with pytest.raises(InvalidToken, match="another session"):
        world.core.present_grant(link, token, NOW)
    assert refused(world, link, tcp("db.internal", 5432)) is FlowFailure.NOT_GRANTED


def test_a_grant_bound_to_another_session_key_is_not_taken(world: World) -> None:
    link = record()
    with pytest.raises(InvalidToken, match="another session"):
        world.core.present_grant(link, world.grant(link, DATABASE, jkt="stolen"), NOW)


def test_a_grant_of_another_network_remote_network_or_signer_is_not_taken(world: World) -> None:
    link = record()
    elsewhere = RemoteNetworkId(4)
    there = resource(9, "db.internal", remote=elsewhere)
    tokens = {
        "somebody else": world.grant(link, DATABASE, network="evil"),
        "audience": world.grant(link, there, remote=elsewhere),
        "not known here": world.grant(link, DATABASE, key=SigningKey.generate("grants-2")),
        "signature": world.grant(link, DATABASE, key=SigningKey.generate(KEY.kid)),
        "another remote network": world.grant(link, there),
    }
    for reason, token in tokens.items():
        with pytest.raises(InvalidToken, match=reason):
            world.core.present_grant(link, token, NOW)
    assert refused(world, link, tcp("db.internal", 5432)) is FlowFailure.NOT_GRANTED


def test_an_older_grant_does_not_come_back(world: World) -> None:
    link = world.granted(DATABASE, WEB, stamp=(1, 10))
    older = world.grant(link, DATABASE, WEB, stamp=(1, 9))
    world.core.present_grant(link, world.grant(link, WEB, stamp=(1, 11)), NOW)
    for token in (older, world.grant(link, DATABASE, stamp=(1, 10))):
        with pytest.raises(InvalidToken, match="older"):
            world.core.present_grant(link, token, NOW)
    assert refused(world, link, tcp("db.internal", 5432)) is FlowFailure.NOT_GRANTED
    assert world.core.open(link, request(tcp("web.internal", 80)), NOW)


def test_a_newer_grant_ends_the_flows_it_does_not_name_any_more(world: World) -> None:
    link = world.granted(DATABASE, WEB)
    database = world.core.open(link, request(tcp("db.internal", 5432)), NOW)
    world.core.open(link, request(tcp("web.internal", 80)), NOW)
    _, ended = world.core.present_grant(link, world.grant(link, WEB, stamp=(1, 12)), NOW)
    assert [(one.flow, one.failure) for one in ended] == [(database, FlowFailure.CUT)]
    assert world.core.flows == 1


def test_a_grant_of_one_session_is_of_no_use_to_another(world: World) -> None:
    world.granted(DATABASE)
    assert refused(world, record(principal(session="b" * 22)), tcp("db.internal", 5432)) is FlowFailure.NOT_GRANTED


def test_a_grant_presented_on_one_link_serves_all_links_of_the_session(world: World) -> None:
    world.granted(DATABASE)
    other = record()
    world.core.add_link(other, NOW)
    assert world.core.open(other, request(tcp("db.internal", 5432)), NOW).resource == DATABASE


def test_a_flow_id_in_use_breaks_the_protocol(world: World) -> None:
    link = world.granted(DATABASE)
    opened = request(tcp("db.internal", 5432))
    world.core.open(link, opened, NOW)
    with pytest.raises(ProtocolError):
        world.core.open(link, opened, NOW)
    assert world.core.flows == 1


def test_a_draining_connector_opens_nothing_new(world: World) -> None:
    link = world.granted(DATABASE)
    flow = world.core.open(link, request(tcp("db.internal", 5432)), NOW)
    world.core.draining = True
    assert refused(world, link, tcp("db.internal", 5432)) is FlowFailure.DRAINING
    world.core.recheck(flow, NOW)  # one that is being dialled goes on


# ---- looking again before OPENED


def opening(world: World) -> tuple[LinkRecord, Flow]:
    link = world.granted(DATABASE)
    return link, world.core.open(link, request(tcp("db.internal", 5432)), NOW)


def test_nothing_changed_while_dialling(world: World) -> None:
    _, flow = opening(world)
    world.core.recheck(flow, NOW + 10)
    assert world.core.flows == 1


def test_a_cut_while_dialling_is_seen(world: World) -> None:
    _, flow = opening(world)
    ended = world.core.apply_cut(world.cut(CutScope.of_account(ACCOUNT), reason=FlowFailure.SERVICE_KEY_REVOKED), NOW)
    assert [one.flow for one in ended] == [flow]
    with pytest.raises(FlowRefused) as caught:
        world.core.recheck(flow, NOW)
    assert caught.value.failure is FlowFailure.CUT


def test_a_grant_that_ends_while_dialling_is_seen(world: World) -> None:
    _, flow = opening(world)
    with pytest.raises(FlowRefused) as caught:
        world.core.recheck(flow, NOW + 300 + LEEWAY_SECONDS)
    assert caught.value.failure is FlowFailure.GRANT_EXPIRED


def test_a_newer_grant_without_the_resource_while_dialling_is_seen(world: World) -> None:
    link, flow = opening(world)
    world.core.present_grant(link, world.grant(link, WEB, stamp=(1, 11)), NOW)
    with pytest.raises(FlowRefused):
        world.core.recheck(flow, NOW)


# ---- cuts and floors


@pytest.mark.parametrize(
    "scope",
    [
        CutScope.of_account(ACCOUNT),
        CutScope.of_key(principal().key),
        CutScope.of_session(principal().session),
        CutScope.of_resource(DATABASE.id),
        CutScope.of_access(ACCOUNT, DATABASE.id),
    ],
    ids=str,
)
def test_a_cut_ends_what_is_in_its_scope_and_below_its_floor(world: World, scope: CutScope) -> None:
    link = world.granted(DATABASE)
    flow = world.core.open(link, request(tcp("db.internal", 5432)), NOW)
    cut = world.cut(scope, reason=FlowFailure.SERVICE_KEY_REVOKED)
    ended = world.core.apply_cut(cut, NOW)
    assert [(one.flow, one.failure) for one in ended] == [(flow, FlowFailure.SERVICE_KEY_REVOKED)]
    assert world.core.flows == 0
    assert refused(world, link, tcp("db.internal", 5432)) is FlowFailure.SERVICE_KEY_REVOKED
    assert world.core.apply_cut(cut, NOW) == []  # again: it is in force already


@pytest.mark.parametrize(
    "scope",
    [
        CutScope.of_account(OTHER_ACCOUNT),
        CutScope.of_key(principal(key="key-2").key),
        CutScope.of_session(principal(session="b" * 22).session),
        CutScope.of_resource(WEB.id),
        CutScope.of_access(OTHER_ACCOUNT, DATABASE.id),
        CutScope.of_access(ACCOUNT, WEB.id),
    ],
    ids=str,
)
def test_a_cut_leaves_alone_what_is_outside_its_scope(world: World, scope: CutScope) -> None:
    link = world.granted(DATABASE)
    flow = world.core.open(link, request(tcp("db.internal", 5432)), NOW)
    assert world.core.apply_cut(world.cut(scope), NOW) == []
    world.core.recheck(flow, NOW)
    assert world.core.open(link, request(tcp("db.internal", 5432)), NOW)


def test_a_cut_strikes_one_resource_and_the_others_go_on(world: World) -> None:
    link = world.granted(DATABASE, WEB)
    database = world.core.open(link, request(tcp("db.internal", 5432)), NOW)
    web = world.core.open(link, request(tcp("web.internal", 80)), NOW)
    ended = world.core.apply_cut(world.cut(CutScope.of_resource(DATABASE.id)), NOW)
    assert [one.flow for one in ended] == [database]
    world.core.recheck(web, NOW)
    assert refused(world, link, tcp("db.internal", 5432)) is FlowFailure.CUT


@pytest.mark.parametrize(
    ("stamp", "struck"), [((1, 19), True), ((1, 20), False), ((1, 21), False), ((0, 99), True), ((2, 1), True)]
)
def test_a_cut_strikes_only_grants_below_its_floor(world: World, stamp: tuple[int, int], struck: bool) -> None:
    world.core.apply_cut(world.cut(CutScope.of_access(ACCOUNT, DATABASE.id), stamp=(1, 20)), NOW)
    link = world.granted(DATABASE, stamp=stamp)
    if struck:
        assert refused(world, link, tcp("db.internal", 5432)) is FlowFailure.CUT
    else:
        assert world.core.open(link, request(tcp("db.internal", 5432)), NOW)


def test_a_cut_that_narrows_leaves_what_remains(world: World) -> None:
    link = world.granted(WEB)
    kept = world.core.open(link, request(tcp("web.internal", 8080)), NOW)
    gone = world.core.open(link, request(tcp("web.internal", 80)), NOW)
    remaining = resource(2, "web.internal", tcp=rule((8000, 8999)), udp=rule())
    ended = world.core.apply_cut(world.cut(CutScope.of_resource(WEB.id), narrowed=remaining), NOW)
    assert [(one.flow, one.failure) for one in ended] == [(gone, FlowFailure.CUT)]
    world.core.recheck(kept, NOW)
    assert refused(world, link, tcp("web.internal", 80)) is FlowFailure.NOT_GRANTED
    assert refused(world, link, tcp("www.acme.example", 8080)) is FlowFailure.NOT_GRANTED  # the alias went, too


def test_a_floor_outlives_the_longest_grant_that_could_be_older(world: World) -> None:
    cut = world.cut(CutScope.of_account(ACCOUNT))
    world.core.apply_cut(cut, NOW)
    later = NOW + MAX_LIFETIME_SECONDS + LEEWAY_SECONDS
    world.core.apply_cut(world.cut(CutScope.of_account(OTHER_ACCOUNT), stamp=(1, 30), issued_at=later), later)
    assert {kept.id for kept in world.core.floors} == {1, 2}
    much_later = NOW + MAX_LIFETIME_SECONDS + 2 * LEEWAY_SECONDS + 1
    world.core.apply_cut(world.cut(CutScope.of_account(OTHER_ACCOUNT), stamp=(1, 31), issued_at=much_later), much_later)
    assert {kept.id for kept in world.core.floors} == {2, 3}


def test_a_timer_ends_the_flows_of_a_grant_that_ended(world: World) -> None:
    link = world.granted(DATABASE)
    flow = world.core.open(link, request(tcp("db.internal", 5432)), NOW)
    deadline = world.core.next_deadline()
    assert deadline == NOW + 300 + LEEWAY_SECONDS
    assert world.core.deadline_reached(deadline - 0.01) == []
    ended = world.core.deadline_reached(deadline)
    assert [(one.flow, one.failure) for one in ended] == [(flow, FlowFailure.GRANT_EXPIRED)]
    assert (world.core.flows, world.core.next_deadline()) == (0, None)
    assert refused(world, link, tcp("db.internal", 5432)) is FlowFailure.NOT_GRANTED


def test_a_renewed_grant_moves_the_deadline_and_the_flow_lives_on(world: World) -> None:
    link = world.granted(DATABASE)
    flow = world.core.open(link, request(tcp("db.internal", 5432)), NOW)
    world.core.present_grant(link, world.grant(link, DATABASE, stamp=(1, 10), now=NOW + 150), NOW + 150)
    assert world.core.deadline_reached(NOW + 306) == []
    world.core.recheck(flow, NOW + 306)
    assert world.core.next_deadline() == NOW + 450 + LEEWAY_SECONDS


# ---- what a cut may not miss


def test_a_cut_finds_the_flow_whose_resource_has_changed_since_it_was_opened(world: World) -> None:
    wildcard, exact = resource(2, "*.internal"), resource(1, "db.internal")
    link = world.granted(wildcard)
    flow = world.core.open(link, request(tcp("db.internal", 5432)), NOW)
    world.core.present_grant(link, world.grant(link, exact, wildcard, stamp=(1, 11)), NOW)
    assert flow.resource == exact
    assert world.core.apply_cut(world.cut(CutScope.of_access(ACCOUNT, wildcard.id), stamp=(1, 12)), NOW) == []
    ended = world.core.apply_cut(world.cut(CutScope.of_access(ACCOUNT, exact.id), stamp=(1, 13)), NOW)
    assert [one.flow for one in ended] == [flow]
    assert world.core.flows == 0


# ---- an alias that stands for another address

OLD_ADDRESS, NEW_ADDRESS = resource(1, "10.0.0.1", alias="db.corp"), resource(1, "10.0.0.2", alias="db.corp")


def by_alias(world: World) -> tuple[LinkRecord, Flow]:
    link = world.granted(OLD_ADDRESS, stamp=(1, 5))
    flow = world.core.open(link, request(tcp("db.corp", 5432)), NOW)
    assert flow.dialled == "10.0.0.1"
    return link, flow


@pytest.mark.parametrize(
    "replacing", [NEW_ADDRESS, resource(7, "10.0.0.2", alias="db.corp")], ids=["changed", "another resource"]
)
def test_a_newer_grant_ends_the_flow_whose_alias_stands_for_another_address(world: World, replacing: Resource) -> None:
    link, flow = by_alias(world)
    _, ended = world.core.present_grant(link, world.grant(link, replacing, stamp=(1, 6)), NOW)
    assert [(one.flow, one.failure) for one in ended] == [(flow, FlowFailure.CUT)]
    assert "another address" in ended[0].text
    assert world.core.apply_cut(world.cut(CutScope.of_resource(OLD_ADDRESS.id), stamp=(1, 6)), NOW) == []
    assert world.core.flows == 0
    with pytest.raises(FlowRefused):
        world.core.recheck(flow, NOW)
    assert world.core.open(link, request(tcp("db.corp", 5432)), NOW).dialled == "10.0.0.2"


@pytest.mark.parametrize("narrowed", [None, NEW_ADDRESS], ids=["all of it", "what remains"])
def test_a_cut_ends_the_flow_whose_alias_stands_for_another_address(world: World, narrowed: Resource | None) -> None:
    link, flow = by_alias(world)
    ended = world.core.apply_cut(world.cut(CutScope.of_resource(OLD_ADDRESS.id), stamp=(1, 6), narrowed=narrowed), NOW)
    assert [(one.flow, one.failure) for one in ended] == [(flow, FlowFailure.CUT)]
    with pytest.raises(FlowRefused):
        world.core.open(link, request(tcp("db.corp", 5432)), NOW)  # the grant before the change leads to the old address
    _, ended = world.core.present_grant(link, world.grant(link, NEW_ADDRESS, stamp=(1, 6)), NOW)
    assert ended == []
    assert world.core.open(link, request(tcp("db.corp", 5432)), NOW).dialled == "10.0.0.2"


def test_a_flow_by_alias_lives_on_while_the_alias_stands_for_the_same_address(world: World) -> None:
    link, flow = by_alias(world)
    same = resource(8, "10.0.0.1", alias="db.corp")
    assert world.core.present_grant(link, world.grant(link, same, stamp=(1, 6)), NOW)[1] == []
    assert (flow.resource, flow.opened_as) == (same, OLD_ADDRESS.id)
    assert world.core.apply_cut(world.cut(CutScope.of_resource(OLD_ADDRESS.id), stamp=(1, 7)), NOW) == []
    world.core.recheck(flow, NOW)


def test_a_flow_id_that_comes_again_does_not_hide_the_second_flow_from_a_cut(world: World) -> None:
    link = world.granted(DATABASE, WEB)
    first = request(tcp("web.internal", 80))
    old = world.core.open(link, first, NOW)
    world.core.apply_cut(world.cut(CutScope.of_resource(WEB.id)), NOW)
    new = world.core.open(link, OpenRequest(tcp("db.internal", 5432), first.resource, first.flow), NOW)
    with pytest.raises(FlowRefused):
        world.core.recheck(old, NOW)
    world.core.close(old)  # the first one's task gets to its end only now
    world.core.recheck(new, NOW)
    assert world.core.flows == 1
    ended = world.core.apply_cut(world.cut(CutScope.of_key(link.principal.key), stamp=(1, 21)), NOW)
    assert [one.flow for one in ended] == [new]


@pytest.mark.parametrize(
    "scope",
    [CutScope.of_key(principal().key), CutScope.of_account(ACCOUNT), CutScope.of_session(principal().session)],
    ids=lambda scope: scope.kind.value,
)
def test_a_cut_of_a_key_account_or_session_drops_grant_and_links_for_good(world: World, scope: CutScope) -> None:
    link, stranger = world.granted(DATABASE), world.granted(DATABASE, who=principal("z" * 22, "key-9", OTHER_ACCOUNT))
    world.core.apply_cut(world.cut(scope, reason=FlowFailure.SERVICE_KEY_REVOKED), NOW)
    assert world.core.link(link.link.handle, NOW) is None
    assert refused(world, link, tcp("db.internal", 5432)) is FlowFailure.SERVICE_KEY_REVOKED
    newer = world.grant(link, DATABASE, stamp=(9, 99))
    for attempt in (lambda: world.core.present_grant(link, newer, NOW), lambda: world.core.add_link(record(), NOW)):
        with pytest.raises(FlowRefused) as caught:
            attempt()
        assert caught.value.failure is FlowFailure.SERVICE_KEY_REVOKED
    assert world.core.link(stranger.link.handle, NOW) is stranger
    assert world.core.open(stranger, request(tcp("db.internal", 5432)), NOW)


@pytest.mark.parametrize("scope", [CutScope.of_resource(DATABASE.id), CutScope.of_access(ACCOUNT, DATABASE.id)])
def test_a_cut_of_a_resource_leaves_links_and_the_other_resources(world: World, scope: CutScope) -> None:
    link = world.granted(DATABASE, WEB)
    world.core.apply_cut(world.cut(scope), NOW)
    assert world.core.link(link.link.handle, NOW) is link
    assert world.core.open(link, request(tcp("web.internal", 80)), NOW)


_RESOURCES = (resource(1, "db.internal"), resource(2, "*.internal"), resource(3, "web.internal"), resource(4, "*.*.internal"))
_HOSTS = ("db.internal", "web.internal", "x.web.internal", "other.internal")
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("grant"), st.integers(0, 1), st.sets(st.integers(0, 3))),
        st.tuples(st.just("open"), st.integers(0, 1), st.sampled_from(_HOSTS)),
        st.tuples(st.just("cut"), st.integers(0, 1), st.integers(0, 3)),
        st.tuples(st.just("cut everybody"), st.just(0), st.integers(0, 3)),
        st.tuples(st.just("end"), st.integers(0, 1), st.none()),
    ),
    max_size=30,
)


@given(_STEPS)
@settings(max_examples=60, deadline=None)
def test_no_flow_lives_that_a_new_decision_would_refuse(steps: list[tuple[str, int, Any]]) -> None:
    world = World()
    world.core.configure(NETWORK, REMOTE, KeySet({KEY.kid: KEY.public_key}), LIMITS)
    links = [record(principal("a" * 22)), record(principal("b" * 22, "key-2", OTHER_ACCOUNT))]
    for made in links:
        world.core.add_link(made, NOW)
    live: set[Flow] = set()
    for revision, (step, which, what) in enumerate(steps, start=1):
        link, stamp = links[which], (1, revision)
        ended = []
        try:
            if step == "grant":
                granted = [_RESOURCES[one] for one in what]
                ended = world.core.present_grant(link, world.grant(link, *granted, stamp=stamp), NOW)[1]
            elif step == "open":
                live.add(world.core.open(link, request(tcp(what, 80)), NOW))
            else:
                scope = {
                    "cut": CutScope.of_access(link.principal.account, ResourceId(what or 0)),
                    "cut everybody": CutScope.of_resource(ResourceId(what or 0)),
                    "end": CutScope.of_session(link.principal.session),
                }[step]
                ended = world.core.apply_cut(world.cut(scope, stamp=stamp), NOW)
        except FlowRefused:
            pass
        live -= {one.flow for one in ended}
        assert world.core.flows == len(live)
        for flow in live:
            opener = next(link for link in links if link.principal == flow.principal)
            world.core.close(world.core.open(opener, request(flow.destination), NOW))


# ---- links


def test_a_link_is_found_by_its_handle_until_it_ends_or_is_dropped(world: World) -> None:
    link = record(expires_at=NOW + 100)
    world.core.add_link(link, NOW)
    assert world.core.link(link.link.handle, NOW + 99) is link
    assert world.core.link(link.link.handle, NOW + 100) is None
    assert world.core.link(bytes(16), NOW) is None
    world.core.drop_link(link.link.handle)
    assert world.core.link(link.link.handle, NOW) is None


def test_links_are_limited_in_fair_shares_and_ended_ones_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_LINKS", 4)
    core = ConnectorCore()
    sessions = [principal(session=letter * 22) for letter in "abcd"]
    core.add_link(record(sessions[0], expires_at=NOW + 10), NOW)
    core.add_link(record(sessions[1]), NOW)
    with pytest.raises(FlowRefused, match="its share") as caught:
        core.add_link(record(sessions[2]), NOW + 9)
    assert caught.value.failure is FlowFailure.THROTTLED
    stranger = record(principal(session="z" * 22, account=OTHER_ACCOUNT))
    core.add_link(stranger, NOW + 9)
    assert core.link(stranger.link.handle, NOW + 9) is stranger
    core.add_link(record(sessions[3]), NOW + 10)


def test_a_sessions_own_oldest_link_gives_way_and_nobody_elses(world: World) -> None:
    stranger = record(principal(session="z" * 22))
    world.core.add_link(stranger, NOW)
    links = [record() for _ in range(limits.MAX_LINKS_PER_SESSION + 1)]
    assert [world.core.add_link(link, NOW) for link in links] == [None] * limits.MAX_LINKS_PER_SESSION + [links[0]]
    assert world.core.link(links[0].link.handle, NOW) is None
    assert all(world.core.link(link.link.handle, NOW) is link for link in [stranger, *links[1:]])


# ---- limits


def test_live_flows_of_an_account_are_limited_over_all_its_sessions(world: World) -> None:
    keys = KeySet({KEY.kid: KEY.public_key})
    world.core.configure(NETWORK, REMOTE, keys, AccountLimits(new_flows_per_second=1000, new_flows_burst=1000, max_flows=2))
    one, two = world.granted(DATABASE), world.granted(DATABASE, who=principal(session="b" * 22, key="key-2"))
    stranger = world.granted(DATABASE, who=principal(session="c" * 22, account=OTHER_ACCOUNT))
    first = world.core.open(one, request(tcp("db.internal", 5432)), NOW)
    world.core.open(two, request(tcp("db.internal", 5432)), NOW)
    assert refused(world, one, tcp("db.internal", 5432)) is FlowFailure.THROTTLED
    assert refused(world, two, tcp("db.internal", 5432)) is FlowFailure.THROTTLED
    assert world.core.open(stranger, request(tcp("db.internal", 5432)), NOW)
    world.core.close(first)
    assert world.core.open(two, request(tcp("db.internal", 5432)), NOW)


def test_new_flows_of_an_account_are_limited_and_the_refusal_says_when_to_come_back(world: World) -> None:
    keys = KeySet({KEY.kid: KEY.public_key})
    world.core.configure(NETWORK, REMOTE, keys, AccountLimits(new_flows_per_second=2, new_flows_burst=3, max_flows=1000))
    link = world.granted(DATABASE)
    for _ in range(3):
        world.core.open(link, request(tcp("db.internal", 5432)), NOW)
    with pytest.raises(FlowRefused) as caught:
        world.core.open(link, request(tcp("db.internal", 5432)), NOW)
    assert caught.value.failure is FlowFailure.THROTTLED
    assert caught.value.retry_after == pytest.approx(0.5)
    assert "2 flows a second" in caught.value.message
    assert world.core.open(link, request(tcp("db.internal", 5432)), NOW + 0.5)


def test_an_account_with_limits_of_its_own_has_those_and_others_have_those_of_all(world: World) -> None:
    keys, few = KeySet({KEY.kid: KEY.public_key}), AccountLimits(new_flows_per_second=2, new_flows_burst=2, max_flows=1)
    many = AccountLimits(new_flows_per_second=1000, new_flows_burst=1000, max_flows=1000)
    stranger = world.granted(DATABASE, who=principal(session="c" * 22, account=OTHER_ACCOUNT))
    link = world.granted(DATABASE)
    world.core.configure(NETWORK, REMOTE, keys, many, [LimitsOfAccount(service_account=OTHER_ACCOUNT, limits=few)])
    flow = world.core.open(stranger, request(tcp("db.internal", 5432)), NOW)
    assert refused(world, stranger, tcp("db.internal", 5432)) is FlowFailure.THROTTLED
    world.core.close(flow)
    world.core.close(world.core.open(stranger, request(tcp("db.internal", 5432)), NOW))
    with pytest.raises(FlowRefused, match=r"2 flows a second.*again in 0\.5 s"):
        world.core.open(stranger, request(tcp("db.internal", 5432)), NOW)
    for _ in range(20):
        world.core.open(link, request(tcp("db.internal", 5432)), NOW)
    world.core.configure(NETWORK, REMOTE, keys, many)
    assert world.core.open(stranger, request(tcp("db.internal", 5432)), NOW + 0.01)


def test_a_flow_that_lives_goes_on_when_its_account_gets_a_lower_limit(world: World) -> None:
    keys, many = KeySet({KEY.kid: KEY.public_key}), AccountLimits(new_flows_per_second=9, new_flows_burst=9, max_flows=9)
    few = AccountLimits(new_flows_per_second=9, new_flows_burst=9, max_flows=1)
    link = world.granted(DATABASE)
    flows = [world.core.open(link, request(tcp("db.internal", 5432)), NOW) for _ in range(3)]
    own = [LimitsOfAccount(service_account=link.principal.account, limits=few)]
    world.core.configure(NETWORK, REMOTE, keys, many, own)
    for flow in flows:
        world.core.recheck(flow, NOW)
    assert refused(world, link, tcp("db.internal", 5432)) is FlowFailure.THROTTLED


def test_flows_that_are_not_granted_use_up_no_limit(world: World) -> None:
    keys = KeySet({KEY.kid: KEY.public_key})
    world.core.configure(NETWORK, REMOTE, keys, AccountLimits(new_flows_per_second=1, new_flows_burst=1, max_flows=1))
    link = world.granted(DATABASE)
    for _ in range(5):
        assert refused(world, link, tcp("web.internal", 80)) is FlowFailure.NOT_GRANTED
    assert world.core.open(link, request(tcp("db.internal", 5432)), NOW)


def test_all_flows_together_are_limited(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector_core.limits, "MAX_FLOWS", 1)
    world.core.open(world.granted(DATABASE), request(tcp("db.internal", 5432)), NOW)
    stranger = world.granted(DATABASE, who=principal(session="c" * 22, account=OTHER_ACCOUNT))
    assert refused(world, stranger, tcp("db.internal", 5432)) is FlowFailure.THROTTLED


def test_a_core_without_a_configuration_takes_no_grant(world: World) -> None:
    link = record()
    with pytest.raises(InvalidToken):
        ConnectorCore().present_grant(link, world.grant(link, DATABASE), NOW)
