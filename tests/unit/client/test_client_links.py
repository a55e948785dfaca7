"""What becomes of UDP flows when their link is replaced, or lost: a connector sends their answers where the newest link leads."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from klinket.client.core import ClientCore
from klinket.client.flow import ClientDatagrams
from klinket.client.link import ConnectorLink
from klinket.client.links import LinkSet
from klinket.net.tasks import TaskSet
from klinket.wire.inventory import ConnectorEntry
from klinket.wire.link import Link
from tests.unit.client.conftest import granted
from tests.unit.net.conftest import Ends, ends
from tests.unit.taken import Taken

__all__ = ["ends"]
FLOW = b"flow-one"


class Lost:
    """Takes the place of a Linker: is told of links that broke."""

    def __init__(self) -> None:
        self.links: list[ConnectorLink] = []

    def lost(self, link: ConnectorLink) -> None:
        self.links.append(link)


def a_link(connector: int = 7) -> ConnectorLink:
    """Return a link without a connector behind it."""
    entry = ConnectorEntry(id=connector, name=f"office-{connector}", remote_network=1)
    made = ConnectorLink(entry, (), Link(os.urandom(16), os.urandom(32), 4e9), ClientCore(), lambda: 0.0)
    made.usable = True
    return made


@pytest.fixture
async def links() -> AsyncIterator[LinkSet]:
    tasks = TaskSet("test")
    yield LinkSet(cast(Any, Lost()), cast(Any, None), tasks, lambda: False)
    await tasks.aclose()


def takes(link: ConnectorLink, flow: bytes = FLOW) -> bool:
    """Return whether what the connector sends sealed for a flow on a link is delivered."""
    return flow in link.datagrams._flows


def association(ends: Ends, link: ConnectorLink, *, seals: bool = True) -> ClientDatagrams:
    ends.client.flow = os.urandom(16)
    return ClientDatagrams(granted(1, "dns.internal"), ends.client, link, lambda _: None, seals=seals)


@pytest.mark.parametrize("times", [1, 2])
async def test_the_next_link_takes_the_flows_of_one_that_was_lost(links: LinkSet, times: int) -> None:
    got = Taken()
    first = link = a_link()
    links.install(link)
    link.datagrams.add(FLOW, got.take)
    for _ in range(times):
        await links.lost(link)
        assert not links.by_connector
        link = a_link()
        links.install(link)
    link.datagrams._flows[FLOW](b"answer", 6)
    assert got == [b"answer"]
    assert first.datagrams.successor is not None


async def test_flows_of_a_lost_link_go_to_no_other_connectors_link(links: LinkSet) -> None:
    lost, other = a_link(7), a_link(8)
    links.install(lost)
    lost.datagrams.add(FLOW, print)
    await links.lost(lost)
    links.install(other)
    assert not takes(other)


async def test_flows_of_a_session_that_ended_go_to_no_link_of_the_next(links: LinkSet) -> None:
    for lost in (True, False):
        link, of_the_next = a_link(), a_link()
        links.install(link)
        link.datagrams.add(FLOW, print)
        if lost:
            await links.lost(link)
        links.end_session("old link")
        links.install(of_the_next)
        assert not takes(of_the_next)
        links.end_session("old link")


async def test_a_flow_that_is_lost_with_one_link_and_ends_is_not_kept_by_the_next(links: LinkSet, ends: Ends) -> None:
    link = a_link()
    links.install(link)
    flow = association(ends, link)
    flow.start(print, print)
    assert takes(link, flow._flow)
    await links.lost(link)
    flow.close()
    following = a_link()
    links.install(following)
    assert not takes(following, flow._flow)


async def test_a_flow_that_starts_after_its_link_was_replaced_is_at_the_new_one(links: LinkSet, ends: Ends) -> None:
    link, following = a_link(), a_link()
    links.install(link)
    flow = association(ends, link)
    links.install(following)
    flow.start(print, print)
    flow.put(b"question")
    assert takes(following, flow._flow)
    assert (await ends.connector.receive()).content == b"question", "as a frame, while there is no path"
    flow.close()
    assert not takes(following, flow._flow)


async def test_a_ping_stays_framed(links: LinkSet, ends: Ends) -> None:
    link = a_link()
    links.install(link)
    flow = association(ends, link, seals=False)
    link.datagrams._path = cast(Any, AnyPath())  # a connector that is met directly
    flow.start(print, print)
    flow.put(b"echo")
    assert (await ends.connector.receive()).content == b"echo"
    assert not takes(link, flow._flow)
    assert not link.datagrams._flows
    assert link.datagrams.send(FLOW, b"of UDP"), "others are sealed there"
    link.datagrams._path = None
    flow.close()


class AnyPath:
    """A path that takes every datagram."""

    def send(self, flow: bytes, datagram: bytes) -> bool:
        return True
