"""Argon2id in a thread: 64 MiB a hash, two at a time, and a bound on those that wait (dependencies.md 2.4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from klinket.domain.errors import Throttled
from klinket.domain.password import MAX_CHARS

#: KiB of memory, passes and lanes of a hash; bytes of it and of its salt.
MEMORY_KIB = 65_536
PASSES = 3
LANES = 4
HASH_BYTES = 32
SALT_BYTES = 16
#: Hashes at a time, and that may wait for their turn.
MAX_HASHES = 2
MAX_WAITING = 32
T = TypeVar("T")


class PasswordHasher:
    """Makes and compares hashes. Comparing with none takes as long as comparing with one."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._turns = asyncio.Semaphore(MAX_HASHES)
        self._waiting = 0
        self._nobody: str | None = None

    async def hashed(self, password: str) -> str:
        """Return the PHC string of a password; raises Throttled."""
        return await self._in_turn(lambda: self._hash(password))

    async def is_right(self, password: str, phc: str | None) -> bool:
        """Return whether the password belongs to the hash; never for None. Raises Throttled."""
        return await self._in_turn(lambda: self._compare(password, phc))

    async def _in_turn(self, work: Callable[[], T]) -> T:
        if self._waiting >= MAX_WAITING + MAX_HASHES:
            raise Throttled("too many people sign in at this moment", hint="try again in a moment", retry_after=2.0)
        self._waiting += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(work)
        finally:
            self._waiting -= 1

    def _hash(self, password: str) -> str:
        method = Argon2id(
            salt=self._entropy(SALT_BYTES), length=HASH_BYTES, iterations=PASSES, lanes=LANES, memory_cost=MEMORY_KIB
        )
        return method.derive_phc_encoded(password.encode())

    def _compare(self, password: str, phc: str | None) -> bool:
        if self._nobody is None:
            self._nobody = self._hash("nobody has this password")
        typed = password[: MAX_CHARS + 1].encode("utf-8", "replace")
        try:
            Argon2id.verify_phc_encoded(typed, phc or self._nobody)
        except InvalidKey:
            return False
        return phc is not None
