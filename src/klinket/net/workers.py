"""Worker processes: started when there is work for them, given open files to move bytes between.

Whoever decides is one process. A worker decides nothing: it is handed what was decided (docs/decisions/0030).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from typing import Protocol, TypeVar

from klinket.net.descriptors import raise_limit
from klinket.net.undumpable import be_undumpable
from klinket.net.worker_channel import WorkerChannel

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Worker processes that may be asked for (also in cli.roles).
MAX_PROCESSES = 64
#: Bytes that something has moved when it is given to a worker.
MUCH_BYTES = 4 << 20
#: Seconds between looks at what was moved, and how much of it is given away in one look.
LOOK_SECONDS = 0.25
MAX_GIVEN = 500
#: Workers that are started beyond those asked for when the files of all are used up, this many in all.
MAX_FOR_FILES = 8
#: Files a worker keeps for other things than its work.
SPARE_DESCRIPTORS = 64
#: Seconds a worker has to confirm that it has ended what it was told to end; then it is killed, which ends it all.
CONFIRM_SECONDS = 0.3
#: Seconds a killed worker may take to be gone.
KILLED_SECONDS = 0.5
#: Seconds between tries to start a worker where that failed.
AGAIN_SECONDS = 5.0
#: Seconds between words to each worker, so that it knows that whoever decides is there.
TICK_SECONDS = 1.0
#: Seconds after which a worker that has heard nothing ends with all it has: nobody could tell it of a cut or the end of a grant.
SILENCE_SECONDS = 5.0
#: What of the environment workers get: where modules are, and nothing that could be a secret.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LANG", "LC_ALL", "LD_LIBRARY_PATH")
_ITEM = struct.Struct(">BQ")
#: The first message of a worker: it can be given work.
_HELLO = 0
#: A word to a worker that asks nothing of it.
_TICK = 0


def default_processes() -> int:
    """Return how many processes of a role move bytes: as many as cores this process may use, and 2 for their files."""
    return max(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def there_are() -> bool:
    """Return whether there are worker processes on this system."""
    return sys.platform == "linux"


def give_away(
    here: Collection[T], moved: Callable[[T], int], kept: int, give: Callable[[T, bool], bool], *, started: bool
) -> None:
    """Give to workers what has `moved` MUCH_BYTES, and the oldest of what is more than `kept`; `here`: the oldest in front.

    `give`: is told whether it is busy; returns False when no worker takes anything more now. Before a worker was `started` the
    only busy one stays: elsewhere it would be no quicker, and whatever else is here waits one of its turns at most.
    """
    busy = [one for one in here if moved(one) >= MUCH_BYTES]
    if len(busy) == 1 and not started:
        busy = []
    chosen = set(busy)
    too_many = len(here) - len(busy) - kept
    oldest = [] if too_many <= 0 else [one for one in here if one not in chosen][:too_many]
    for group, is_busy in ((busy, True), (oldest, False)):
        for one in group[:MAX_GIVEN]:
            if not give(one, is_busy):
                break


class Program:
    """What a worker runs: a module, whose first argument is the file of its channel. It gets nothing else of this process."""

    def __init__(self, module: str, *arguments: str) -> None:
        # -P: nothing is imported from the folder that this process happens to be started in.
        self._command = [sys.executable, "-P", "-m", module]
        self._arguments = arguments
        self._gone: list[subprocess.Popen[bytes]] = []

    def start(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        """Start a worker; returns this end of its channel, and the process. Raises OSError."""
        self._gone = [process for process in self._gone if process.poll() is None]
        ours, theirs = socket.socketpair()
        kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        with theirs:
            try:
                command = [*self._command, str(theirs.fileno()), *self._arguments]
                return ours, subprocess.Popen(command, stdin=subprocess.DEVNULL, env=kept, cwd="/", pass_fds=[theirs.fileno()])
            except BaseException:
                ours.close()
                raise

    def gone(self, process: subprocess.Popen[bytes]) -> None:
        """Take over a process whose channel has ended: it is about to end as well."""
        if process.poll() is None:
            self._gone.append(process)


def begin_worker(file: int) -> socket.socket:
    """Make this process a worker; returns its end of the channel."""
    be_undumpable()  # nobody reads keys out of a worker's memory
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of its channel ends it: what is live may be drained until then
    raise_limit()
    return socket.socket(fileno=file)


class WorkerEnd:
    """A worker's own end: `taken` is called with kind, number, content and files of each message of its process."""

    def __init__(self, sock: socket.socket, taken: Callable[[int, int, bytes, list[int]], None]) -> None:
        self._taken = taken
        self._heard_at = time.monotonic()
        self._channel = WorkerChannel(sock, self._received, lambda: os._exit(0))
        self.tell(_HELLO, 0)
        self._listen()

    def _listen(self) -> None:
        """End this process, whose connections are reset by that, when the one that decides has stalled."""
        if time.monotonic() - self._heard_at > SILENCE_SECONDS:
            self._channel.take()  # where this process itself has stalled, words wait
            if time.monotonic() - self._heard_at > SILENCE_SECONDS:
                os._exit(1)  # says nothing before: a log that takes nothing would hold it up
        asyncio.get_running_loop().call_later(min(TICK_SECONDS, SILENCE_SECONDS / 5), self._listen)

    def _received(self, body: bytes, files: list[int]) -> None:
        self._heard_at = time.monotonic()
        kind, number = _ITEM.unpack_from(body)
        if kind == _TICK:
            return
        self._taken(kind, number, body[_ITEM.size :], files)

    def tell(self, kind: int, number: int, content: bytes = b"", files: Sequence[int] = ()) -> None:
        """Send a message about one piece of work; the files are closed."""
        self._channel.send(_ITEM.pack(kind, number) + content, files)


class Item(Protocol):
    """A piece of work that a worker has."""

    def told(self, kind: int, content: bytes, files: list[int]) -> bool:
        """Take what the worker says of it; returns whether it is over. The files are the taker's."""

    def lost(self) -> None:
        """The worker is gone, and all that it had with it."""


class _Worker:
    """One worker process, as seen from the one that decides."""

    def __init__(self, sock: socket.socket, process: subprocess.Popen[bytes], gone: Callable[[_Worker], None]) -> None:
        self.process = process
        self.ready = False
        self.items: dict[int, Item] = {}
        #: Numbers it was told to end, and since when (monotonic seconds).
        self.ending: dict[int, float] = {}
        self._gone = gone
        self._killed = False
        self.channel = WorkerChannel(sock, self._received, self._ended)

    def _received(self, body: bytes, files: list[int]) -> None:
        kind, number = _ITEM.unpack_from(body)
        if kind == _HELLO:
            self.ready = not self._killed
            return
        item = self.items.get(number)
        if item is None:
            for file in files:
                os.close(file)
        elif item.told(kind, body[_ITEM.size :], files):
            del self.items[number]
            self.ending.pop(number, None)

    def tick(self) -> None:
        """Say that whoever decides is there; where other words still wait to go out, those say it."""
        self.channel.offer(_ITEM.pack(_TICK, 0), ())

    def kill(self) -> None:
        """End the process at once: the kernel closes all it has."""
        self._killed = True
        self.process.kill()

    def _ended(self) -> None:
        self._gone(self)
        self.ready = False
        items, self.items = self.items, {}
        self.ending.clear()
        if items and not self._killed:
            logger.error("a worker process has ended: %d of its connections were reset", len(items))
        for item in items.values():
            item.lost()


class WorkerPool:
    """Gives work to worker processes. `processes`: so many share it; `capacity`: pieces of work of one, by its files."""

    def __init__(self, program: Program, processes: int, capacity: int) -> None:
        self._program = program
        self._processes = processes
        self._each = capacity
        self._workers: list[_Worker] = []
        self._number = 0
        self._not_before = 0.0
        self._ticking = False

    @property
    def capacity(self) -> int:
        """Return how many pieces of work all workers can have, those that are not started yet among them."""
        return self._each * max(self._processes, MAX_FOR_FILES)

    @property
    def started(self) -> bool:
        """Return whether there is a worker."""
        return bool(self._workers)

    @property
    def sizes(self) -> list[int]:
        """Return how many pieces of work each worker has."""
        return [len(worker.items) for worker in self._workers]

    def give(self, kind: int, content: bytes, files: Sequence[int], item: Item, *, busy: bool = True) -> Handle | None:
        """Hand a piece of work to a worker; None: none takes it now, and nothing has happened.

        What is busy goes to the one that has the least, what is not to the one that has the most: a worker has its own price.
        The files stay the caller's to close: the worker has its own of them.
        """
        worker = self._choose(busy=busy)
        if worker is None:
            return None
        self._number += 1
        if not worker.channel.offer(_ITEM.pack(kind, self._number) + content, files):
            return None
        worker.items[self._number] = item
        return Handle(worker, self._number)

    def _choose(self, *, busy: bool) -> _Worker | None:
        ready = [worker for worker in self._workers if worker.ready]
        room = [worker for worker in ready if len(worker.items) < self._each]
        starting = len(self._workers) > len(ready)
        wanted = self._processes if room else max(self._processes, MAX_FOR_FILES)
        spread = not room or (busy and all(worker.items for worker in room))
        if spread and not starting and len(ready) < wanted:
            self._start()  # it takes its time
        if not room:
            return None
        return (min if busy else max)(room, key=lambda worker: len(worker.items))

    def _start(self) -> None:
        now = time.monotonic()
        if now < self._not_before:
            return
        try:
            sock, process = self._program.start()
        except OSError as error:
            self._not_before = now + AGAIN_SECONDS
            logger.error("no worker process can be started: %s", error)
            return
        self._workers.append(_Worker(sock, process, self._gone))
        if not self._ticking:
            self._tick()

    def _tick(self) -> None:
        """Let every worker know that this process decides on: at its own pace, whatever else looks at workers or does not."""
        self._ticking = bool(self._workers)
        for worker in list(self._workers):
            worker.tick()
        if self._ticking:
            asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _gone(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        self._program.gone(worker.process)
        self._not_before = time.monotonic() + (AGAIN_SECONDS if not worker.ready else 0.0)

    def settle(self) -> None:
        """Wait, without the loop, until all that was told to end has ended. A worker that does not confirm it is killed."""
        for worker in [worker for worker in self._workers if worker.ending]:
            until = time.monotonic() + CONFIRM_SECONDS
            if not worker.channel.wait_for(lambda worker=worker: not worker.ending, until) and worker.ending:  # type: ignore[misc]
                self._end(worker)

    def look(self) -> None:
        """Kill workers that have not confirmed in time."""
        before = time.monotonic() - CONFIRM_SECONDS
        for worker in list(self._workers):
            if worker.ending and min(worker.ending.values()) < before:
                self._end(worker)

    def _end(self, worker: _Worker) -> None:
        logger.error("a worker process does not end what it was told to: it is killed")
        worker.kill()
        worker.channel.wait_for(lambda: False, time.monotonic() + KILLED_SECONDS)
        worker.channel.close()

    def kill_all(self) -> None:
        """End all workers at once, and all that they have."""
        for worker in list(self._workers):
            worker.kill()
            worker.channel.close()


class Handle:
    """What the process that decides keeps of a piece of work it has given away."""

    __slots__ = ("_number", "_worker")

    def __init__(self, worker: _Worker, number: int) -> None:
        self._worker = worker
        self._number = number

    def tell(self, kind: int, content: bytes = b"") -> None:
        """Tell the worker something about it that it answers in its own time."""
        if self._number in self._worker.items:
            self._worker.channel.send(_ITEM.pack(kind, self._number) + content)

    def end(self, kind: int, content: bytes = b"") -> None:
        """Tell the worker to end it now; WorkerPool.settle() waits for its word."""
        worker = self._worker
        if self._number in worker.items and self._number not in worker.ending:
            worker.ending[self._number] = time.monotonic()
            worker.channel.send(_ITEM.pack(kind, self._number) + content)
