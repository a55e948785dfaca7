"""kill -9 at any moment: no acknowledged write is missing, nothing half-made stays."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from klinket.controller.app.ports import Transaction
from klinket.controller.database import PostgresAddress
from klinket.controller.store.engine import open_store

#: Rounds of start, write, kill.
ROUNDS = 6
#: Acknowledged writes after which a round's child is killed, drawn from this range.
WRITES = (5, 120)

CHILD = """
import asyncio, itertools, sys, time
from pathlib import Path
from uuid import uuid4
from klinket.controller.app import service_accounts
from klinket.controller.database import PostgresAddress
from klinket.controller.store.engine import open_store
from klinket.domain.audit import SYSTEM

async def main():
    at = sys.argv[1]
    store = open_store(PostgresAddress.parse(at) if "://" in at else Path(at), time.time)
    async def writer(number):
        for turn in itertools.count():
            name = f"{sys.argv[2]}-{number}-{turn}"
            await store.write(lambda tx: service_accounts.create(tx, SYSTEM, name=name, uuid=str(uuid4())))
            print(name, flush=True)
    await asyncio.gather(*(writer(number) for number in range(8)))

asyncio.run(main())
"""


def url_of(database: Path | PostgresAddress) -> str:
    if isinstance(database, Path):
        return str(database)
    of = database.parameters
    return f"postgresql://{of['user']}@/{of['dbname']}?host={of['host']}"


@pytest.mark.timeout(120)
async def test_no_acknowledged_write_is_missing_after_kill_9(database: Path | PostgresAddress) -> None:
    place = url_of(database)
    chance = random.Random(7)
    acknowledged: set[str] = set()
    for turn in range(ROUNDS):
        with subprocess.Popen([sys.executable, "-c", CHILD, place, str(turn)], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(chance.randint(*WRITES)):
                acknowledged.add(child.stdout.readline().strip())
            os.kill(child.pid, signal.SIGKILL)
            acknowledged.update(line.strip() for line in child.stdout if line.endswith("\n"))
    assert "" not in acknowledged
    assert len(acknowledged) >= ROUNDS * WRITES[0]

    def state(tx: Transaction) -> tuple[set[str], set[str], int]:
        audited = {event.targets[0]["name"] for event in tx.audit.find()}
        return {row.name for row in tx.service_accounts.find()}, audited, tx.head()[1]

    store = open_store(database, time.time)
    stored, audited, revision = await store.read(state)
    assert acknowledged <= stored
    # The account, its audit event and its revision were one change: all of it is there, or nothing.
    assert audited == stored
    assert revision == 1 + len(stored)
    store.close()
