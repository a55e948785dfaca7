"""Slow names of one account delay nobody else, the same name is asked for once, and literals are no look-ups."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import pytest

from klinket.connector import names as connector_names
from klinket.connector.limits import LOOKUPS_PER_ACCOUNT
from klinket.connector.names import Found, NameLookups, system_lookup
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import FlowFailure
from tests.eventually import PATIENCE, eventually

HERE = [(socket.AF_INET, "192.0.2.7")]


class Zone:
    """A resolver: names with "slow" in them are not answered before `answer` is set, those with "no" are not known."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = threading.Event()

    def lookup(self, host: str) -> Found:
        self.asked.append(host)
        if "slow" in host:
            self.answer.wait(20)
        if "no" in host:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return HERE


@pytest.fixture
def zone() -> Iterator[Zone]:
    made = Zone()
    yield made
    made.answer.set()


async def soon(names: NameLookups, host: str, account: str) -> Found:
    async with asyncio.timeout(PATIENCE):
        return await names.find(host, account)


async def test_slow_names_of_one_account_delay_nobody_else(zone: Zone) -> None:
    names = NameLookups(zone.lookup)
    hogs = [asyncio.ensure_future(names.find(f"s{n}.slow", "hog")) for n in range(40)]
    await asyncio.sleep(0)
    assert await soon(names, "db.internal", "victim") == HERE
    assert len([host for host in zone.asked if "slow" in host]) == LOOKUPS_PER_ACCOUNT
    zone.answer.set()
    async with asyncio.timeout(5):
        assert await asyncio.gather(*hogs) == [HERE] * 40


async def test_a_look_up_counts_until_it_comes_back_even_when_nobody_waits_for_it(zone: Zone) -> None:
    names = NameLookups(zone.lookup)
    for round in range(3):
        hogs = [asyncio.ensure_future(names.find(f"s{round}-{n}.slow", "hog")) for n in range(10)]
        await eventually(lambda: len(zone.asked) == LOOKUPS_PER_ACCOUNT)
        for hog in hogs:
            hog.cancel()
        await asyncio.gather(*hogs, return_exceptions=True)
    assert len(zone.asked) == LOOKUPS_PER_ACCOUNT
    zone.answer.set()
    assert await soon(names, "db.internal", "hog") == HERE


async def test_the_same_name_is_looked_up_once_for_all_who_ask(zone: Zone) -> None:
    names = NameLookups(zone.lookup)
    asking = [asyncio.ensure_future(names.find("one.slow", f"account-{n % 3}")) for n in range(30)]
    await asyncio.sleep(0.05)
    zone.answer.set()
    async with asyncio.timeout(5):
        assert await asyncio.gather(*asking) == [HERE] * 30
    assert zone.asked == ["one.slow"]


async def test_a_name_nobody_knows_is_asked_for_again_only_after_a_while(zone: Zone, monkeypatch: pytest.MonkeyPatch) -> None:
    names = NameLookups(zone.lookup)
    for _ in range(5):
        with pytest.raises(socket.gaierror):
            await soon(names, "no.internal", "a")
    assert zone.asked == ["no.internal"]
    monkeypatch.setattr(connector_names, "UNKNOWN_NAME_SECONDS", 0.0)
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            await soon(names, "no.other", "a")
    assert zone.asked.count("no.other") == 2


async def test_names_that_wait_are_bounded(zone: Zone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector_names, "MAX_WAITING_LOOKUPS", 3)
    names = NameLookups(zone.lookup)
    hogs = [asyncio.ensure_future(names.find(f"s{n}.slow", "hog")) for n in range(LOOKUPS_PER_ACCOUNT + 3)]
    await eventually(lambda: len(names._waiting.get("hog", ())) == 3)
    with pytest.raises(FlowRefused) as caught:
        await soon(names, "one-more.slow", "hog")
    assert caught.value.failure is FlowFailure.THROTTLED
    for hog in hogs:
        hog.cancel()


async def test_an_address_needs_no_look_up(zone: Zone) -> None:
    names = NameLookups(zone.lookup)
    assert await soon(names, "192.0.2.1", "a") == [(socket.AF_INET, "192.0.2.1")]
    assert await soon(names, "2001:db8::1", "a") == [(socket.AF_INET6, "2001:db8::1")]
    assert zone.asked == []


def test_the_systems_resolver_is_asked() -> None:
    assert (socket.AF_INET, "127.0.0.1") in system_lookup("localhost")
