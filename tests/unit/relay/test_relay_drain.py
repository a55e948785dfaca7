"""A relay that is stopped sends who comes away and lets pairs end; one with a new certificate drops nobody."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from klinket.net.relay_path import RelayPath, RelayUnavailable
from klinket.net.sockets import HostPort
from klinket.relay import serve
from klinket.relay.certificate import MAX_FORMER, Certificates
from klinket.relay.config import RelayConfig
from klinket.relay.core import Refused, RelayCore
from klinket.relay.limits import RelayLimits
from klinket.relay.server import RelayServer
from klinket.wire.inventory import RelayEntry
from klinket.wire.relay import RelayAnswer, RelayError, RelayRole
from klinket.wire.signing import KeySet
from klinket.wire.ticket import TicketRole
from tests.unit.relay.conftest import KEY, NETWORK, RELAY, ticket


class Standing:
    """A relay on loopback with the certificates of a folder."""

    def __init__(self, state: Path) -> None:
        self.certificates = Certificates(state)
        self.core = RelayCore(RelayLimits(), os.urandom)
        self.core.configure(RELAY, NETWORK, KeySet({KEY.kid: KEY.public_key}).to_jwks())
        self.server = RelayServer(self.core, self.certificates.context, RelayLimits(), time.time)
        self.port = self.server.listen(HostPort("127.0.0.1", 0))

    def path(self, role: TicketRole, digest: str | None = None) -> RelayPath:
        entry = RelayEntry(id=RELAY, address=f"127.0.0.1:{self.port}", certificate_sha256=digest or self.certificates.digest)
        signed = [ticket(role, (7,), now=time.time(), lifetime=3600) for _ in range(4)]
        relay_role = RelayRole.CLIENT if role is TicketRole.CLIENT else RelayRole.CONNECTOR
        return RelayPath(entry, relay_role, signed.pop, time.time)


@pytest.fixture
async def relay(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = Standing(tmp_path)
    yield made
    await made.server.aclose()


async def test_a_draining_relay_sends_away_who_waits_and_who_comes_and_its_pairs_go_on(relay: Standing) -> None:
    connector, client = relay.path(TicketRole.CONNECTOR), relay.path(TicketRole.CLIENT)
    joined, waiting = await connector.register(7), None
    near = await client.connect(7)
    far = await joined.paired()
    waiting = await connector.register(7)
    while not relay.core.waiting:
        await asyncio.sleep(0.01)
    relay.server.drain()
    for refused in (waiting.paired(), client.connect(7), relay.path(TicketRole.CLIENT).connect(7)):
        with pytest.raises(RelayError) as caught:
            await refused
        assert caught.value.answer is RelayAnswer.DRAINING
        assert not isinstance(caught.value, RelayUnavailable)
    assert client.avoided, "another relay comes first from now on"
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(near, b"still here")
    assert await loop.sock_recv(far, 100) == b"still here"
    near.close()
    far.close()


def test_what_waits_is_refused_once_and_gives_its_place_back() -> None:
    core = RelayCore(RelayLimits(), os.urandom)
    assert core.drain() == []
    core._where[5] = (RelayRole.CONNECTOR, 7, None)  # type: ignore[assignment]
    core._idle[7] = [None]  # type: ignore[list-item]
    assert core.drain() == [Refused(5, RelayAnswer.DRAINING)]
    assert core.waiting == 0


async def test_a_stopped_relay_waits_for_its_pairs_as_long_as_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [3]
    monkeypatch.setattr(RelayServer, "pairs", property(lambda _: pairs[0]))
    anywhere = HostPort("127.0.0.1", 0)

    async def stopped(seconds: float) -> asyncio.Task[None]:
        config = RelayConfig(
            listen=anywhere, advertise=anywhere, controller="https://127.0.0.1:1", token="x", state=tmp_path,
            drain_seconds=seconds,
        )  # fmt: skip
        stop = asyncio.Event()
        stop.set()
        return asyncio.create_task(serve.run(config, stop))

    patient = await stopped(60)
    await asyncio.sleep(0.3)
    assert not patient.done()
    pairs[0] = 0
    await asyncio.wait_for(patient, 10)
    pairs[0] = 3
    await asyncio.wait_for(await stopped(0.1), 10)  # its time is over


async def test_a_new_certificate_is_shown_to_those_who_know_of_it_and_the_former_one_to_the_others(
    relay: Standing, tmp_path: Path
) -> None:
    old = relay.certificates.digest
    held = relay.path(TicketRole.CLIENT)
    await held.probe()
    (tmp_path / "relay-certificate.pem").unlink()
    assert relay.certificates.reload()
    relay.server.use(relay.certificates.context)
    assert relay.certificates.digest != old
    await relay.path(TicketRole.CLIENT).probe()
    await relay.path(TicketRole.CLIENT, old).probe()
    with pytest.raises(RelayUnavailable, match="not the one"):
        await relay.path(TicketRole.CLIENT, "0" * 64).probe()


def test_a_certificate_that_is_the_same_or_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    digest = certificates.digest
    assert not certificates.reload()
    (tmp_path / "relay-certificate.pem").write_text("half of a file")
    with pytest.raises((OSError, ValueError)):
        certificates.reload()
    assert certificates.digest == digest


def test_former_certificates_are_bounded(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    for _ in range(MAX_FORMER + 2):
        (tmp_path / "relay-certificate.pem").unlink()
        certificates.reload()
    assert len(certificates._former) == MAX_FORMER


def test_a_new_token_is_read_at_the_next_attachment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    anywhere = HostPort("127.0.0.1", 0)
    config = RelayConfig(
        listen=anywhere, advertise=anywhere, controller="https://x", token="first", state=tmp_path, token_file=file
    )
    assert config.current_token() == "first"
    file.write_text("second\n")
    assert config.current_token() == "second"
