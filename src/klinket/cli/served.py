"""What a controller's state folder was started with before: a slip of the keyboard must not make it another network."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from klinket.domain.errors import InvalidInput

logger = logging.getLogger(__name__)
FILE_NAME = "served.json"


def check(state: Path, network: str) -> None:
    """Raise InvalidInput where the state folder has been another network's."""
    before = _read(state / FILE_NAME)
    if before.get("network", network) != network:
        raise InvalidInput(
            "--network",
            f"{state} is the state of the network {before['network']!r}, not of {network!r}",
            hint="give the name it was started with, or another --state",
        )


def remember(state: Path, network: str, public_url: str) -> None:
    """Keep the network's name and URL in the state folder; raises as `check`.

    Another URL is taken, with a warning: key files and tokens files name the earlier one.
    """
    check(state, network)
    file = state / FILE_NAME
    before = _read(file)
    if before.get("public_url", public_url) != public_url:
        logger.warning(
            "--public-url was %s: key files, connectors and relays that were given that address do not find %s by themselves",
            before["public_url"],
            public_url,
        )
    if before != (now := {"network": network, "public_url": public_url}):
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.write_text(json.dumps(now))


def public_url(state: Path) -> str | None:
    """Return the URL a controller with this state folder was started with last, or None."""
    return _read(state / FILE_NAME).get("public_url")


def _read(file: Path) -> dict[str, str]:
    try:
        document = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except ValueError:  # cut short by a crash: as if there were none
        return {}
    if not isinstance(document, dict):
        return {}
    return {name: value for name, value in document.items() if isinstance(value, str)}
