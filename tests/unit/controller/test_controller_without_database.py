"""While PostgreSQL is away: requests are told so, channels stay, what was known goes on; and all works again by itself."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from websockets.exceptions import ConnectionClosed

from examples.deployment import free_port
from klinket.controller import dispatch, expiries, serve
from klinket.controller.app.store_errors import StoreInUse
from klinket.controller.config import ControllerConfig
from klinket.controller.http import CUTS_PATH, ENROL_PATH
from klinket.controller.peers import TRY_AGAIN
from klinket.controller.store.engine import open_store
from klinket.net.certificate_request import certificate_request
from klinket.net.sockets import HostPort
from klinket.wire import control, signing
from klinket.wire.key_file import LOGIN_PATH
from tests.unit.controller.postgres import Server
from tests.unit.controller.running import GRANT_SECONDS, Running

#: Seconds within which things must work again.
BACK_SECONDS = 20.0
#: Seconds between reading a clock here and there.
LATER = 2.0
END_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
KLINKET = Path(sys.executable).with_name("klinket")


@pytest.fixture
async def running(tmp_path: Path, postgres_of_its_own: Server) -> AsyncIterator[Running]:
    running = Running(tmp_path / "state", postgres_of_its_own.database())
    await running.open()
    yield running
    running.store.close()


@contextmanager
def superseding(running: Running) -> Iterator[None]:
    """Let its connections be lost, and another controller take the lock before it is back."""
    address = running.config.postgres
    assert address is not None
    with psycopg.connect(**dict(address.parameters), autocommit=True) as connection:
        connection.execute(END_OTHERS)
        other = open_store(address, running.clock)
    try:
        yield
    finally:
        other.close()


async def eventually(ask: Callable[[], Awaitable[bool]]) -> None:
    until = time.monotonic() + BACK_SECONDS
    while not await ask():
        assert time.monotonic() < until
        await asyncio.sleep(0.05)


async def test_every_request_that_needs_the_database_gets_503_and_later_its_answer(
    running: Running, postgres_of_its_own: Server
) -> None:
    account = await running.add_account()
    _, key_file = await running.add_key(account)
    tokens = await running.connector_tokens(await running.add_connector(await running.add_network()))
    token = {"X-API-KEY": running.tokens["read", "write", "provision"]}
    session_key = signing.generate_private_key()

    async def answers() -> dict[str, Any]:
        def graphql(text: str) -> Any:
            return running.post("/api/graphql/", {"query": text}, headers=token)

        number = str(time.monotonic_ns())
        return {
            "query": await graphql("{ remoteNetworks { totalCount } }"),
            "mutation": await graphql(f'mutation {{ remoteNetworkCreate(name: "{number}") {{ ok }} }}'),
            "unknown token": await running.post("/api/graphql/", {"query": "{ x }"}, headers={"X-API-KEY": "kl_api_x"}),
            "login": await running.post(LOGIN_PATH, running.login_body(key_file, session_key)),
            "enrol": await running.post(ENROL_PATH, {**tokens, "certificate_request": certificate_request(session_key)}),
            "cuts": await running.get(CUTS_PATH, headers=token),
            "ready": await running.get("/readyz"),
            "alive": await running.get("/healthz"),
        }

    before = {name: answer.status_code for name, answer in (await answers()).items()}
    assert before == {name: 401 if name == "unknown token" else 200 for name in before}
    postgres_of_its_own.stop()
    away = await answers()
    assert {name: answer.status_code for name, answer in away.items()} == {
        name: 200 if name == "alive" else 503 for name in before
    }
    for name, answer in away.items():
        if name != "alive":
            assert "store-unreachable" in answer.text, name
            assert "postgres" not in answer.text.lower()
    postgres_of_its_own.start()
    assert {name: answer.status_code for name, answer in (await answers()).items()} == before


async def test_channels_outlive_an_absence_and_hear_of_what_comes_after_it(
    running: Running, postgres_of_its_own: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiries, "LOOK_SECONDS", 0.2)
    async with running.listening():
        network = await running.add_network()
        connector = await running.enrol(await running.connector_tokens(await running.add_connector(network)))
        account = await running.add_account(resources=[await running.add_resource(network)])
        _, key_file = await running.add_key(account)
        ending, _ = await running.add_key(account, days=1, name="ends meanwhile")
        session = await running.log_in(key_file)
        async with running.attached(connector) as at_connector, running.attached(session) as at_client:
            await at_connector.wait_for(control.ConnectorConfiguration)
            await at_client.wait_for(control.ClientConfiguration)
            postgres_of_its_own.stop()
            assert await at_connector.is_alive()
            await at_client.send(control.Heartbeat(sequence=1, time_ms=0))
            await at_client.wait_for(control.HeartbeatAnswer)
            await at_client.send(control.Renew())
            assert await at_client.wait_for(control.ClientConfiguration)
            running.offset += 86_401
            await asyncio.sleep(0.5)  # the expiry is due, and cannot be stored
            event = control.FlowEvent(
                event="established",
                flow="f",
                time_ms=1,
                session="s",
                service_account="a",
                key="k",
                resource=None,
                host="db.internal",
                port=5432,
                protocol="tcp",
            )
            await at_connector.send(control.FlowEvents(batch=5, events=[event]))
            postgres_of_its_own.start()
            waited = {"flow-events-stored", "cut"}
            while waited:  # in whichever order
                waited.discard(json.loads(await at_connector.text())["type"])
            key = await running.query("query ($k: ID!) { serviceAccountKey(id: $k) { status } }", k=ending)
            assert key["serviceAccountKey"]["status"] == "EXPIRED"
            await running.add_resource(network, "Other", "other.internal")
            assert await at_connector.is_alive()


async def test_grants_from_memory_end_a_grants_life_after_the_database_last_answered(
    running: Running, postgres_of_its_own: Server
) -> None:
    async with running.listening():
        network = await running.add_network()
        account = await running.add_account(resources=[await running.add_resource(network)])
        session = await running.log_in((await running.add_key(account))[1])
        async with running.attached(session) as client:
            first = await client.wait_for(control.ClientConfiguration)
            known = running.clock() + GRANT_SECONDS
            postgres_of_its_own.stop()
            for _ in range(3):
                running.offset += 30
                await client.send(control.Renew())
                told = await client.wait_for(control.ClientConfiguration)
                assert first.valid_until_ms / 1000 - 1 <= told.valid_until_ms / 1000 <= known + LATER
                assert max(grant.expires_at_ms for grant in told.grants) / 1000 <= known + LATER
            running.offset += 30
            await client.send(control.Renew())
            assert await client.closed() == TRY_AGAIN
        postgres_of_its_own.start()


async def test_a_controller_that_was_superseded_grants_nothing_and_closes_its_channels(
    running: Running, postgres_of_its_own: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "CONFIRM_SECONDS", 0.2)
    async with running.listening():
        network = await running.add_network()
        connector = await running.enrol(await running.connector_tokens(await running.add_connector(network)))
        account = await running.add_account(resources=[await running.add_resource(network)])
        session = await running.log_in((await running.add_key(account))[1])
        async with running.attached(connector) as at_connector, running.attached(session) as at_client:
            await at_connector.wait_for(control.ConnectorConfiguration)
            await at_client.wait_for(control.ClientConfiguration)
            with superseding(running):
                running.offset += 10  # what was confirmed is not fresh any more
                error = await asyncio.wait_for(running.dispatch.superseded(), BACK_SECONDS)
                assert error.code == "store-in-use"
                assert await at_client.closed() == TRY_AGAIN
                assert await at_connector.closed() == TRY_AGAIN
                for who in (session, connector):
                    async with running.attached(who) as again:
                        assert await again.closed() == TRY_AGAIN


async def test_a_certificate_is_not_renewed_by_a_controller_that_was_superseded(
    running: Running, postgres_of_its_own: Server
) -> None:
    async with running.listening():
        network = await running.add_network()
        connector = await running.enrol(await running.connector_tokens(await running.add_connector(network)))
        session = await running.log_in((await running.add_key(await running.add_account()))[1])
        async with running.attached(connector) as at_connector, running.attached(session) as at_client:
            await at_connector.wait_for(control.ConnectorConfiguration)
            await at_client.wait_for(control.ClientConfiguration)
            with superseding(running):
                for who, channel in ((connector, at_connector), (session, at_client)):
                    await channel.send(control.RenewCertificate(request=certificate_request(who.key)))
                    said = []
                    with pytest.raises(ConnectionClosed) as closed:
                        while True:
                            said.append(await channel.text())
                    assert not [text for text in said if "certificate-renewed" in text]
                    assert closed.value.rcvd is not None
                    assert closed.value.rcvd.code == TRY_AGAIN


async def test_a_superseded_controller_ends_with_that_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = StoreInUse("another controller runs on it")

    async def superseded(_: dispatch.Dispatch) -> StoreInUse:
        return error

    monkeypatch.setattr(dispatch.Dispatch, "superseded", superseded)
    port = free_port()
    config = ControllerConfig(
        network="acme", state=tmp_path, listen=HostPort("127.0.0.1", port), public_url=f"https://127.0.0.1:{port}"
    )
    with pytest.raises(StoreInUse):
        await asyncio.wait_for(serve.run(config, lambda _: None, asyncio.Event()), BACK_SECONDS)


# ---- the commands


@contextmanager
def controller(state: Path, environment: dict[str, str], *more: str) -> Iterator[subprocess.Popen[str]]:
    port = free_port()
    command = [
        str(KLINKET), "controller", "--network", "acme", "--state", str(state), "--listen", f"127.0.0.1:{port}",
        "--public-url", f"https://127.0.0.1:{port}", *more,
    ]  # fmt: skip
    with subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(20)


def read_until(process: subprocess.Popen[str], pattern: str) -> str:
    """Return what a process printed up to a line with `pattern`; pytest's timeout bounds it."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if re.search(pattern, line):
            return seen
    raise AssertionError(seen)


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(KLINKET), *arguments], env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_commands_share_a_database_and_a_second_controller_is_refused(tmp_path: Path, postgres: Server) -> None:
    address = postgres.empty_database()
    url = postgres.url(address.parameters["dbname"]).replace("klinket@", "klinket:s3cret-word@")
    environment = {"KLINKET_DATABASE": url}
    early = run(environment, "issue", "api-token", "too early")
    assert (early.returncode, "does not hold this version's tables" in early.stderr) == (2, True), early
    with controller(tmp_path / "one", environment) as first:
        shown = read_until(first, "klinket admin network create")
        assert "KLINKET_API_TOKEN" in shown
        assert not list((tmp_path / "one").glob("klinket.db*"))
        issued = run(environment, "issue", "api-token", "recovery")
        assert issued.returncode == 0, issued.stderr
        assert issued.stdout.startswith("kl_api_")
        again = run(environment, "issue", "api-token", "recovery")
        assert "an API token with this name exists already" in again.stderr
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        with controller(tmp_path / "two", environment) as second:
            refused = read_until(second, "klinket: store-in-use: another controller runs on postgresql://klinket@")
        assert second.returncode not in (0, None)
        first.send_signal(signal.SIGKILL)
        first.wait(20)
    with controller(tmp_path / "one", environment) as third:
        shown_again = read_until(third, "network acme is served")
        assert "KLINKET_API_TOKEN" not in shown_again
    for text in (shown, refused, shown_again, early.stderr, issued.stderr, again.stderr):
        assert "s3cret-word" not in text


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (["--database", "postgresql://u:s3cret-word@db/k"], {}, "a password on the command line"),
        (["--database", "postgresql://db/k?password=s3cret-word"], {}, "a password on the command line"),
        (["--database", "mysql://u:s3cret-word@db/k"], {}, "the database is given as postgresql://"),
        ([], {"KLINKET_DATABASE": "postgresql://u:s3cret-word@db"}, "the URL names no database"),
        ([], {"KLINKET_DATABASE": "postgresql://u:s3cret-word@db/k?no=such"}, "no URL that PostgreSQL understands"),
        (["--database-password-file", "/dev/null"], {}, "a password is given, but no --database"),
        (["--database", "postgresql://db/k", "--database-password-file", "/dev/null"], {}, "holds no password"),
        (["--database", "postgresql://db/k", "--database-password-file", "/nowhere/x"], {}, "cannot be read"),
        ([], {}, "--state is missing"),
    ],
)
def test_a_database_that_is_given_wrongly_is_told_without_its_password(
    arguments: list[str], environment: dict[str, str], told: str
) -> None:
    answer = run(environment, "issue", "api-token", "x", *arguments)
    assert answer.returncode == 2
    assert told in answer.stderr
    assert "s3cret-word" not in answer.stderr + answer.stdout
