"""Where the daemon keeps things. The variables move them, for tests and for a daemon without root."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from klinket.client.key_source import is_in_environment


@dataclass(frozen=True, slots=True)
class Paths:
    """`etc`: key and settings; `run`: control socket and pid file, gone with a reboot; `log`: of a daemon without systemd."""

    etc: Path
    run: Path
    state: Path
    log: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Paths:
        """Return the folders KLINKET_ETC, KLINKET_RUN and KLINKET_STATE and the file KLINKET_LOG, or where those are else."""
        given = os.environ if environment is None else environment
        return cls(
            Path(given.get("KLINKET_ETC") or "/etc/klinket"),
            Path(given.get("KLINKET_RUN") or "/run/klinket"),
            Path(given.get("KLINKET_STATE") or "/var/lib/klinket"),
            Path(given.get("KLINKET_LOG") or "/var/log/klinket.log"),
        )

    def make_run_folder(self) -> None:
        """Make `run` where it is missing, so that every user may ask the daemon, whatever the umask; raises OSError."""
        if not self.run.is_dir():
            self.run.mkdir(parents=True, exist_ok=True)
            self.run.chmod(0o755)

    @property
    def moved(self) -> bool:
        """Return whether this is not the machine's own daemon: systemd has no unit for it."""
        return self.run != Path("/run/klinket")

    @property
    def key_file(self) -> Path:
        return self.etc / "service_key.json"

    @property
    def key_instead(self) -> Path | None:
        """Return the daemon's key file for a command that was given no key, in no way; None where there is none."""
        return self.key_file if not is_in_environment() and os.path.exists(self.key_file) else None  # noqa: PTH110 - never raises

    @property
    def settings_file(self) -> Path:
        return self.etc / "settings.json"

    @property
    def networking_file(self) -> Path:
        """Return the file with `http-proxy` and `tun` alone, as containers mount it; read after the settings."""
        return self.etc / "network-config.json"

    @property
    def pid_file(self) -> Path:
        return self.run / "klinket.pid"

    @property
    def former_file(self) -> Path:
        """Return the file with what is granted, for the start after a crash."""
        return self.run / "granted.json"

    @property
    def socket(self) -> Path:
        return self.run / "control.sock"
