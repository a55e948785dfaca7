"""The daemon as a script meets it: folders of its own, and `klinket` by its commands."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from examples.deployment import clean_environment

KLINKET = [sys.executable, "-m", "klinket"]


class DaemonCommands:
    """Runs `klinket COMMAND` with the daemon's folders below `directory`. `prefix`: what klinket itself runs below."""

    def __init__(self, directory: Path, prefix: Sequence[str] = ()) -> None:
        self.etc, self.run_folder = directory / "etc", directory / "run"
        self.log = directory / "klinket.log"
        self.prefix = list(prefix)
        self.environment = {
            **clean_environment(),
            "KLINKET_ETC": str(self.etc),
            "KLINKET_RUN": str(self.run_folder),
            "KLINKET_STATE": str(directory / "state"),
            "KLINKET_LOG": str(self.log),
        }

    def run(self, *words: str, given: str | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run one command to its end; `given`: its standard input."""
        stdin = {"input": given} if given is not None else {"stdin": subprocess.DEVNULL}
        return subprocess.run(
            [*self.prefix, *KLINKET, *words],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=self.environment,
            **stdin,  # type: ignore[call-overload]
        )

    def ok(self, *words: str, given: str | None = None, timeout: float = 60) -> str:
        """Return what a command prints; fails where it does."""
        done = self.run(*words, given=given, timeout=timeout)
        assert done.returncode == 0, (words, done, self.tail())
        return done.stdout

    def tail(self) -> str:
        return self.log.read_text()[-4000:] if self.log.exists() else ""

    def until(self, state: str, seconds: float = 30.0) -> None:
        """Wait until `klinket status` says a word."""
        deadline = time.monotonic() + seconds
        while (said := self.ok("status")) != f"{state}\n":
            assert time.monotonic() < deadline, (said, self.tail())
            time.sleep(0.1)
