"""A part's folder: there, its own, and with room."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from klinket.doctor.finding import Finding, fail, ok, warn

MEBIBYTE = 1 << 20
#: Free bytes below which a part may stop storing, and below which somebody should look; the same for files, of all there can be.
FAIL_BYTES = 64 * MEBIBYTE
WARN_BYTES = 1024 * MEBIBYTE
WARN_FILES_PART = 0.02


def folder(state: Path) -> Iterator[Finding]:
    """Yield `state` and `disk` for a state folder."""
    try:
        found = state.stat()
    except OSError as error:
        next = "name the folder of the part with --state, and ask as a user who may look at it"
        yield fail("state", f"{state}: {error.strerror}", next)
        return
    if not stat.S_ISDIR(found.st_mode):
        yield fail("state", f"{state} is no folder", "name the folder of the part with --state")
        return
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        yield fail("state", f"{state} has mode {mode:04o}: others may look at keys", f"chmod 0700 {state}")
    elif not os.access(state, os.W_OK):
        yield fail("state", f"{state} cannot be written to", "remount it, or ask as the user the part runs as")
    else:
        yield ok("state", f"{state} is private and can be written to")
    yield room(state)


def room(state: Path) -> Finding:
    """Return `disk`: how much room is left where a folder is."""
    found = os.statvfs(state)
    free = found.f_bavail * found.f_frsize
    text = f"{free // MEBIBYTE} MiB free at {state}"
    if free < FAIL_BYTES:
        return fail("disk", text, f"make room: below {FAIL_BYTES // MEBIBYTE} MiB a part may stop storing")
    if free < WARN_BYTES:
        return warn("disk", text, f"make room: below {WARN_BYTES // MEBIBYTE} MiB there is little time left")
    if found.f_files and found.f_favail < WARN_FILES_PART * found.f_files:
        return warn("disk", f"{text}, and room for {found.f_favail} files only", "remove files there")
    return ok("disk", text)
