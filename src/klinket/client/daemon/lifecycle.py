"""Starting and ending the daemon: by systemd where it has the unit, else as a process of its own."""

from __future__ import annotations

import errno
import os
import select
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

from klinket.client.daemon import ask, former, pid_file, protocol
from klinket.client.daemon.paths import Paths
from klinket.client.daemon.protocol import StatusReport
from klinket.client.daemon.states import FINAL, State
from klinket.client.key_source import is_in_environment
from klinket.domain.errors import CaptureImpossible, KlinketError, ServiceKeyInvalid

UNIT = "klinket.service"
UNIT_FOLDERS = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
#: States in which `klinket start` ends with the code of an error, by its code word: the daemon stays, and cannot be used.
ENDS_START = {
    State.KEY_REVOKED.value: "service-key-revoked",
    State.KEY_EXPIRED.value: "service-key-expired",
    State.KEY_REFUSED.value: "service-key-invalid",
    State.CAPTURE_IMPOSSIBLE.value: "capture-impossible",
}
#: Seconds until a daemon that was started answers, and until one that was asked to end has ended.
APPEAR_SECONDS = 30.0
END_SECONDS = 15.0
#: Bytes at the end of the log that are read to say why a daemon has ended.
LOG_TAIL_BYTES = 4096
_STEP_SECONDS = 0.05
#: Descriptor of the pipe that the daemon keeps open; its own children do not inherit it.
_HELD = 3


class DaemonEnded(KlinketError):
    """The daemon ended at its start; `code` word and sentence are in its log."""

    code = "daemon-ended"
    default_hint = "klinket daemon, in the foreground, says more"


def by_systemd(paths: Paths, root: Path = Path("/")) -> bool:
    """Return whether systemd runs this machine and has the unit."""
    if paths.moved or not (root / "run/systemd/system").is_dir():
        return False
    return any((root / folder.lstrip("/") / UNIT).exists() for folder in UNIT_FOLDERS)


def start(paths: Paths, wait: float) -> StatusReport:
    """Start the daemon if none runs, and return its status: as soon as that is final, or after `wait` seconds.

    Raises ServiceKeyInvalid without a key, NeedsRoot, DaemonEnded, NotAnswering.
    """
    alive: int | None = None
    if pid_file.holder(paths.pid_file) is None:
        if not paths.key_file.exists() and not is_in_environment():
            raise ServiceKeyInvalid("there is no service key", hint="klinket setup --headless FILE")
        if by_systemd(paths):
            _systemctl("start")
        else:
            alive = _spawn(paths)
    try:
        return _until_settled(paths, wait, alive)
    finally:
        if alive is not None:
            os.close(alive)


def _until_settled(paths: Paths, wait: float, alive: int | None) -> StatusReport:
    begun = time.monotonic()
    while True:
        ended = alive is not None and _is_at_its_end(alive)  # asked before the status: one that answers has not ended
        status = ask.status(paths)
        state = State(status.state)
        waited = time.monotonic() - begun
        if state is State.ONLINE or (state in FINAL and state is not State.UNINITIALIZED):
            return status
        if state in (State.NOT_RUNNING, State.UNINITIALIZED):
            if ended or alive is None:
                raise DaemonEnded(f"the daemon has ended at its start: {_last_words(paths)}")
        elif state is not State.NOT_ANSWERING and waited > wait:
            return status
        if waited > max(wait, APPEAR_SECONDS):
            raise ask.NotAnswering(f"the daemon does not answer after {waited:.0f} s")
        time.sleep(_STEP_SECONDS)


def _is_at_its_end(pipe: int) -> bool:
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    return bool(poll.poll(0))


def _spawn(paths: Paths) -> int:
    """Start the daemon as a child of init, without a terminal (forked twice: it gets none later either).

    Returns the reading end of a pipe that is at its end when the daemon has ended, or another has its place.
    """
    try:
        paths.make_run_folder()
        paths.log.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        log = open_log(paths.log)
    except PermissionError as error:
        raise protocol.NeedsRoot(f"the daemon cannot be started: {error.filename}: {error.strerror}") from None
    command = [sys.executable, "-P", "-m", "klinket", "daemon", "--log-file", str(paths.log)]
    alive, held = os.pipe()
    first = os.fork()
    if first == 0:
        try:
            os.setsid()
            if os.fork() == 0:
                os.chdir("/")
                os.umask(0o027)
                nothing = os.open(os.devnull, os.O_RDWR)
                for descriptor, source in ((0, nothing), (1, log), (2, log), (_HELD, held)):
                    os.dup2(source, descriptor)
                os.closerange(_HELD + 1, os.sysconf("SC_OPEN_MAX"))
                os.execv(command[0], command)  # noqa: S606
        finally:
            os._exit(127)
    os.close(log)
    os.close(held)
    os.waitpid(first, 0)
    return alive


def open_log(path: Path) -> int:
    """Return the descriptor of the log, for its end; raises DaemonEnded where another's file is in its place, OSError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o640)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise DaemonEnded(f"the log {path} is not a plain file", hint="remove it, or name another in KLINKET_LOG") from None
        raise
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
        os.close(descriptor)
        raise DaemonEnded(f"the log {path} is not a plain file of this user", hint="remove it, or name another in KLINKET_LOG")
    os.fchmod(descriptor, 0o640 & stat.S_IMODE(found.st_mode))
    os.set_blocking(descriptor, True)
    return descriptor


def stop(paths: Paths) -> str:
    """End the daemon and return a sentence that says what was done; raises NeedsRoot, CaptureImpossible.

    What a daemon left that crashed is undone as well, whether or not one runs.
    """
    pid = pid_file.holder(paths.pid_file)
    if pid is None:
        undone = _undo()
        former.forget(paths.former_file)
        return f"klinket is not running{undone}"
    if by_systemd(paths):
        _systemctl("stop")
    killed = pid_file.holder(paths.pid_file) == pid and _end(paths, pid)
    former.forget(paths.former_file)  # one that ended by itself has done so
    return f"klinket is stopped{_undo() if killed else ''}"


def _end(paths: Paths, pid: int) -> bool:
    """Ask the daemon to end and wait until it has; returns whether it had to be killed."""
    killed = False
    try:
        ask.ask(paths, "stop")
    except protocol.NeedsRoot:
        raise
    except KlinketError:
        _signal(pid, signal.SIGTERM)  # it does not answer: it may still end
    deadline = time.monotonic() + END_SECONDS
    while pid_file.holder(paths.pid_file) == pid:
        if time.monotonic() > deadline:
            if killed or pid == 0:
                raise ask.NotAnswering("the daemon does not end", hint="end it where it runs: it is of another container")
            _signal(pid, signal.SIGKILL)
            killed, deadline = True, time.monotonic() + END_SECONDS
        time.sleep(_STEP_SECONDS)
    return killed


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        if pid > 0:
            os.kill(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise protocol.NeedsRoot("the daemon is another user's") from None


def _undo() -> str:
    """Take away what a crashed daemon left in rules, routes and DNS; returns what is to be said of it."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return ""
    from klinket.client.capture.host import claim, rules, tools, undo

    try:
        tools.run(("nft", "list", "table", *rules.TABLE.split()))
    except CaptureImpossible:
        return ""  # no such table, or no nft that could have made one
    try:
        os.close(claim.take())  # the watcher of one that was killed just now has it for a moment
    except CaptureImpossible as error:
        return f"; {error.message}"
    undo.undo()
    return "; what a daemon had left that crashed is taken away"


def _systemctl(verb: str) -> None:
    done = subprocess.run(["systemctl", verb, UNIT], capture_output=True, text=True)
    if done.returncode:
        told = done.stderr.strip().splitlines()
        raise DaemonEnded(
            f"systemctl {verb} {UNIT} failed{f': {told[0]}' if told else ''}", hint=f"journalctl -u {UNIT} says why"
        )


def _last_words(paths: Paths) -> str:
    """Return the last line of the log that says why a daemon has ended."""
    try:
        with paths.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            lines = log.read(LOG_TAIL_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return "its log cannot be read"
    told = [line for line in lines if line.startswith("klinket: ")]
    return told[-1].removeprefix("klinket: ") if told else lines[-1] if lines else "its log is empty"
