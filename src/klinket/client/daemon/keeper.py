"""Keeps the daemon logged in with the newest key: tries again, takes keys over, and knows why there is no session."""

from __future__ import annotations

import asyncio
import logging

from klinket.client.client import Client
from klinket.client.daemon.sessions import Sessions
from klinket.domain.errors import KlinketError, ServiceKeyExpired, ServiceKeyInvalid, ServiceKeyRevoked, ServiceKeyUnknown
from klinket.net.backoff import Backoff
from klinket.net.tasks import first_of
from klinket.wire.key_file import KeyFile

logger = logging.getLogger(__name__)

#: What no waiting changes: another key has to come.
OF_THE_KEY = (ServiceKeyInvalid, ServiceKeyUnknown, ServiceKeyRevoked, ServiceKeyExpired)
#: Seconds between logins at the most, and after a refusal that is not the key's, for example of a clock that is wrong.
MAX_DELAY_SECONDS = 10.0


class Keeper:
    """`trouble`: why the newest login failed or the session ended, None while all is well."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._key: KeyFile | None = None
        self._new_key = asyncio.Event()
        self._waiting: list[asyncio.Future[str]] = []
        self.trouble: KlinketError | None = None

    @property
    def key_file(self) -> KeyFile | None:
        """Return the newest key, whether or not its session has begun."""
        return self._key

    def use(self, key_file: KeyFile) -> asyncio.Future[str]:
        """Log in with this key and let its session take over; the future says what came of it, or raises why it did not.

        The key in use: nothing is done, unless its session is over.
        """
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        done.add_done_callback(lambda future: future.cancelled() or future.exception())
        current = self._sessions.current
        if key_file == self._sessions.key_file and current is not None and not current.ended.is_set():
            self._key, self.trouble = key_file, None  # also after another key that was refused
            self._new_key.set()
            done.set_result("this key is in use already")
            return done
        self._key = key_file
        self._waiting.append(done)
        self._new_key.set()
        return done

    async def run(self) -> None:
        """Keep a session until cancelled."""
        backoff = Backoff(cap=MAX_DELAY_SECONDS)
        while True:
            delay: float | None = None
            self._new_key.clear()
            if self._key is not None and self._session_is_wanted():
                delay = await self._log_in(self._key, backoff)
            current = self._sessions.current
            if delay is None and current is not None and not current.ended.is_set():
                await first_of(self._new_key, current.ended)
                if current.ended.is_set() and not self._new_key.is_set():
                    delay = self._ended(current)
            await first_of(self._new_key, timeout=delay)

    def _session_is_wanted(self) -> bool:
        current = self._sessions.current
        return current is None or current.ended.is_set() or self._sessions.key_file != self._key

    def _ended(self, client: Client) -> float | None:
        self.trouble = client.end_reason
        return None if isinstance(self.trouble, OF_THE_KEY) else MAX_DELAY_SECONDS

    async def _log_in(self, key_file: KeyFile, backoff: Backoff) -> float | None:
        """Return after how many seconds to try again, or None: there is a session, or another key is needed."""
        client = self._sessions.prepare(key_file)
        try:
            await client.start()
            told = await self._sessions.take(key_file, client)
        except KlinketError as error:
            await client.aclose()
            self.trouble = error
            if isinstance(error, OF_THE_KEY):
                logger.error("%s: %s", error.code, error)
                self._tell(error)
                return None
            delay = max(backoff.next(), error.retry_after or 0.0)
            logger.warning("%s: %s; trying again in %.1f s", error.code, error, delay)
            return delay
        except BaseException:
            await client.aclose()
            raise
        backoff.reset()
        self.trouble = None
        logger.info("logged in with key %s: %s; %d resources granted", key_file.key_id, told, len(client.resources))
        self._tell(told)
        return None

    def _tell(self, outcome: str | KlinketError) -> None:
        for waiting in self._waiting:
            if waiting.done():
                continue
            if isinstance(outcome, str):
                waiting.set_result(outcome)
            else:
                waiting.set_exception(outcome)
        self._waiting.clear()
