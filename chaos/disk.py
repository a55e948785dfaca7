"""Small disks in memory, one for each part that keeps something: full or read-only when told."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from chaos.network import sh

#: Of each disk. What a controller keeps of a trial's flows and changes grows by some 3 MB a minute.
SIZE = "256m"
#: Seconds to wait until nobody has a file open for writing: only then can a disk become read-only.
SETTLE_SECONDS = 5.0
_BALLAST = "ballast"


def make(folder: Path) -> None:
    """Mount a small disk on a folder, which is made."""
    folder.mkdir(mode=0o700, parents=True)
    sh("mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "chaos-disk", str(folder))


def fill(folder: Path) -> None:
    """Take every byte that is left."""
    with (folder / _BALLAST).open("ab", buffering=0) as ballast:
        for block in (1 << 20, 4096):
            try:
                while ballast.write(bytes(block)) == block:
                    pass
            except OSError:
                continue


def empty(folder: Path) -> None:
    """Give the bytes back that `fill` took."""
    (folder / _BALLAST).unlink(missing_ok=True)


def read_only(folder: Path) -> bool:
    """Make the disk read-only; returns False where somebody kept a file open for writing."""
    end = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < end:
        if subprocess.run(["mount", "-o", "remount,ro", str(folder)], capture_output=True).returncode == 0:
            return True
        time.sleep(0.02)
    return False


def writable(folder: Path) -> None:
    """Undo `read_only`."""
    sh("mount", "-o", "remount,rw", str(folder))
