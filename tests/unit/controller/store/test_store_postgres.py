"""What is PostgreSQL's own: serial writers, one controller, and a server that crashes, hangs or goes away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import psycopg
import pytest

from klinket.controller.app import service_accounts
from klinket.controller.app.ports import Committed, Transaction
from klinket.controller.app.rows import RemoteNetworkRow
from klinket.controller.app.store_errors import OutcomeUnknown, StoreInUse, StoreUnavailable, StoreUnreachable
from klinket.controller.database import PostgresAddress
from klinket.controller.store import backend, postgres
from klinket.controller.store.engine import SqlStore, open_store
from klinket.domain.audit import SYSTEM
from klinket.domain.errors import InvalidInput
from tests.unit.controller.postgres import Server

T = TypeVar("T")
#: Seconds within which a store must work again once its server does.
BACK_SECONDS = 20.0
#: Rounds of write, crash, restart.
ROUNDS = 4


@pytest.fixture
def address(postgres: Server) -> PostgresAddress:
    return postgres.database()


@pytest.fixture
def store(address: PostgresAddress) -> Iterator[SqlStore]:
    store = open_store(address, time.time)
    yield store
    store.close()


@contextlib.contextmanager
def session(address: PostgresAddress) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(**address.parameters, autocommit=True) as connection:  # type: ignore[arg-type]
        yield connection


def add(tx: Transaction, name: str) -> RemoteNetworkRow:
    row = tx.remote_networks.add(name=name, location="OTHER", network_type="REGULAR", is_active=True)
    tx.bump()
    return row


def names(tx: Transaction) -> list[str]:
    return [row.name for row in tx.remote_networks.find()]


async def soon(do: Callable[[], Any]) -> Any:
    """Return what `do` returns once the store is back; no single try may hang."""
    until = time.monotonic() + BACK_SECONDS
    while True:
        try:
            return await asyncio.wait_for(do(), BACK_SECONDS)
        except StoreUnavailable:
            assert time.monotonic() < until
            await asyncio.sleep(0.02)


async def test_the_settings_that_durability_rests_on_are_in_force(store: SqlStore) -> None:
    def settings(tx: Transaction) -> dict[str, object]:
        connection = tx._connection  # type: ignore[attr-defined]
        wanted = ("synchronous_commit", "fsync", "transaction_isolation", "transaction_read_only", "lock_timeout")
        return {name: connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in wanted}

    common = {"synchronous_commit": "on", "fsync": "on", "lock_timeout": "5s"}
    assert await store.write(settings) == {**common, "transaction_isolation": "read committed", "transaction_read_only": "off"}
    assert await store.read(settings) == {**common, "transaction_isolation": "repeatable read", "transaction_read_only": "on"}


async def test_a_database_that_forgets_commits_does_not_for_klinket(postgres: Server, address: PostgresAddress) -> None:
    name = address.parameters["dbname"]
    postgres.administer("ALTER DATABASE {} SET synchronous_commit = off", name)
    try:
        store = open_store(address, time.time)
        shown = await store.write(lambda tx: tx._connection.exec_driver_sql("SHOW synchronous_commit").scalar_one())  # type: ignore[attr-defined]
        store.close()
    finally:
        postgres.administer("ALTER DATABASE {} RESET synchronous_commit", name)
    assert shown == "on"


async def test_writers_of_two_processes_lose_no_update(store: SqlStore, address: PostgresAddress) -> None:
    guest = open_store(address, time.time, as_guest=True)

    async def writer(of: SqlStore, number: int) -> None:
        for turn in range(10):
            await of.write(lambda tx: service_accounts.create(tx, SYSTEM, name=f"{number}-{turn}", uuid=f"{number}-{turn}"))  # noqa: B023

    before = await store.read(lambda tx: tx.head())
    await asyncio.gather(*(writer(of, number) for number, of in enumerate([store, guest] * 4)))
    assert (await store.read(lambda tx: tx.head()))[1] == before[1] + 80
    numbers = [event.number for event in await guest.read(lambda tx: tx.audit.find())]
    assert numbers == list(range(1, 81))
    guest.close()


async def test_a_change_that_another_session_locks_out_fails_instead_of_waiting_for_ever(
    address: PostgresAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "BUSY_MS", 100)
    store = open_store(address, time.time)
    with session(address) as other, other.transaction():
        other.execute("SELECT 1 FROM head FOR UPDATE")
        with pytest.raises(StoreUnreachable, match="database is locked"):
            await asyncio.wait_for(store.write(lambda tx: add(tx, "locked out")), 10)
        assert await store.read(names) == []
    await asyncio.wait_for(store.write(lambda tx: add(tx, "in again")), 10)
    assert await store.read(names) == ["in again"]
    store.close()


# ---- one controller


async def test_a_second_controller_is_refused_and_a_guest_is_not(
    store: SqlStore, address: PostgresAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "PATIENCE_SECONDS", 0.2)
    with pytest.raises(StoreInUse, match=r"another controller runs on postgresql://klinket@"):
        open_store(address, time.time)
    guest = open_store(address, time.time, as_guest=True)
    await guest.write(lambda tx: add(tx, "by a guest"))
    assert await store.read(names) == ["by a guest"]
    guest.close()
    store.close()
    open_store(address, time.time).close()


async def test_a_controller_whose_place_was_taken_writes_no_more(store: SqlStore, address: PostgresAddress) -> None:
    await store.write(lambda tx: add(tx, "before"))
    with session(address) as other:
        end_all_but_own(other)
        query = "SELECT pg_try_advisory_lock(%s, hashtext(current_schema()))"
        until = time.monotonic() + 10
        while other.execute(query, (postgres._CONTROLLER_LOCK,)).fetchone() != (True,):
            assert time.monotonic() < until
            await asyncio.sleep(0.01)
        with pytest.raises(StoreInUse):
            await store.write(lambda tx: add(tx, "never"))
        assert await store.read(names) == ["before"]
    await soon(lambda: store.write(lambda tx: add(tx, "after")))
    assert await store.read(names) == ["before", "after"]


# ---- connections that are lost


def end_all_but_own(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


async def test_connections_that_were_ended_between_two_requests_are_replaced_unnoticed(
    store: SqlStore, address: PostgresAddress
) -> None:
    await store.write(lambda tx: add(tx, "one"))
    for name in ("two", "three"):
        with session(address) as other:
            end_all_but_own(other)
        await store.write(lambda tx, name=name: add(tx, name))
        with session(address) as other:
            end_all_but_own(other)
        assert name in await store.read(names)


async def test_a_connection_lost_in_the_middle_of_a_change_leaves_nothing_and_says_so(
    store: SqlStore, address: PostgresAddress
) -> None:
    def lost(tx: Transaction) -> None:
        add(tx, "half-made")
        with session(address) as other:
            end_all_but_own(other)
        with contextlib.suppress(Exception):
            names(tx)  # as a resolver of one field would swallow it

    results = await asyncio.gather(store.write(lost), store.write(lambda tx: add(tx, "neighbour")), return_exceptions=True)
    assert isinstance(results[0], StoreUnreachable)
    assert not isinstance(results[0], OutcomeUnknown)
    stored = await store.read(names)
    assert stored == ([] if isinstance(results[1], StoreUnreachable) else ["neighbour"])


async def test_a_connection_lost_in_the_middle_of_a_read_is_an_error_not_half_an_answer(
    store: SqlStore, address: PostgresAddress
) -> None:
    def lost(tx: Transaction) -> str:
        names(tx)
        with session(address) as other:
            end_all_but_own(other)
        with contextlib.suppress(Exception):
            names(tx)
        return "half an answer"

    with pytest.raises(StoreUnreachable):
        await store.read(lost)
    assert await store.read(names) == []


@pytest.mark.parametrize("is_made", [True, False])
async def test_a_commit_without_an_answer_is_no_success_and_is_announced_if_it_was_made(
    store: SqlStore, address: PostgresAddress, monkeypatch: pytest.MonkeyPatch, is_made: bool
) -> None:
    """The connection ends just after COMMIT was carried out, or just before."""
    heard: list[Committed] = []
    store.on_commit(heard.append)
    engine = store._backend.writer
    commit = engine.dialect.do_commit

    def cut_off(raw: Any) -> None:
        monkeypatch.setattr(engine.dialect, "do_commit", commit)
        if is_made:
            commit(raw)
        with session(address) as other:
            end_all_but_own(other)
        raw.execute("SELECT 1")  # finds out

    monkeypatch.setattr(engine.dialect, "do_commit", cut_off)
    with pytest.raises(OutcomeUnknown, match="while it committed"):
        await store.write(lambda tx: add(tx, "perhaps"))
    # Nobody writes: the store looks by itself.
    until = time.monotonic() + BACK_SECONDS
    while store._doubts:
        assert time.monotonic() < until
        await asyncio.sleep(0.02)
    await asyncio.sleep(0)
    stored = await store.read(names)
    assert stored == (["perhaps"] if is_made else [])
    stamp = await store.read(lambda tx: tx.head())
    assert [committed.stamp for committed in heard] == ([stamp] if is_made else [])


# ---- a server that crashes


@pytest.mark.timeout(180)
async def test_no_acknowledged_write_is_missing_after_crashes_of_the_server(
    postgres_of_its_own: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server = postgres_of_its_own
    store = open_store(server.database(), time.time)
    chance = random.Random(7)
    acknowledged: set[str] = set()
    refused: set[type[BaseException]] = set()
    unknown: set[str] = set()
    heard: list[Committed] = []
    store.on_commit(heard.append)
    over = asyncio.Event()

    async def writer(number: int) -> None:
        turn = 0
        while not over.is_set():
            turn += 1
            name = f"{number}-{turn}"
            try:
                await asyncio.wait_for(
                    store.write(lambda tx: service_accounts.create(tx, SYSTEM, name=name, uuid=name)),  # noqa: B023
                    BACK_SECONDS,
                )
                acknowledged.add(name)
            except StoreUnavailable as error:
                refused.add(type(error))
                if isinstance(error, OutcomeUnknown):
                    unknown.add(name)
                await asyncio.sleep(0.02)

    writers = [asyncio.create_task(writer(number)) for number in range(8)]
    backs = []
    for turn in range(ROUNDS):
        goal = len(acknowledged) + chance.randint(20, 200)
        until = time.monotonic() + 30
        while len(acknowledged) < goal:
            assert time.monotonic() < until
            await asyncio.sleep(0.002)
        if turn % 2:
            await asyncio.to_thread(server.stop, signal.SIGQUIT)
            await asyncio.to_thread(server.start)
        else:
            # One backend dies: the server throws all of them out and recovers by itself.
            with server.connect("postgres") as other:
                query = "SELECT pid FROM pg_stat_activity WHERE datname LIKE 'klinket%' ORDER BY state = 'active' DESC LIMIT 1"
                row = other.execute(query).fetchone()
                assert row is not None
                os.kill(row[0], signal.SIGKILL)
        up, before = time.monotonic(), len(acknowledged)
        while len(acknowledged) <= before + 8:
            assert time.monotonic() < up + BACK_SECONDS
            await asyncio.sleep(0.002)
        backs.append(time.monotonic() - up)
    over.set()
    await asyncio.gather(*writers)

    def state(tx: Transaction) -> tuple[set[str], set[str], list[int], int]:
        audit = tx.audit.find()
        audited = {event.targets[0]["name"] for event in audit}
        return {row.name for row in tx.service_accounts.find()}, audited, [event.number for event in audit], tx.head()[1]

    stored, audited, numbers, revision = await soon(lambda: store.read(state))
    assert acknowledged <= stored
    assert stored - acknowledged <= unknown
    assert audited == stored
    assert numbers == list(range(1, len(stored) + 1))
    assert revision == 1 + len(stored)
    assert refused <= {StoreUnreachable, OutcomeUnknown}
    assert refused
    await soon(lambda: store.write(lambda tx: tx.bump()))
    await asyncio.sleep(0)
    assert max(committed.stamp[1] for committed in heard) == revision + 1
    away = [record.message for record in caplog.records if "the database is away" in record.message]
    assert 1 <= len(away) <= 3 * ROUNDS, "one line for each absence, not one for each request"
    waits = ", ".join(f"{seconds:.2f}" for seconds in backs)
    print(f"back after {waits} s; {len(acknowledged)} acknowledged, {len(unknown)} unknown")
    store.close()


async def test_a_store_without_its_server_answers_at_once_and_comes_back_by_itself(postgres_of_its_own: Server) -> None:
    server = postgres_of_its_own
    address = server.database()
    store = open_store(address, time.time)
    await store.write(lambda tx: add(tx, "before"))
    server.stop()
    for _ in range(3):
        with pytest.raises(StoreUnreachable):
            await asyncio.wait_for(store.write(lambda tx: add(tx, "meanwhile")), 5)
        with pytest.raises(StoreUnreachable):
            await asyncio.wait_for(store.read(names), 5)
    with pytest.raises(StoreUnreachable, match="is the server up"):
        open_store(address, time.time)
    server.start()
    assert await store.read(names) == ["before"]
    await store.write(lambda tx: add(tx, "after"))
    assert await store.read(names) == ["before", "after"]
    store.close()


def test_a_server_that_forgets_at_power_loss_is_refused(postgres_of_its_own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.unit.controller import postgres as servers

    server = postgres_of_its_own
    address = server.database()
    server.stop()
    monkeypatch.setitem(servers.SETTINGS, "fsync", "off")
    server.start()
    with pytest.raises(InvalidInput, match="has fsync off, it must be on"):
        open_store(address, time.time)


def test_a_database_of_another_encoding_is_refused(postgres: Server) -> None:
    with postgres.connect("postgres") as connection:
        connection.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    with pytest.raises(InvalidInput, match="has server_encoding LATIN1, it must be UTF8"):
        open_store(PostgresAddress.parse(postgres.url("latin")), time.time)


def test_a_database_that_is_not_there_and_a_user_without_rights_are_told(postgres: Server) -> None:
    with pytest.raises(StoreUnreachable, match='database "nowhere" does not exist'):
        open_store(PostgresAddress.parse(postgres.url("nowhere")), time.time)
    address = postgres.empty_database()
    with postgres.connect("postgres") as connection:
        connection.execute("CREATE ROLE weak LOGIN")
    weak = PostgresAddress({**address.parameters, "user": "weak"})
    with pytest.raises(InvalidInput, match="permission denied"):
        open_store(weak, time.time)


async def test_the_log_of_an_absence_holds_no_password(postgres_of_its_own: Server, caplog: pytest.LogCaptureFixture) -> None:
    server = postgres_of_its_own
    given = server.database()
    address = PostgresAddress({**given.parameters, "password": "s3cret-word"})
    caplog.set_level(logging.DEBUG)
    store = open_store(address, time.time)
    server.stop()
    with pytest.raises(StoreUnreachable) as refused:
        await store.write(lambda tx: add(tx, "never"))
    with pytest.raises(StoreUnreachable) as at_start:
        open_store(address, time.time)
    store.close()
    for error in (refused.value, at_start.value):
        assert "s3cret-word" not in f"{error!r} {error} {error.__cause__} {error.__context__}"
    assert "s3cret-word" not in f"{caplog.text} {address} {address!r}"
