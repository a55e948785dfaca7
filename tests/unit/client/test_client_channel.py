"""The client's live channel with a real controller: what it is told, and what each word means for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from klinket.client.channel import ClientChannel
from klinket.client.client import ends_for_good
from klinket.client.login import Session
from klinket.domain import errors
from klinket.domain.errors import ControllerUnreachable, KlinketError, ProtocolError, SessionOver
from klinket.net.channel import controller_context
from klinket.net.clock import PeerClock
from klinket.wire import control, signing
from tests.eventually import eventually
from tests.unit.controller.running import Running


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[Running]:
    running = Running(tmp_path / "state")
    await running.open()
    async with running.listening():
        yield running
    running.store.close()


@dataclass
class Attached:
    """A client's channel, and what it has heard."""

    channel: ClientChannel
    configurations: list[control.ClientConfiguration] = field(default_factory=list)
    renewed: list[control.CertificateRenewed] = field(default_factory=list)


def channel_of(controller: Running) -> Attached:
    configurations: list[control.ClientConfiguration] = []
    renewed: list[control.CertificateRenewed] = []
    made = ClientChannel(
        controller.config.public_url,
        controller_context(controller.authority),
        PeerClock(),
        configurations.append,
        renewed.append,
    )
    return Attached(made, configurations, renewed)


def unattached() -> ClientChannel:
    """A channel that only takes messages."""
    return ClientChannel("https://127.0.0.1", controller_context(None), PeerClock(), lambda _: None, lambda _: None)


async def session(controller: Running) -> tuple[str, Session]:
    """Return the id of a key, and a session of it."""
    key, key_file = await controller.add_key(await controller.add_account())
    made = await controller.log_in(key_file)
    answer = {name: made.answer[name] for name in ("network", "certificate", "access_token", "expires_at_ms", "time_ms")}
    return key, Session(id=made.id, key=made.key, **answer)


async def ended(attaching: asyncio.Future[None]) -> BaseException | None:
    async with asyncio.timeout(10):
        await asyncio.wait([attaching])
    return attaching.exception()


async def test_a_revocation_is_heard_at_once(controller: Running) -> None:
    key, mine = await session(controller)
    attached = channel_of(controller)
    attaching = asyncio.ensure_future(attached.channel.attach(mine))
    await eventually(lambda: attached.configurations)
    await controller.revoke_key(key)
    assert isinstance(await ended(attaching), errors.ServiceKeyRevoked)


async def test_ending_the_session_is_told_while_the_channel_is_up_only(controller: Running) -> None:
    _, mine = await session(controller)
    attached = channel_of(controller)
    assert not await attached.channel.end_session()
    attaching = asyncio.ensure_future(attached.channel.attach(mine))
    await eventually(lambda: attached.configurations)
    assert await attached.channel.end_session()
    assert isinstance(await ended(attaching), KlinketError)
    assert not await attached.channel.end_session()
    assert isinstance(await ended(asyncio.ensure_future(attached.channel.attach(mine))), SessionOver)


async def test_another_key_than_the_sessions_attaches_nowhere(controller: Running) -> None:
    _, mine = await session(controller)
    mine.key = signing.generate_private_key()
    attached = channel_of(controller)
    assert isinstance(await ended(asyncio.ensure_future(attached.channel.attach(mine))), KlinketError)
    assert attached.configurations == []


async def test_one_renewal_runs_however_many_configurations_come(controller: Running) -> None:
    _, mine = await session(controller)
    attached = channel_of(controller)
    attaching = asyncio.ensure_future(attached.channel.attach(mine))
    await eventually(lambda: attached.configurations)
    (peer,) = controller.peers.clients.values()
    for number in range(2, 6):
        await controller.dispatch.tell_client(peer)
        await eventually(lambda number=number: len(attached.configurations) == number)
    await eventually(
        lambda: (
            len([one for one in asyncio.all_tasks() if one.get_name() == "client channel: renew grants" and not one.done()]) == 1
        )
    )
    attaching.cancel()
    await asyncio.gather(attaching, return_exceptions=True)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("service-key-revoked", errors.ServiceKeyRevoked),
        ("service-key-expired", errors.ServiceKeyExpired),
        ("session-ended", SessionOver),
        ("throttled", ControllerUnreachable),
        ("invalid-token", ControllerUnreachable),
        ("protocol-error", ControllerUnreachable),
        ("store-overloaded", ControllerUnreachable),
        ("store-closed", ControllerUnreachable),
        ("internal", ControllerUnreachable),
        ("a-word-of-next-year", ControllerUnreachable),
    ],
)
def test_a_refused_channel_ends_a_client_only_for_what_its_key_or_session_is(
    tmp_path: Path, code: str, kind: type[KlinketError]
) -> None:
    with pytest.raises(KlinketError) as caught:
        unattached()._message(control.Refused(code=code, message="no", retry_after=3.0))
    assert type(caught.value) is kind
    if kind is ControllerUnreachable:
        assert caught.value.retry_after == 3.0


@pytest.mark.parametrize(
    ("code", "kind"), [("service-key-revoked", errors.ServiceKeyRevoked), ("internal", SessionOver), ("next-years", SessionOver)]
)
def test_a_session_that_was_ended_is_over_whatever_the_word(code: str, kind: type[KlinketError]) -> None:
    with pytest.raises(KlinketError) as caught:
        unattached()._message(control.SessionEnded(code=code, message="no"))
    assert type(caught.value) is kind


def test_a_challenge_in_the_middle_breaks_the_protocol() -> None:
    with pytest.raises(ProtocolError):
        unattached()._message(control.Challenge(nonce="n", time_ms=0))


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (errors.AssertionStale("the assertion's time is off by 91 s"), False),  # clocks are set right again
        (errors.ServiceKeyRevoked("the key is revoked"), True),
        (errors.ServiceKeyUnknown("no such key"), True),
        (errors.ControllerUnreachable("away"), False),
    ],
)
def test_a_client_that_was_let_in_before_ends_for_what_waiting_does_not_change(error: KlinketError, ends: bool) -> None:
    assert ends_for_good(error) is ends
