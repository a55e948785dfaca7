"""What is dialled from this machine, and what never is."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from klinket.client.capture import direct
from klinket.client.capture.direct import DirectStream
from klinket.client.capture.doorway import Doorway
from klinket.client.capture.synthetic import SyntheticAddresses
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from tests.unit.client.conftest import Echo, FakeClient, granted


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A service of this machine that would answer whoever dials past klinket."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


def to(host: str, server: socket.socket) -> Destination:
    return Destination(host, server.getsockname()[1], TransportProtocol.TCP)


def nobody_came(server: socket.socket) -> bool:
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return True
    return False


async def test_what_was_never_granted_is_dialled(client: FakeClient, server: socket.socket) -> None:
    flow = await direct.open_flow(client, to("localhost", server), others_direct=True)
    assert isinstance(flow, DirectStream)
    flow.abort()
    assert not nobody_came(server)
    assert client.asked == []


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.0/24"])
@pytest.mark.parametrize("dialled", ["127.0.0.1", "localhost"])
async def test_an_address_whose_grant_ended_is_refused(
    client: FakeClient, server: socket.socket, address: str, dialled: str
) -> None:
    client.former.append(granted(7, address))
    with pytest.raises(FlowRefused) as refused:
        await direct.open_flow(client, to(dialled, server), others_direct=True)
    assert refused.value.failure is FlowFailure.NOT_GRANTED
    assert nobody_came(server)


async def test_a_name_whose_grant_ended_is_refused(client: FakeClient, server: socket.socket) -> None:
    client.former.append(granted(7, "local*"))
    with pytest.raises(FlowRefused):
        await direct.open_flow(client, to("localhost", server), others_direct=True)
    assert nobody_came(server)


async def test_a_name_that_leads_to_a_granted_address_goes_through_klinket(client: FakeClient, server: socket.socket) -> None:
    client.grant("127.0.0.1")
    flow = await direct.open_flow(client, to("localhost", server), others_direct=True)
    assert isinstance(flow, Echo)
    assert client.asked == [to("127.0.0.1", server)]
    assert nobody_came(server)


@pytest.mark.parametrize("host", ["127.0.0.1", "db.internal"])
async def test_a_namespace_lets_nothing_past_whose_grant_ended(client: FakeClient, server: socket.socket, host: str) -> None:
    client.former += [granted(7, "127.0.0.1"), granted(8, "db.internal")]
    told: list[str] = []
    doorway = Doorway(client, SyntheticAddresses(), told.append)
    destination = to(host, server)
    assert doorway.is_klinkets(destination)
    with pytest.raises(FlowRefused):
        await doorway.open_stream(destination)
    assert nobody_came(server)
    assert host in told[0]
