"""Argon2id: its parameters, what is compared with nobody's password, and the bound on those that wait."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest

from klinket.controller.console.sign_in import password_hash
from klinket.controller.console.sign_in.password_hash import PasswordHasher
from klinket.domain.errors import Throttled
from tests.eventually import eventually


async def test_a_hash_tells_its_parameters_and_belongs_to_its_password() -> None:
    hasher = PasswordHasher(os.urandom)
    phc = await hasher.hashed("correct zebra lamp forest")
    assert phc.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert "zebra" not in phc
    assert await hasher.is_right("correct zebra lamp forest", phc)
    assert not await hasher.is_right("correct zebra lamp forest ", phc)
    assert phc != await hasher.hashed("correct zebra lamp forest")


async def test_nobody_has_a_password_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    hasher = PasswordHasher(os.urandom)
    compared = []
    real: Any = password_hash.Argon2id

    class Watched:
        """The library's own, and a list of what is compared with."""

        def __new__(cls, **settings: int) -> Any:
            return real(**settings)

        @staticmethod
        def verify_phc_encoded(material: bytes, phc: str) -> None:
            compared.append(phc)
            real.verify_phc_encoded(material, phc)

    monkeypatch.setattr(password_hash, "Argon2id", Watched)
    for text in ("nobody has this password", "", "x" * 10_000, "\ud800"):
        assert not await hasher.is_right(text, None)
    assert len(compared) == 4  # as much work as for somebody
    assert {phc.split("$")[3] for phc in compared} == {"m=65536,t=3,p=4"}


async def test_two_are_made_at_a_time_and_few_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(password_hash, "MAX_WAITING", 3)
    hasher = PasswordHasher(os.urandom)
    running, most, let_go, lock = 0, 0, threading.Event(), threading.Lock()

    def slow(_: str) -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        let_go.wait(20)
        with lock:
            running -= 1
        return "phc"

    monkeypatch.setattr(hasher, "_hash", slow)
    tasks = [asyncio.create_task(hasher.hashed("x")) for _ in range(5)]
    await eventually(lambda: running == 2)
    with pytest.raises(Throttled) as throttled:
        await hasher.hashed("x")
    assert throttled.value.retry_after == 2.0
    let_go.set()
    assert await asyncio.gather(*tasks) == ["phc"] * 5
    assert most == 2
