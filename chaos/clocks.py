"""Clocks of parts, faked by a small preloaded library (clock.c): each part reads its own offset while it runs.

The same library (disk.c) takes the controller's disk away from a controller that has files open there, as if it were read-only.

Not by libfaketime: under it threads of Python got in each other's way. A controller took eight times the processor time to start,
and seconds for a write that takes hundredths.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOURCES = [str(Path(__file__).with_name(name)) for name in ("clock.c", "disk.c")]


def compiler() -> str | None:
    """Return the C compiler of this machine, if it has one."""
    return shutil.which("cc")


class Clocks:
    """`offsets`: seconds by which each part's clock is ahead. Monotonic clocks are left alone, as a real step leaves them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._library: Path | None = None
        self.offsets: dict[str, int] = {}
        if cc := compiler():
            library = folder / "clock.so"
            words = [cc, "-shared", "-fPIC", "-O2", "-o", str(library), *SOURCES, "-ldl"]
            if subprocess.run(words, capture_output=True).returncode == 0:
                self._library = library

    @property
    def possible(self) -> bool:
        return self._library is not None

    def enter(self, part: str) -> list[str]:
        """Return the command prefix that gives a part and its children a clock of its own."""
        if self._library is None:
            return []
        self.step(part, self.offsets.get(part, 0))
        words = ["env", f"LD_PRELOAD={self._library}", f"KLINKET_CHAOS_CLOCK={self._file(part)}"]
        if part == "controller":
            self.lose_disk(lost=False)
            words += [f"KLINKET_CHAOS_DISK={self._disk}", f"KLINKET_CHAOS_STATE={self._folder / part}"]
        return words

    def lose_disk(self, *, lost: bool) -> None:
        """Have the controller, and its relay, write nothing to their disk any more, or write again; it follows at once."""
        self._disk.touch()
        with self._disk.open("r+b", buffering=0) as changed:
            changed.write(bytes((lost,)))

    def step(self, part: str, offset: int) -> None:
        """Set a part's clock to so many seconds ahead of the machine's; it follows at once."""
        file = self._file(part)
        file.touch()
        with file.open("r+b", buffering=0) as changed:  # the same bytes that the part has mapped
            changed.write(offset.to_bytes(8, "little", signed=True))
        self.offsets[part] = offset

    @property
    def _disk(self) -> Path:
        return self._folder / "controller.lost"

    def _file(self, part: str) -> Path:
        return self._folder / f"{part}.clock"
