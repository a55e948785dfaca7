"""Clocks of parts, faked by libfaketime: each part reads its own from a file that is changed while it runs."""

from __future__ import annotations

from pathlib import Path

LIBRARIES = tuple(f"usr/{folder}/faketime/libfaketimeMT.so.1" for folder in ("lib/*", "lib", "lib64"))


def library() -> Path | None:
    """Return libfaketime's library for programs with threads, where it is installed."""
    return next((path for pattern in LIBRARIES for path in sorted(Path("/").glob(pattern))), None)


class Clocks:
    """`offsets`: seconds by which each part's clock is ahead. Monotonic clocks are left alone, as a real step leaves them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._library = library()
        self.offsets: dict[str, int] = {}

    @property
    def possible(self) -> bool:
        return self._library is not None

    def enter(self, part: str) -> list[str]:
        """Return the command prefix that gives a part and its children a clock of its own."""
        if self._library is None:
            return []
        self.step(part, 0)
        return [
            "env", f"LD_PRELOAD={self._library}", f"FAKETIME_TIMESTAMP_FILE={self._file(part)}",
            "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1", "FAKETIME_CACHE_DURATION=1", "FAKETIME_NO_CACHE=0",
        ]  # fmt: skip

    def step(self, part: str, offset: int) -> None:
        """Set a part's clock to so many seconds ahead of the machine's; it follows within a second."""
        changed = self._file(part).with_suffix(".new")
        changed.write_text(f"{offset:+d}\n")
        changed.replace(self._file(part))
        self.offsets[part] = offset

    def _file(self, part: str) -> Path:
        return self._folder / f"{part}.clock"
