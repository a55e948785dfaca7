"""The connector's settings: from options, a tokens file, or the environment (also under the names of facts §5)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from klinket.connector.limits import DRAIN_SECONDS, MAX_DIRECT_ADDRESSES, MAX_DRAIN_SECONDS
from klinket.domain.errors import InvalidInput
from klinket.net.channel import controller_context
from klinket.net.sockets import HostPort

#: The one version of the traffic log there is.
TRAFFIC_LOG_VERSION = "v2"
_WRITE = "write it with klinket admin connector tokens NAME --out FILE"


@dataclass(frozen=True, kw_only=True)
class ConnectorConfig:
    """`controller`: https URL; `state`: folder of the identity key, kept cuts and flow events; `labels`: shown to admins.

    `logs_traffic`: print an event of each flow on stdout. `listen`: where clients may connect directly; `advertised`: under
    which addresses they find that, by default this machine's own. `drain_seconds`: for live flows at a stop.
    `hole_punching`: meet clients through NATs.
    """

    controller: str
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    state: Path
    controller_ca: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    logs_traffic: bool = False
    listen: HostPort | None = None
    advertised: tuple[HostPort, ...] = ()
    drain_seconds: float = DRAIN_SECONDS
    hole_punching: bool = True


def load(
    tokens_file: Path | None,
    url: str | None,
    ca: Path | None,
    state: Path,
    *,
    listen: HostPort | None = None,
    advertised: Sequence[HostPort] = (),
    drain_seconds: float = DRAIN_SECONDS,
    hole_punching: bool = True,
) -> ConnectorConfig:
    """Return the settings; the file comes first, then the environment. Raises InvalidInput naming what is missing.

    Tokens are taken out of the environment, so that nothing started from here inherits them.
    """
    document: dict[str, object] = {}
    if tokens_file is not None:
        document = _read(tokens_file)
    access = _text(document, "access_token") or _taken("KLINKET_ACCESS_TOKEN", "TWINGATE_ACCESS_TOKEN")
    refresh = _text(document, "refresh_token") or _taken("KLINKET_REFRESH_TOKEN", "TWINGATE_REFRESH_TOKEN")
    where = url or _text(document, "url") or os.environ.get("KLINKET_URL") or os.environ.get("TWINGATE_NETWORK", "")
    if tokens_file is not None and not (access and refresh):
        what = "it is a service key file" if "private_key" in document else f"it has no {'refresh' if access else 'access'}_token"
        raise InvalidInput("tokens-file", f"{tokens_file} is not a tokens file: {what}", hint=_WRITE)
    if not access or not refresh:
        raise InvalidInput(
            "tokens",
            "no connector tokens",
            hint="give --tokens-file, or set KLINKET_ACCESS_TOKEN and KLINKET_REFRESH_TOKEN",
        )
    authority = _authority(ca) if ca is not None else _text(document, "controller_ca") or None
    controller_context(authority)  # refuses what is no certificate here and now, not at the first connection
    return ConnectorConfig(
        controller=_https(where),
        access_token=access,
        refresh_token=refresh,
        state=state,
        controller_ca=authority,
        labels={
            name.removeprefix("TWINGATE_LABEL_").title(): value
            for name, value in os.environ.items()
            if name.startswith("TWINGATE_LABEL_")
        },
        logs_traffic=_logs_traffic(),
        listen=listen,
        advertised=_advertised(listen, advertised),
        drain_seconds=_drain_seconds(drain_seconds),
        hole_punching=hole_punching,
    )


def _advertised(listen: HostPort | None, given: Sequence[HostPort]) -> tuple[HostPort, ...]:
    if given and listen is None:
        raise InvalidInput("advertise", "--advertise names an address without --listen", hint="give --listen as well")
    if len(given) > MAX_DIRECT_ADDRESSES:
        raise InvalidInput("advertise", f"{len(given)} addresses, the limit is {MAX_DIRECT_ADDRESSES}")
    return tuple(given)


def _drain_seconds(given: float) -> float:
    if not 0 <= given <= MAX_DRAIN_SECONDS:
        raise InvalidInput("drain-seconds", f"--drain-seconds is not between 0 and {MAX_DRAIN_SECONDS}")
    return given


def _logs_traffic() -> bool:
    """Return whether KLINKET_LOG_ANALYTICS, or TWINGATE_LOG_ANALYTICS, asks for the traffic log; raises InvalidInput."""
    for name in ("KLINKET_LOG_ANALYTICS", "TWINGATE_LOG_ANALYTICS"):
        if version := os.environ.get(name, "").strip():
            if version != TRAFFIC_LOG_VERSION:
                raise InvalidInput(name, f"there is no traffic log {version[:40]!r}", hint=f"set {name}={TRAFFIC_LOG_VERSION}")
            return True
    return False


def _read(path: Path) -> dict[str, object]:
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise InvalidInput("tokens-file", f"cannot read {path}: {error.strerror}", hint=_WRITE) from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput("tokens-file", f"{path} is not JSON", hint=_WRITE) from error
    if not isinstance(document, dict):
        raise InvalidInput("tokens-file", f"{path} is not a JSON object", hint=_WRITE)
    return document


def _authority(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise InvalidInput("ca", f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput("ca", f"{path} is not certificates in PEM") from error


def _text(document: Mapping[str, object], name: str) -> str:
    value = document.get(name)
    return value.strip() if isinstance(value, str) else ""


def _taken(*names: str) -> str:
    values = [os.environ.pop(name, "") for name in names]
    return next((value.strip() for value in values if value), "")


def _https(text: str) -> str:
    url = text.strip()
    if url and "://" not in url:
        url = f"https://{url}"
    try:
        parts = urlsplit(url)
        if "." not in (parts.hostname or "") and "://" not in text and text == os.environ.get("TWINGATE_NETWORK"):
            hint = "give the controller's whole host name, for example acme.klinket.example.com, or set KLINKET_URL"
            raise InvalidInput("TWINGATE_NETWORK", f"{text!r} is a name without a dot", hint=hint)
        if parts.scheme == "https" and parts.hostname and parts.port != 0 and "@" not in parts.netloc:
            return f"https://{parts.netloc}"
    except ValueError:
        pass  # brackets or a port that are none
    raise InvalidInput("url", f"not the controller's https URL: {text!r}", hint="set KLINKET_URL to https://HOST:PORT")
