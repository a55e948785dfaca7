"""An admin at work: changes one after another, and a record of what the controller has acknowledged."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from chaos.threads import Threads
from klinket.cli.admin.api import AdminApiClient
from klinket.domain.errors import KlinketError

PAUSE_SECONDS = 0.3
#: Of ten changes, so many make a group, rename one, delete one.
VERBS = ("create",) * 6 + ("rename",) * 3 + ("delete",)


class Writes(Threads):
    """`acknowledged`: how many. `lost`: a sentence for each acknowledged change that was not there when looked up."""

    def __init__(self, api: AdminApiClient, seed: int) -> None:
        super().__init__([self._work])
        self._api = api
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self._next = 0
        #: Names each group may have: more than one after a change nobody has acknowledged.
        self._names: dict[str, set[str]] = {}
        self._gone: set[str] = set()
        self.acknowledged = 0
        self.failed = 0
        #: Of the newest change that failed.
        self.error = ""
        self.lost: list[str] = []

    def one(self) -> bool:
        """Make one change; returns whether it was acknowledged."""
        with self._lock:
            try:
                self._change(self._rng.choice(VERBS) if len(self._names) > 5 else "create")
            except KlinketError as error:
                self.failed += 1
                self.error = f"{error.code}: {error.message}"
                return False
            self.acknowledged += 1
            return True

    def look_up(self) -> bool:
        """Compare what is there with what was acknowledged; returns False where the controller does not answer."""
        with self._lock:
            try:
                there = {node["id"]: node["name"] for node in self._api.nodes("groups", "id name")}
            except KlinketError:
                return False
            for id, names in list(self._names.items()):
                if there.get(id) not in names:
                    self.lost.append(f"group {id} should be {' or '.join(sorted(names))}, and is {there.get(id, 'gone')}")
                    del self._names[id]
            for id in self._gone & there.keys():
                self.lost.append(f"group {id} was deleted, and is there")
            self._gone -= there.keys()
            return True

    def _change(self, verb: str) -> None:
        self._next += 1
        name = f"written {self._next}"
        if verb == "create":
            made = self._api.mutate("groupCreate", "entity { id }", name=("String!", name))
            self._names[made["entity"]["id"]] = {name}
            return
        id = self._rng.choice(list(self._names))
        if verb == "rename":
            self._names[id].add(name)  # it may have been made without an answer
            self._api.mutate("groupUpdate", id=("ID!", id), name=("String!", name))
            self._names[id] = {name}
        else:
            del self._names[id]
            self._api.mutate("groupDelete", id=("ID!", id))
            self._gone.add(id)

    def _work(self) -> None:
        while not self._over.wait(PAUSE_SECONDS):
            self.one()


def until(done: Callable[[], bool], over: threading.Event, pause: float = 0.2) -> bool:
    """Try again and again until it is done; returns False where the trial was over first."""
    while not done():
        if over.wait(pause):
            return False
    return True
