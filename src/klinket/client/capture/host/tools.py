"""`nft` and `ip`: each gets one text on its standard input."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Sequence

from klinket.domain.errors import CaptureImpossible

#: Seconds for one of them.
TOOL_SECONDS = 20.0
#: Bytes of what they say that are passed on.
MAX_TOLD_BYTES = 500
#: Where programs are looked for.
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_PACKAGES = {"nft": "nftables", "ip": "iproute2"}

NFT = ("nft", "-f", "-")
VERSIONS = (4, 6)


def ip(version: int, *, force: bool = False) -> tuple[str, ...]:
    """Return the command for a batch of IPv4 (4) or IPv6 (6). `force`: what fails is passed over."""
    return ("ip", f"-{version}", *(("-force",) if force else ()), "-batch", "-")


#: Files that the tools inherit: the claim, which so lasts until the last of them has ended, also when this process is killed.
#: Whoever cleans up afterwards does not do so before a tool that is still at work.
inherited: list[int] = []


def find(command: Sequence[str]) -> list[str]:
    """Return the command with the full path of its program; raises CaptureImpossible."""
    found = shutil.which(command[0], path=SYSTEM_PATH)
    if found is None and os.geteuid() != 0:  # root executes nothing that the caller's PATH alone names
        found = shutil.which(command[0])
    if found is None:
        raise CaptureImpossible(
            f"{command[0]} is missing", hint=f"install it: apt-get install {_PACKAGES.get(command[0], command[0])}"
        )
    return [found, *command[1:]]


def run(command: Sequence[str], text: str = "") -> str:
    """Run it to its end and return what it wrote; raises CaptureImpossible with its error. Blocks."""
    try:
        done = subprocess.run(
            find(command), input=text, text=True, capture_output=True, timeout=TOOL_SECONDS, pass_fds=tuple(inherited)
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CaptureImpossible(f"{command[0]}: {error}") from error
    if done.returncode and "-force" not in command:
        told = done.stderr.strip()[:MAX_TOLD_BYTES]
        raise CaptureImpossible(f"{command[0]}: {told}", hint="run as root, or with CAP_NET_ADMIN (--cap-add NET_ADMIN)")
    return done.stdout


async def run_async(command: Sequence[str], text: str = "") -> str:
    """Do the same without blocking the loop."""
    return await asyncio.to_thread(run, command, text)
