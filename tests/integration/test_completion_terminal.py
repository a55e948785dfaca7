"""Tab completion in an interactive bash at a terminal, beside a running controller: commands, names, and names with spaces."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.deployment import clean_environment
from tests.eventually import PATIENCE
from tests.integration.conftest import Loopback

pytestmark = [pytest.mark.alone, pytest.mark.timeout(240)]

PROMPT = "ready$ "
DELETE_LINE, INTERRUPT = "\x15", "\x03"


class Bash:
    """An interactive bash with klinket's completion, and what it has shown."""

    def __init__(self, world: Loopback, folder: Path) -> None:
        made = world.deployment
        environment = {
            **clean_environment(), "PS1": PROMPT, "TERM": "dumb", "KLINKET_URL": made.url, "KLINKET_CA": str(made.authority),
            "KLINKET_API_TOKEN": made.api_token, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }  # fmt: skip
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environment)
        self.shown = ""
        self.until(re.escape(PROMPT))
        self.type('COLUMNS=400; bind "set bell-style none"; eval "$(klinket completion bash)"; echo set up\n')
        self.until(r"\nset up\nready\$ ")

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def until(self, pattern: str, seconds: float = PATIENCE) -> str:
        """Return what is shown up to the next match, which counts as read."""
        deadline = time.monotonic() + seconds
        while (found := re.search(pattern, self.shown)) is None:
            readable, _, _ = select.select([self.terminal], [], [], max(0.0, deadline - time.monotonic()))
            assert readable, f"{pattern!r} was never shown: {self.shown!r}"
            self.shown += os.read(self.terminal, 65_536).decode(errors="replace").replace("\r", "")
        before, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return before

    def tries(self, typed: str, pattern: str) -> None:
        """Type until that is shown: completion waits COMPLETION_SECONDS for names, and a busy machine may need longer."""
        for last in (False, False, False, True):
            self.type(typed)
            try:
                self.until(pattern, PATIENCE / 4)
                return
            except AssertionError:
                if last:
                    raise
                self.shown = ""
                self.type(INTERRUPT)
                self.until(re.escape(PROMPT))

    def tab(self, words: str, wanted: str) -> None:
        """Press Tab behind words, and wait until the line goes on as wanted."""
        self.tries(f"{words}\t", re.escape(words + wanted))
        self.type(DELETE_LINE)

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


@pytest.fixture
def bash(loopback: Loopback, tmp_path: Path) -> Iterator[Bash]:
    made = Bash(loopback, tmp_path)
    yield made
    made.close()


def test_tab_completes_commands_and_names(bash: Bash) -> None:
    bash.tab("klinket admin serv", "ice ")
    bash.tab("klinket admin service show c", "i ")
    bash.tab("klinket admin flow list --service c", "i ")
    bash.type("klinket admin ser\t\t")  # two commands begin so
    bash.until(r"service +serial-number")


def test_a_name_with_a_space_stays_one_word(bash: Bash, loopback: Loopback) -> None:
    loopback.deployment.admin("resource", "create", "Build cache", "--network", "office", "--address", "10.1.2.3")
    bash.tries("klinket admin resource show Bu\t\n", r"name +Build cache\n")
    bash.tries('klinket admin resource show "Build c\t\n', r"name +Build cache\n")


def test_no_name_is_a_command(bash: Bash, loopback: Loopback, tmp_path: Path) -> None:
    name = "x;$(touch made)`touch made` *"
    loopback.deployment.admin("service", "create", name)
    bash.tries("klinket admin service show x\t\n", rf"name +{re.escape(name)}\n")
    assert list(tmp_path.iterdir()) == []
