"""A machine in namespaces of its own that a test captures, and the outside that it is connected to.

The outside holds look-alikes of the resources' addresses and the machine's resolver, and logs what reaches it: whatever should
have been captured and was not is seen there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[2]
#: The machine, the outside, and the resolver that the machine asks.
MACHINE, OUTSIDE, RESOLVER = "192.0.2.2", "192.0.2.1", "192.0.2.53"
MACHINE6, OUTSIDE6 = "2001:db8::2", "2001:db8::1"
#: Addresses of resources, which the outside has as well: whoever gets there was not captured.
RESOURCE, RANGE, RESOURCE6 = "10.9.0.5", "10.8.0.0/16", "2001:db8:5::5"
IN_RANGE = "10.8.3.3"
LOOK_ALIKES = (RESOURCE, IN_RANGE, RESOURCE6, "192.0.2.80")
NAME = "db.internal"
GRANTED = (RESOURCE, RANGE, RESOURCE6, NAME)
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "LANG": "C.UTF-8"}
_STARTS_SECONDS = 20

#: Connects as a program does and says in one line how it went: what was received, or the error's name.
CONNECT = """
import errno, socket, sys
host, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
try:
    with socket.create_connection((host, port), timeout=seconds) as sock:
        sock.sendall(b"hello")
        print(sock.recv(100).decode())
except TimeoutError:
    print("ETIMEDOUT")
except socket.gaierror as error:
    print("unknown")
except OSError as error:
    print(errno.errorcode[error.errno])
"""
#: The same with one datagram.
DATAGRAM = """
import errno, socket, sys
family, _, _, _, address = socket.getaddrinfo(sys.argv[1], int(sys.argv[2]), type=socket.SOCK_DGRAM)[0]
with socket.socket(family, socket.SOCK_DGRAM) as sock:
    sock.settimeout(float(sys.argv[3]))
    try:
        sock.connect(address)
        sock.send(b"hello")
        print(sock.recv(65536).decode())
    except TimeoutError:
        print("ETIMEDOUT")
    except OSError as error:
        print(errno.errorcode[error.errno])
"""


class Namespaces:
    """Network and mount namespaces that live until `close`, and what runs in them."""

    def __init__(self) -> None:
        self.keeper = subprocess.Popen(["unshare", "-n", "-m", "sleep", "7200"])
        own = os.readlink("/proc/self/ns/mnt")
        deadline = time.monotonic() + _STARTS_SECONDS
        while os.readlink(f"/proc/{self.keeper.pid}/ns/mnt") == own:
            assert time.monotonic() < deadline, "no namespaces"
            time.sleep(0.005)
        self.run("ip", "link", "set", "lo", "up")

    def prefix(self) -> list[str]:
        return ["nsenter", "-t", str(self.keeper.pid), "-n", "-m"]

    def run(self, *command: str, check: bool = True) -> str:
        """Return what a command wrote."""
        done = subprocess.run([*self.prefix(), *command], capture_output=True, text=True, env=_ENVIRONMENT, timeout=60)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def start(self, *command: str, log: Path) -> subprocess.Popen[str]:
        with log.open("a") as errors:
            return subprocess.Popen(
                [*self.prefix(), *command],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=_ENVIRONMENT,
            )  # fmt: skip

    def close(self) -> None:
        self.keeper.kill()
        self.keeper.wait()


@dataclass
class Capture:
    """A process of `capturing` in the machine."""

    process: subprocess.Popen[str]
    log: Path

    def answer(self) -> dict[str, object]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the capture has ended: {self.log.read_text()[-2000:]}"
        found: dict[str, object] = json.loads(line)
        return found

    def tell(self, **what: object) -> dict[str, object]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        """Stop it as `klinket stop` does."""
        if self.process.poll() is None:
            self.tell(close=True)
        assert self.process.wait(20) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def watchers(self) -> list[int]:
        """Return its watcher processes."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"watcher.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@dataclass
class Machine:
    """Machine and outside, connected by one link; the machine's default route leads outside."""

    directory: Path
    captures: list[Capture] = field(default_factory=list)

    def __enter__(self) -> Machine:
        self.inside, self.outside = Namespaces(), Namespaces()
        self.resolv_conf = self.directory / "resolv.conf"
        self.resolv_conf.write_text(f"search example\nnameserver {RESOLVER}\noptions timeout:2 attempts:1\n")
        self.inside.run("mount", "--bind", str(self.resolv_conf), "/etc/resolv.conf")
        self.inside.run(
            "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", str(self.outside.keeper.pid)
        )
        for side, address, address6 in ((self.inside, MACHINE, MACHINE6), (self.outside, OUTSIDE, OUTSIDE6)):
            side.run("ip", "addr", "add", f"{address}/24", "dev", "eth0")
            side.run("ip", "addr", "add", f"{address6}/64", "dev", "eth0", "nodad")
            side.run("ip", "link", "set", "eth0", "addrgenmode", "none", "up")  # an address that comes later would be a change
        self.inside.run("ip", "route", "add", "default", "via", OUTSIDE)
        self.inside.run("ip", "-6", "route", "add", "default", "via", OUTSIDE6)
        for address in (*LOOK_ALIKES, RESOLVER):
            self.outside.run("ip", "addr", "add", f"{address}/{128 if ':' in address else 32}", "dev", "lo")
        self.outside_log = self.directory / "outside.log"
        self.outside_log.touch()
        self.server = self.outside.start(
            sys.executable, "-m", "tests.integration.outside", str(self.outside_log), RESOLVER, *LOOK_ALIKES,
            log=self.directory / "outside.err",
        )  # fmt: skip
        assert self.server.stdout is not None
        assert self.server.stdout.readline() == "ready\n", (self.directory / "outside.err").read_text()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for capture in self.captures:
            if capture.process.poll() is None:
                capture.kill()
        self.server.kill()
        self.server.wait()
        self.inside.close()
        self.outside.close()

    def start_capture(self, *, answer: str = "started", prefix: Sequence[str] = (), **options: object) -> Capture:
        """Return a capture that has said `answer`; `prefix`: what it runs below."""
        options.setdefault("granted", GRANTED)
        log = self.directory / "capture.err"
        command = [*prefix, sys.executable, "-m", "tests.integration.capturing", json.dumps(options)]
        process = self.inside.start(*command, log=log)
        capture = Capture(process, log)
        self.captures.append(capture)
        assert answer in (said := capture.answer()), said
        return capture

    def connect(self, host: str, port: int = 80, seconds: float = 5) -> str:
        """Return how a program's connect went: what it received, or the error."""
        return self.inside.run(sys.executable, "-c", CONNECT, host, str(port), str(seconds))

    def datagram(self, host: str, port: int = 99, seconds: float = 2) -> str:
        """Return what came back for a program's datagram, or the error."""
        return self.inside.run(sys.executable, "-c", DATAGRAM, host, str(port), str(seconds))

    def seen_outside(self) -> list[str]:
        """Return what reached the outside since the last time."""
        lines = self.outside_log.read_text().splitlines()
        with self.outside_log.open("w"):
            pass
        return lines

    def snapshot(self) -> dict[str, object]:
        """Return everything of the machine that a capture could have changed."""
        commands: Sequence[Sequence[str]] = (
            ("nft", "list", "ruleset"),
            *(("ip", version, "rule") for version in ("-4", "-6")),
            *(("ip", version, "route", "show", "table", "all") for version in ("-4", "-6")),
            ("ip", "-o", "link"),
            ("ip", "-o", "addr"),
            ("cat", "/etc/resolv.conf"),
            ("stat", "-c", "%F %a %u %g %N", "/etc/resolv.conf"),
        )
        found: dict[str, object] = {" ".join(command): self.inside.run(*command) for command in commands}
        for version in ("-4", "-6"):  # listed by hash, and with ages
            key = f"ip {version} route show table all"
            lines = [" ".join(word for word in line.split()) for line in str(found[key]).splitlines()]
            found[key] = sorted(line.partition(" expires ")[0] for line in lines)
        return found


def signal_and_wait(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal and wait until the process is gone."""
    os.kill(pid, number)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.01)
    raise AssertionError(f"{pid} does not end")
