"""What `klinket config` does beside reading settings: keep them, and tell systemd about autostart."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

from klinket.client.daemon import pid_file, protocol, settings
from klinket.client.daemon.lifecycle import UNIT, by_systemd
from klinket.client.daemon.paths import Paths
from klinket.client.daemon.settings import Settings
from klinket.domain.errors import InvalidInput

#: Where no key is set up.
NO_NETWORK = "none"


def network_of(paths: Paths) -> str:
    """Return the network of the key that is set up, or "none"; raises NeedsRoot where only root may read the key."""
    from klinket.client.key_source import KeySource

    if not paths.key_file.exists():
        return NO_NETWORK
    if not os.access(paths.key_file, os.R_OK):
        raise protocol.NeedsRoot(f"{paths.key_file} is for root")
    return KeySource(str(paths.key_file)).load().network


def store(paths: Paths, new: Settings) -> str:
    """Keep the settings and return what is to be done about them; raises NeedsRoot."""
    before = settings.load(paths.settings_file)
    try:
        settings.save(paths.settings_file, new)
    except PermissionError as error:
        raise protocol.NeedsRoot(f"{paths.settings_file} cannot be written: {error.strerror}") from None
    told = ["set"]
    if new.autostart != before.autostart:
        if by_systemd(paths):
            subprocess.run(["systemctl", "enable" if new.autostart else "disable", UNIT], check=False, capture_output=True)
        else:
            told.append("autostart needs systemd and its unit klinket.service: without them nothing starts the daemon")
    if new.save_auth_data and not before.save_auth_data:
        told.append("save-auth-data changes nothing: a service account has no sign-in to save")
    try:
        new.check(has_proxy_token=False)
    except InvalidInput as error:
        told.append(f"the daemon does not start so without a proxy token: {error.message}; {error.hint}")
    same = replace(before, autostart=new.autostart, save_auth_data=new.save_auth_data)  # no daemon reads these two
    if pid_file.holder(paths.pid_file) is not None and same != new:
        told.append("the running daemon goes on as it is until: klinket stop, klinket start")
    return "; ".join(told)
