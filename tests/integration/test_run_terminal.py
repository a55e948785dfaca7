"""`klinket run` at a terminal, below a shell: keys, job control and sizes are the command's, as without klinket."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shlex
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator

import pytest

from examples.deployment import clean_environment
from tests.integration.conftest import Loopback
from tests.integration.test_bad_input import REFUSING

pytestmark = [pytest.mark.alone, pytest.mark.timeout(120)]

#: Seconds until something must show.
PATIENCE = 30.0
PROMPT = "ready$ "
#: Notes each signal that it is told of, for a moment longer than a second one would take.
TRAPPING = """import signal, sys, time, os
heard = []
for name in sys.argv[1:]:
    signal.signal(getattr(signal, name), lambda number, _: heard.append(signal.Signals(number).name))
print("here", flush=True)
while not heard:
    time.sleep(0.01)
time.sleep(0.5)
print("heard", *heard, *os.get_terminal_size(0), flush=True)
sys.exit(21)
"""


class Shell:
    """An interactive bash at a terminal of its own."""

    def __init__(self, world: Loopback) -> None:
        self.command = shlex.join(world.deployment.run_command(world.key, options=()))
        environment = {**clean_environment(), "PS1": PROMPT, "TERM": "dumb", "PYTHONPATH": os.pathsep.join(sys.path)}
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"], environment)
        self.shown = ""
        self.until(re.escape(PROMPT))

    def run(self, command: str) -> None:
        """Type `klinket run -- command`."""
        self.type(f"{self.command} {command}\n")

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def until(self, pattern: str) -> str:
        """Return what is shown up to the next match, which counts as read."""
        deadline = time.monotonic() + PATIENCE
        while (found := re.search(pattern, self.shown)) is None:
            readable, _, _ = select.select([self.terminal], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                raise AssertionError(f"{pattern!r} was never shown: {self.shown!r}")
            self.shown += os.read(self.terminal, 65_536).decode(errors="replace").replace("\r", "")
        before, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return before

    def code(self) -> int:
        """Return the exit code of the last command, at the next prompt."""
        self.until(re.escape(PROMPT))
        self.type('echo "code=$?"\n')
        told = self.until(r"\ncode=\d+\n")
        self.until(re.escape(PROMPT))
        return int(re.findall(r"\ncode=(\d+)\n", told)[-1])

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


@pytest.fixture
def shell(loopback: Loopback) -> Iterator[Shell]:
    made = Shell(loopback)
    yield made
    made.close()


def trapping(*signals: str) -> str:
    return shlex.join([sys.executable, "-c", TRAPPING, *signals])


@pytest.mark.parametrize(("key", "name"), [("\x03", "SIGINT"), ("\x1c", "SIGQUIT")])
def test_a_key_reaches_the_command_once(shell: Shell, key: str, name: str) -> None:
    shell.run(trapping(name))
    shell.until("here\n")
    shell.type(key)
    assert re.search(rf"heard {name} \d", shell.until(r"heard .*\n"))
    assert shell.code() == 21


def test_a_new_size_reaches_the_command_once(shell: Shell) -> None:
    shell.run(trapping("SIGWINCH"))
    shell.until("here\n")
    fcntl.ioctl(shell.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
    assert "heard SIGWINCH 111 33\n" in shell.until(r"heard .*\n")
    assert shell.code() == 21


def test_a_command_that_ctrl_c_ends_ends_the_loop_around_it(shell: Shell) -> None:
    shell.type(f"for round in 1 2 3; do {shell.command} sh -c 'echo round $0; exec sleep 60' $round; done\n")
    shell.until("round 1\n")
    time.sleep(0.3)
    shell.type("\x03")
    assert shell.code() == 130
    assert "round 2" not in shell.shown


def test_ctrl_c_before_the_command_has_begun_ends_it(shell: Shell, loopback: Loopback) -> None:
    loopback.grant("ci", "Refuses", REFUSING)
    shell.type(f"{shell.command.removesuffix(' --')} --wait {REFUSING}:1 -- true\n")
    shell.until("waiting: ")
    shell.type("\x03")
    assert shell.code() == 130


def test_ctrl_z_gives_the_prompt_back_and_fg_goes_on(shell: Shell) -> None:
    shell.run("sh -c 'echo here; read word; echo \"got $word\"'")
    shell.until("here\n")
    time.sleep(0.3)
    shell.type("\x1a")
    shell.until("Stopped")
    shell.until(re.escape(PROMPT))
    shell.type("fg\n")
    shell.until(r"klinket run .*\n")
    shell.type("something\n")
    shell.until("\ngot something\n")
    assert shell.code() == 0


def test_a_command_that_stops_itself_gives_the_prompt_back(shell: Shell) -> None:
    shell.run("sh -c 'echo here; kill -STOP $$; echo again; kill -TSTP $$; echo \"and again\"; exit 7'")
    for said in ("here\n", "\nagain\n"):
        shell.until(said)
        shell.until("Stopped")
        shell.until(re.escape(PROMPT))
        shell.type("fg\n")
    shell.until("\nand again\n")
    assert shell.code() == 7


def test_a_command_that_ignores_ctrl_z_is_not_stopped(shell: Shell) -> None:
    shell.run(trapping("SIGTSTP"))
    shell.until("here\n")
    shell.type("\x1a")
    assert re.search(r"heard SIGTSTP \d", shell.until(r"heard .*\n"))
    assert shell.code() == 21


def test_an_interactive_shell_inside_has_job_control_of_its_own(shell: Shell) -> None:
    shell.run("env PS1='inner$ ' bash --norc --noprofile --noediting -i")
    shell.until(r"\ninner\$ ")
    for key in ("\x03", "\x1a"):
        shell.type("sh -c 'echo begun; exec sleep 60'\n")
        shell.until("begun\n")
        shell.type(key)
        if key == "\x03":
            shell.until(r"\ninner\$ ")
    shell.until("Stopped")
    shell.until(r"\ninner\$ ")
    shell.type("kill -9 %1; sleep 1; exit 9\n")
    assert shell.code() == 9


@pytest.mark.parametrize(("number", "code"), [("TERM", 143), ("KILL", 137), ("SEGV", 139)])
def test_a_signal_that_ends_the_command_is_its_exit_code(shell: Shell, number: str, code: int) -> None:
    shell.run(f"sh -c 'kill -{number} $$'")
    assert shell.code() == code
