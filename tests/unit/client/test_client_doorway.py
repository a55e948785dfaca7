"""Where a captured address leads: to a granted resource under the name it stands for, or past klinket; never elsewhere."""

from __future__ import annotations

import socket

import pytest

from klinket.client.capture.direct import DirectStream
from klinket.client.capture.doorway import MAX_REMEMBERED, Doorway
from klinket.client.capture.host_loopback import HOST_LOOPBACK, HOST_NAME
from klinket.client.capture.synthetic import SyntheticAddresses
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from tests.unit.client.conftest import Echo, FakeClient

TCP, UDP = TransportProtocol.TCP, TransportProtocol.UDP


@pytest.fixture
def names() -> SyntheticAddresses:
    return SyntheticAddresses()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def doorway(client: FakeClient, names: SyntheticAddresses, told: list[str]) -> Doorway:
    return Doorway(client, names, told.append)


def test_a_synthetic_address_means_its_name(doorway: Doorway, names: SyntheticAddresses) -> None:
    address = names.address_of("echo.internal")
    assert address is not None
    assert doorway.destination(address, 5432, TCP) == Destination("echo.internal", 5432, TCP)
    assert doorway.destination("10.0.0.5", 53, UDP) == Destination("10.0.0.5", 53, UDP)


def test_a_synthetic_address_of_nobody_is_unreachable(doorway: Doorway) -> None:
    with pytest.raises(FlowRefused) as refused:
        doorway.destination("100.96.3.4", 80, TCP)
    assert refused.value.failure is FlowFailure.UNREACHABLE


async def test_what_is_granted_goes_through_klinket(doorway: Doorway, client: FakeClient) -> None:
    destination = Destination("echo.internal", 80, TCP)
    assert doorway.is_klinkets(destination)
    assert isinstance(await doorway.open_stream(destination), Echo)
    assert client.asked == [destination]


async def test_what_nobody_granted_is_dialled_from_here(doorway: Doorway, client: FakeClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        flow = await doorway.open_stream(Destination("127.0.0.1", server.getsockname()[1], TCP))
        assert isinstance(flow, DirectStream)
        flow.abort()
    assert client.asked == []


async def test_a_name_klinket_answered_for_never_goes_past_it_even_when_the_grant_is_gone(
    doorway: Doorway, client: FakeClient, names: SyntheticAddresses, told: list[str]
) -> None:
    names.address_of("echo.internal")
    client.resources.clear()
    with pytest.raises(FlowRefused) as refused:
        await doorway.open_stream(Destination("echo.internal", 80, TCP))
    assert refused.value.failure is FlowFailure.NOT_GRANTED
    assert told == ["klinket: echo.internal:80: not-granted: no granted resource serves echo.internal"]


async def test_a_refusal_is_told_once_for_a_while_with_host_port_word_and_hint(
    doorway: Doorway, client: FakeClient, told: list[str]
) -> None:
    client.refusals["echo.internal"] = FlowRefused(FlowFailure.REFUSED, "it said no", hint="start it")
    for _ in range(3):
        with pytest.raises(FlowRefused):
            await doorway.open_stream(Destination("echo.internal", 80, TCP))
        with pytest.raises(FlowRefused):
            await doorway.open_datagrams(Destination("echo.internal", 53, UDP))
    assert told == [
        "klinket: echo.internal:80: refused: it said no (start it)",
        "klinket: echo.internal:53: refused: it said no (start it)",
    ]


def test_an_ipv6_address_is_told_in_brackets(doorway: Doorway, told: list[str]) -> None:
    doorway.tell(Destination("2001:db8::1", 443, TCP), FlowRefused(FlowFailure.TIMED_OUT, "silence"))
    assert told == ["klinket: [2001:db8::1]:443: timed-out: silence"]


def test_another_failure_of_the_same_destination_is_told_too(doorway: Doorway, told: list[str]) -> None:
    destination = Destination("echo.internal", 80, TCP)
    for failure in (FlowFailure.REFUSED, FlowFailure.TIMED_OUT, FlowFailure.REFUSED):
        doorway.tell(destination, FlowRefused(failure, "no"))
    assert [line.split(": ")[2] for line in told] == ["refused", "timed-out"]


def test_a_scan_of_ports_does_not_fill_the_memory(doorway: Doorway, told: list[str]) -> None:
    for port in range(1, 3 * MAX_REMEMBERED):
        doorway.tell(Destination("echo.internal", port, TCP), FlowRefused(FlowFailure.NOT_GRANTED, "no"))
    assert len(told) == 3 * MAX_REMEMBERED - 1
    assert len(doorway._lately) <= MAX_REMEMBERED


# ---- the host's loopback, and what a proxy is asked for


@pytest.fixture
def open_doorway(client: FakeClient, names: SyntheticAddresses, told: list[str]) -> Doorway:
    """A doorway that leads to the host's loopback."""
    return Doorway(client, names, told.append, host_loopback=True)


@pytest.mark.parametrize("host", [HOST_LOOPBACK, HOST_NAME])
async def test_the_hosts_loopback_is_reached_where_that_was_asked_for(
    open_doorway: Doorway, client: FakeClient, host: str
) -> None:
    client.grant("127.0.0.0/8")  # of the private side: it has nothing to do with the host's own
    with socket.create_server(("127.0.0.1", 0)) as server:
        destination = Destination(host, server.getsockname()[1], TCP)
        flow = await open_doorway.open_asked(destination)
        assert isinstance(flow, DirectStream)
        flow.abort()
    assert open_doorway.outside(Destination(HOST_LOOPBACK, 53, UDP)) == Destination("127.0.0.1", 53, UDP)
    assert not open_doorway.is_klinkets(Destination(HOST_LOOPBACK, 53, UDP))
    assert client.asked == []


async def test_a_resource_of_that_name_comes_first(open_doorway: Doorway, client: FakeClient) -> None:
    client.grant(HOST_NAME)
    assert isinstance(await open_doorway.open_asked(Destination(HOST_NAME, 80, TCP)), Echo)


async def test_without_it_the_address_is_one_like_any_other(doorway: Doorway) -> None:
    destination = Destination(HOST_LOOPBACK, 80, UDP)
    assert doorway.outside(destination) == destination


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "127.9.9.9", "::1"])
async def test_a_proxy_inside_does_not_lead_to_the_hosts_loopback(doorway: Doorway, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(FlowRefused, match="the command's own machine") as refused:
            await doorway.open_asked(Destination(host, server.getsockname()[1], TCP))
    assert refused.value.failure is FlowFailure.UNREACHABLE


async def test_a_proxy_inside_leads_where_the_command_would(
    doorway: Doorway, client: FakeClient, names: SyntheticAddresses
) -> None:
    address = names.address_of("echo.internal")
    assert address is not None
    for host in (address, "echo.internal"):
        assert isinstance(await doorway.open_asked(Destination(host, 5432, TCP)), Echo)
    assert client.asked == [Destination("echo.internal", 5432, TCP)] * 2
    with pytest.raises(FlowRefused, match="stands for no name"):
        await doorway.open_asked(Destination("100.96.3.4", 80, TCP))
