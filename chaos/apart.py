"""A trial's own mounts, network and process ids: whatever strikes there stays there, and is gone with its first process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

#: Tells a process of this command that it is the one inside; its value is the folder of the trial.
INSIDE = "KLINKET_CHAOS_FOLDER"
#: Seconds the inside has to stop everything after a signal.
STOP_SECONDS = 40.0


def run_apart(arguments: Sequence[str], folder: Path) -> int:
    """Run `python -m chaos ARGUMENTS` in namespaces of its own and return its exit code; raises OSError where there can be none.

    Ctrl-C and SIGTERM reach it as well. When this process is killed, so is everything inside.
    """
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    namespaces = ["unshare", *as_root, "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*namespaces, "true"], capture_output=True).returncode:
        raise OSError("faults need mounts and a network of their own, which this machine refuses: run it as root")
    # The first process collects orphans, and is deaf to signals by default: only the trial gets them.
    words = [*namespaces, "sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-m", "chaos", *arguments]
    with subprocess.Popen(words, env={**os.environ, INSIDE: str(folder)}, start_new_session=True) as inside:
        try:
            return inside.wait()
        except BaseException:
            os.killpg(inside.pid, signal.SIGTERM)
            try:
                inside.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                inside.kill()
            raise


def left_over(folder: Path) -> list[str]:
    """Return what of a trial is still there outside: processes that name its folder, and mounts below it."""
    found = [f"mount {line.split()[1]}" for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in words and int(process.name) != os.getpid():
            found.append(f"process {process.name}")
    return found
