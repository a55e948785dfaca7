"""`klinket report`: a ZIP that helps to find out what is wrong, and holds no secret."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from klinket.client.daemon import ask, settings
from klinket.client.daemon.lifecycle import UNIT, by_systemd
from klinket.client.daemon.paths import Paths
from klinket.client.key_source import KeySource
from klinket.domain import token_text
from klinket.domain.errors import KlinketError
from klinket.wire.version import PRODUCT_VERSION

#: Bytes of a part, its end where it is longer, and seconds a command may take.
MAX_PART_BYTES = 1_000_000
COMMAND_SECONDS = 5.0
#: What a program prints of this machine. Rules are those of the network namespace the command runs in.
COMMANDS: dict[str, list[str]] = {
    "ip-address.txt": ["ip", "address"],
    "ip-rule.txt": ["ip", "rule"],
    "ip-route.txt": ["ip", "route", "show", "table", "all"],
    "nft.txt": ["nft", "list", "ruleset"],
}
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_PEM_EDGE = re.compile(r"-----(BEGIN|END) [A-Z ]*PRIVATE KEY-----")
_TOKEN = re.compile(rf"(?:{'|'.join(map(re.escape, token_text.PREFIXES))})\w+")
_JWT = re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*")
REMOVED = "[removed]"
#: Where the programs are looked for.
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


def whole_lines(text: str) -> str:
    """Return the end of a text that was cut somewhere, without its first line, and without what is left of a private key."""
    _, _, rest = text.partition("\n")
    first = _PEM_EDGE.search(rest)
    return rest[first.end() :] if first is not None and first[1] == "END" else rest


def without_secrets(text: str) -> str:
    """Return a text without private keys, klinket's tokens, and signed tokens of any kind."""
    return _JWT.sub(REMOVED, _TOKEN.sub(REMOVED, _PEM.sub(REMOVED, text)))


def write(paths: Paths, target: Path | None) -> Path:
    """Write the report and return its path; raises OSError where a file is there already. Each part may be missing on its own."""
    path = target or Path(f"klinket-report-{datetime.now(UTC):%Y%m%d-%H%M%S}.zip")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, make in _parts(paths):
            try:
                text = make()
            except (KlinketError, OSError, subprocess.SubprocessError) as error:
                text = f"not to be had: {error}\n"
            archive.writestr(name, without_secrets(text)[-MAX_PART_BYTES:])
    return path


def _parts(paths: Paths) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "machine.json", _machine
    yield "status.json", lambda: _json(ask.status(paths))
    yield "resources.json", lambda: _json(ask.ask(paths, "resources").resources)
    yield "settings.json", lambda: json.dumps(asdict(settings.load(paths.settings_file)), indent=2)
    yield "key.json", lambda: _key(paths)
    yield "log.txt", lambda: _log(paths)
    yield "resolv.conf", lambda: Path("/etc/resolv.conf").read_text(errors="replace")
    for name, command in COMMANDS.items():
        yield name, lambda command=command: _printed(command)  # type: ignore[misc]


def _json(value: object) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _machine() -> str:
    told = {
        "klinket": PRODUCT_VERSION,
        "python": sys.version,
        "system": platform.platform(),
        "user": os.geteuid(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        # Values of variables may be secrets: only which of them are set.
        "variables": sorted(name for name in os.environ if name.startswith(("KLINKET_", "TWINGATE_"))),
    }
    return json.dumps(told, indent=2)


def _key(paths: Paths) -> str:
    """Return what the key file says, but for its private key."""
    key = KeySource(str(paths.key_file)).load()
    public = ("network", "service_account_id", "key_id", "expires_at", "login_path")
    told = {name: getattr(key, name) for name in public} | {"controller_ca": key.controller_ca is not None}
    return json.dumps(told, indent=2)


def _log(paths: Paths) -> str:
    if by_systemd(paths):
        return _printed(["journalctl", "-u", UNIT, "-n", "5000", "--no-pager"])
    with paths.log.open("rb") as log:
        begin = max(0, log.seek(0, os.SEEK_END) - MAX_PART_BYTES)
        log.seek(begin)
        text = log.read(MAX_PART_BYTES).decode(errors="replace")
    return whole_lines(text) if begin else text


def _printed(command: list[str]) -> str:
    found = shutil.which(command[0], path=SYSTEM_PATH)  # root executes nothing of the caller's PATH
    if found is None:
        raise FileNotFoundError(f"{command[0]} is missing")
    done = subprocess.run(
        [found, *command[1:]],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=COMMAND_SECONDS,
        env={"PATH": SYSTEM_PATH, "LC_ALL": "C"},
    )
    return done.stdout + done.stderr
