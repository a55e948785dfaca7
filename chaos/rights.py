"""Rights that come and go: flows that tick while an account may reach the target, and a watcher at the target."""

from __future__ import annotations

import itertools
import random
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench.load import Dial
from chaos.network import SERVICE_ADDRESS
from chaos.threads import Listening, Threads
from chaos.writes import until
from klinket.cli.admin.api import AdminApiClient
from klinket.cli.admin.cut import PENDING, newest_cuts
from klinket.domain.errors import KlinketError

FLOWS = 4
TICK_SECONDS = 0.05
#: Seconds within which a flow ends where every connector can be reached; stated is 1 s, and this machine does much besides.
BOUND_SECONDS = 3.0
#: What `--grant-seconds` is given, and seconds that clocks may differ.
GRANT_SECONDS, LEEWAY_SECONDS = 30, 5.0
#: Seconds between a connector's end of a flow, by its receipt, and the last byte at the target.
RECEIPT_SECONDS = 1.0
#: Seconds to wait for a flow after a grant; a right is taken away without one as well.
TICKS_WITHIN_SECONDS = 15.0
_NUMBER = struct.Struct(">Q")


class Target(Listening):
    """Ticks are echoed. `heard`: when the last byte of each flow came, by its number (monotonic seconds)."""

    def __init__(self) -> None:
        super().__init__(SERVICE_ADDRESS, self._echo)
        self.heard: dict[int, float] = {}

    def _echo(self, connection: socket.socket) -> None:
        with connection:
            try:
                (number,) = _NUMBER.unpack(connection.recv(_NUMBER.size, socket.MSG_WAITALL))
                while data := connection.recv(4096):
                    self.heard[number] = time.monotonic()
                    connection.sendall(data)
            except (OSError, struct.error):
                pass


@dataclass
class Round:
    """One grant and its end. `numbers`: of its flows; `ended_at`: when the end was acknowledged; `allowed`: seconds after it."""

    numbers: set[int] = field(default_factory=set)
    ended_at: float | None = None
    allowed: float = 0.0
    told: str = ""


class Rights(Threads):
    """Grants, lets flows tick, takes the right away, and reads the receipt; again and again. `breaches` judges at the end.

    `ids`: of the target's resource and of the account. `calm`: whether nothing was struck between two moments.
    """

    def __init__(
        self,
        api: AdminApiClient,
        dial: Dial,
        target: Target,
        ids: tuple[str, str],
        calm: Callable[[float, float], bool],
        seed: int,
    ) -> None:
        super().__init__([self._tick] * FLOWS + [self._work])
        self._api, self._dial, self._target, self._calm = api, dial, target, calm
        self._resource, self._account = ids
        self._rng = random.Random(seed)
        self._numbers = itertools.count(1)
        self._round = Round()
        self.rounds: list[Round] = []

    @property
    def cut_flows(self) -> int:
        """Return how many flows lived when their right ended."""
        return sum(self._lived(one, number) is not None for one in self.rounds for number in one.numbers)

    @property
    def slowest(self) -> float:
        """Return the longest time in seconds from the end of a right to the last byte."""
        lived = (self._lived(one, number) for one in self.rounds for number in one.numbers)
        return max((seconds for seconds in lived if seconds is not None), default=0.0)

    def breaches(self, slowness: Callable[[float, float], float]) -> list[str]:
        """Return a sentence for each flow that outlived its right. `slowness`: of the machine between two moments, at least 1."""
        return [
            f"a flow ran {lived:.1f} s after its right had ended, allowed were {one.allowed:.1f} s ({one.told})"
            for one in self.rounds
            for number in sorted(one.numbers)
            if (lived := self._lived(one, number)) is not None
            and lived > one.allowed * slowness(one.ended_at or 0.0, (one.ended_at or 0.0) + one.allowed)
        ]

    def _lived(self, one: Round, number: int) -> float | None:
        """Return how many seconds before (below 0, at most 1) or after the end of its right a flow was heard last."""
        heard = self._target.heard.get(number)
        if heard is None or one.ended_at is None or heard < one.ended_at - 1.0:
            return None
        return heard - one.ended_at

    def _tick(self) -> None:
        while not self._over.wait(0.2):
            one = self._round
            number = next(self._numbers)
            try:
                with self._dial() as flow:
                    if one is not self._round:
                        continue  # opened by a later grant than it was asked under
                    one.numbers.add(number)
                    flow.settimeout(20)
                    flow.sendall(_NUMBER.pack(number))
                    while not self._over.wait(TICK_SECONDS):
                        flow.sendall(b".")
                        if not flow.recv(4096):
                            break
            except OSError:
                pass

    def _access(self, mutation: str) -> bool:
        subject: dict[str, Any] = (
            {"principalIds": ("[ID!]!", [self._account])}
            if mutation == "resourceAccessRemove"
            else {"access": ("[AccessInput!]!", [{"principalId": self._account}])}
        )
        try:
            self._api.mutate(mutation, resourceId=("ID!", self._resource), **subject)
        except KlinketError:
            return False
        return True

    def _work(self) -> None:
        newest = 0
        while not self._over.is_set():
            self._round = one = Round()
            self.rounds.append(one)
            if not until(lambda: self._access("resourceAccessAdd"), self._over):
                return
            self._wait_for_ticks(one)
            self._over.wait(self._rng.uniform(0.5, 3.0))
            began = time.time()
            if not until(lambda: self._access("resourceAccessRemove"), self._over):
                return
            one.allowed = BOUND_SECONDS
            one.ended_at = time.monotonic()
            newest = self._read_receipt(one, newest, time.time() - began)

    def _wait_for_ticks(self, one: Round) -> None:
        patience = time.monotonic() + TICKS_WITHIN_SECONDS
        until(lambda: any(n in self._target.heard for n in list(one.numbers)) or time.monotonic() > patience, self._over)

    def _read_receipt(self, one: Round, newest: int, slack: float) -> int:
        """Wait until every connector has answered, or the last grant has ended; note what the receipt allows."""
        assert one.ended_at is not None
        end = one.ended_at + GRANT_SECONDS + LEEWAY_SECONDS
        cut: dict[str, Any] | None = None
        while True:
            over = self._over.wait(0.3)
            try:
                cuts = [found for found in newest_cuts(self._api) if found["id"] > newest]
            except KlinketError:
                cuts = []
            if cuts:
                cut = cuts[0]
                if all(receipt["state"] != PENDING for receipt in cut["receipts"]):
                    break
            elif self._over.is_set() or time.monotonic() > one.ended_at + BOUND_SECONDS:
                break  # nothing was cut: nobody held a grant
            if over or time.monotonic() > end:
                break
        if self._calm(one.ended_at - slack, one.ended_at + BOUND_SECONDS):
            one.told = "nothing had struck"
        elif cut is None:
            one.allowed, one.told = GRANT_SECONDS + LEEWAY_SECONDS, "no receipt was to be had"
        else:
            least = max((self._allowed(cut, receipt) for receipt in cut["receipts"]), default=0.0)
            one.allowed = max(one.allowed, least)
            states = ", ".join(f"{receipt['connector']} {receipt['state']}" for receipt in cut["receipts"])
            one.told = f"cut {cut['id']}: {states}"
        return max(newest, cut["id"]) if cut else newest

    @staticmethod
    def _allowed(cut: dict[str, Any], receipt: dict[str, Any]) -> float:
        last = receipt["grants_end_at_ms"] if receipt["state"] == PENDING else receipt["stopped_at_ms"]
        seconds = ((last or cut["created_at_ms"]) - cut["created_at_ms"]) / 1000 + RECEIPT_SECONDS
        return float(min(seconds, GRANT_SECONDS + LEEWAY_SECONDS))
