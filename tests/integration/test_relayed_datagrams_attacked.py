"""Whoever is on the way to a relay's UDP port, or speaks to it: nothing is forwarded to them, and little is answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from examples.deployment import free_port
from klinket.client.client import Client
from klinket.domain.flow import Destination, TransportProtocol
from klinket.wire import relay_datagram as wire
from klinket.wire.key_file import parse_key_file
from klinket.wire.relay_datagram import COOKIE_BYTES, NO_COOKIE, Bind
from tests.eventually import eventually
from tests.integration.relayed_datagrams import ECHO_NAME, PATIENCE, Box, Program, Stranger, World, world
from tests.integration.watched import wait_until

pytestmark = [pytest.mark.alone, pytest.mark.timeout(300)]

SEALED = 0x11
#: Datagrams for which any UDP socket has room.
AT_ONCE = 40


@dataclass
class Attacked:
    """A world whose only relay is met through a box."""

    world: World
    box: Box
    relay: tuple[str, int]

    def dropped(self, *reasons: str) -> float:
        """Return how many datagrams and binds the relay has dropped for these reasons."""
        return sum(self.world.dropped("relay-1", reason) for reason in reasons)

    def is_sent_in_vain(self, stranger: Stranger, datagrams: list[bytes], *reasons: str) -> None:
        """Have a stranger send; returns when the relay has dropped all of it for these reasons.

        A few at a time: the relay's socket has no room for more while the relay waits for its turn.
        """
        before = self.dropped(*reasons)
        for begin in range(0, len(datagrams), AT_ONCE):
            for data in datagrams[begin : begin + AT_ONCE]:
                stranger.send(data)
            wanted = before + min(begin + AT_ONCE, len(datagrams))
            wait_until(lambda: self.dropped(*reasons) >= wanted, "not all was dropped", PATIENCE)  # noqa: B023 - called at once


@pytest.fixture(scope="module")
def attacked() -> Iterator[Attacked]:
    relay, front = ("127.0.0.1", free_port()), ("127.0.0.2", free_port("127.0.0.2"))
    with Box(front, relay) as box, world() as made:
        made.start_relay("relay-1", "{}:{}".format(*relay), "--advertise", "{}:{}".format(*front))
        with made.program():
            pass
        yield Attacked(made, box, relay)


def is_framed(made: World, program: Program) -> bool:
    """Return whether a datagram came back as a frame."""
    before = made.sealed()
    return program.says() == "ok" and made.sealed() == before


def test_a_relay_whose_udp_port_is_blocked_leaves_datagrams_to_frames_until_it_is_not(attacked: Attacked) -> None:
    made, box = attacked.world, attacked.box
    box.blocked = True
    try:
        with made.program() as program:
            before = made.forwarded("relay-1")
            for _ in range(5):
                assert is_framed(made, program)
            assert made.forwarded("relay-1") == before
            box.blocked = False
            made.goes_sealed(program, "relay-1")
            box.blocked = True
            wait_until(lambda: is_framed(made, program), "datagrams are lost where a firewall drops them", PATIENCE)
    finally:
        box.blocked = False


def test_what_was_recorded_on_the_way_does_nothing_from_another_address(attacked: Attacked) -> None:
    made, box = attacked.world, attacked.box
    with made.program() as program, Stranger(attacked.relay) as stranger:
        made.goes_sealed(program, "relay-1")
        assert program.says(1200) == "ok"
        recorded = list(box.to_relay)
        assert {data[0] for data in recorded} == {wire.BIND, SEALED}
        attacked.is_sent_in_vain(stranger, recorded, "unknown", "replayed")
        stranger.read()
        assert stranger.answers == []
        wait_until(lambda: made.bindings("relay-1") == 2, "another address is bound", PATIENCE)
        forwarded = [data for data in list(box.to_ends) if data[0] == SEALED]
        assert len(forwarded) == len(set(forwarded)), "something was forwarded twice"
        assert program.says() == "ok"


def test_what_somebody_writes_in_an_ends_name_opens_nowhere_and_comes_in_once(attacked: Attacked) -> None:
    """The relay cannot know of what is sealed; the ends do."""
    made, box = attacked.world, attacked.box
    with made.program() as program:
        made.goes_sealed(program, "relay-1")
        assert program.says(1200) == "ok"
        taken, recorded = made.sealed()[0], list(box.to_relay)
        replayed, forged, again = made.refused("replayed"), made.refused("forged"), attacked.dropped("replayed")
        sealed = [data for data in recorded if data[0] == SEALED][-20:]
        for data in sealed:
            box.forge(data)
            later = int.from_bytes(data[8:16], "big") + 1000
            box.forge(data[:8] + later.to_bytes(8, "big") + data[16:])
        binds = [data for data in recorded if data[0] == wire.BIND][-4:]
        for data in binds:
            box.forge(data)
        wait_until(lambda: made.refused("replayed") > replayed, "none was known again", PATIENCE)
        wait_until(lambda: made.refused("forged") > forged, "none was found forged", PATIENCE)
        wait_until(lambda: attacked.dropped("replayed") >= again + len(binds), "binds count again", PATIENCE)
        assert made.sealed()[0] == taken
        assert program.says() == "ok"


def test_a_bind_that_is_stolen_on_the_way_brings_its_thief_a_question_and_nothing_else(attacked: Attacked) -> None:
    """The thief sends the ends' binds from an address of its own, first and alone, and never reads what the ends seal."""
    made, box = attacked.world, attacked.box
    with Stranger(attacked.relay) as thief:

        def steal(data: bytes) -> bool:
            if data[0] == wire.BIND:
                thief.send(data)
            return data[0] == wire.BIND

        box.stolen = steal
        try:
            with made.program() as program:
                wait_until(lambda: thief.sent >= 4 * wire.BIND_BYTES, "no end binds", PATIENCE)
                begun = time.monotonic()
                while not thief.answers or time.monotonic() < begun + 1:
                    thief.read()
                    assert is_framed(made, program)
                assert {data[0] for data in thief.answers} == {wire.BIND_CHALLENGE}
                assert thief.got < thief.sent
                wait_until(lambda: made.bindings("relay-1") == 0, "an address is bound", PATIENCE)
                box.stolen = lambda data: False
                made.goes_sealed(program, "relay-1")
        finally:
            box.stolen = lambda data: False


async def test_a_client_that_lies_about_where_it_is_moves_less_to_others_than_it_sends(attacked: Attacked) -> None:
    """It has a good key and a leg of its own, and writes the addresses of others on its binds."""
    made = attacked.world
    client = Client(parse_key_file(made.key.read_bytes()))
    await client.start()
    try:
        flow = await client.open_datagrams(Destination(ECHO_NAME, made.echo_port, TransportProtocol.UDP))
        (link,) = client._links.values()
        await flow.send(b"begin")
        assert await flow.receive() == b"begin"
        await eventually(lambda: link.datagrams.relayed and link.datagrams.works)
        leg = link.datagrams._way.leg
        assert leg is not None
        admission = leg.path.admission()
        assert admission is not None
        own, to = link.datagrams._binding._own, link.datagrams._binding._to
        with ExitStack() as stack:
            before = attacked.dropped("limit")
            victims = [stack.enter_context(Stranger(attacked.relay)) for _ in range(5)]

            async def lie() -> bool:
                for cookie in [NO_COOKIE, b"c" * COOKIE_BYTES] * 5:
                    leg.number += 1
                    victim = victims[leg.number % len(victims)]
                    victim.send(Bind(admission.id, leg.name, own, to, leg.number, cookie).sign(admission.key))
                await flow.send(bytes(1200))
                for victim in victims:
                    await asyncio.to_thread(victim.read)
                return any(victim.answers for victim in victims)

            await eventually(lie)
            await eventually(lambda: attacked.dropped("limit") > before)
            assert {answer[0] for victim in victims for answer in victim.answers} == {wire.BIND_CHALLENGE}
            assert sum(victim.got for victim in victims) < sum(victim.sent for victim in victims)
        flow.close()
    finally:
        await client.aclose()


def test_noise_and_sealed_datagrams_of_strangers_get_no_answer(attacked: Attacked) -> None:
    made, box = attacked.world, attacked.box
    with made.program() as program, Stranger(attacked.relay) as stranger:
        made.goes_sealed(program, "relay-1")
        receivers = {data[1:8] for data in [*box.to_relay, *box.to_ends] if data[0] == SEALED}
        came = len(box.to_ends)
        noise = [bytes([first]) + bytes(size) for first in range(0x24) for size in (0, 47, 63, 110, 1200)]
        forged = [bytes([SEALED]) + receiver + bytes(92) for receiver in receivers]
        attacked.is_sent_in_vain(stranger, [*noise, *forged], "unknown", "refused")
        stranger.read()
        assert stranger.answers == []
        assert not any(data.endswith(bytes(92)) for data in list(box.to_ends)[came:])
        assert program.says() == "ok"
