"""Addresses of PostgreSQL databases: what is verified by default, and that no password is shown."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.controller.app.store_errors import StoreUnreachable
from klinket.controller.database import PostgresAddress
from klinket.controller.store.engine import open_store
from klinket.domain.errors import InvalidInput


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("postgresql://klinket@db.example.com/klinket", "verify-full"),
        ("postgres://192.0.2.7:5433/klinket", "verify-full"),
        ("postgresql://localhost,db.example.com/klinket", "verify-full"),
        ("postgresql://db.example.com/klinket?sslmode=require", "require"),
        ("postgresql://localhost/klinket", None),
        ("postgresql://[::1]/klinket", None),
        ("postgresql:///klinket", None),
        ("postgresql:///klinket?host=/run/postgresql", None),
        ("postgresql:///klinket?host=db.example.com", "verify-full"),
        ("postgresql://localhost/klinket?hostaddr=192.0.2.7", "verify-full"),
    ],
)
def test_a_server_across_a_network_has_to_prove_its_name(url: str, mode: str | None) -> None:
    assert PostgresAddress.parse(url).parameters.get("sslmode") == mode


def test_a_password_of_its_own_goes_before_one_in_the_url() -> None:
    address = PostgresAddress.parse("postgresql://u:first@db/k", password="second")
    assert address.parameters["password"] == "second"
    assert str(address) == "postgresql://u@db/k"


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x00"), min_size=3))
def test_a_password_is_never_shown(password: str) -> None:
    secret = f"s3cret{password}"
    address = PostgresAddress.parse("postgresql://u@db:5433/k", password=secret)
    assert f"{address} {address!r} {address}" == "postgresql://u@db:5433/k PostgresAddress() postgresql://u@db:5433/k"


@given(st.text())
def test_any_text_is_an_address_or_refused_without_being_quoted(text: str) -> None:
    for url in (text, f"postgresql://{text}"):
        try:
            assert PostgresAddress.parse(url).parameters["dbname"]
        except InvalidInput as refused:
            shown = f"{refused} {refused.__cause__}"
        else:
            continue
        assert len(text) < 12 or text not in shown


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """Accept connections and never say a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    kept.append(server.accept()[0])

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        for connection in kept:
            connection.close()


def test_a_server_that_says_nothing_does_not_hold_the_start_up() -> None:
    with silent() as port:
        began = time.monotonic()
        with pytest.raises(StoreUnreachable, match="timeout"):
            open_store(PostgresAddress.parse(f"postgresql://u@127.0.0.1:{port}/k?connect_timeout=2"), time.time)
        assert time.monotonic() - began < 30
