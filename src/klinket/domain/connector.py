"""Versions of connectors, and what they must be to serve service accounts (facts §5)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from klinket.domain.errors import ConnectorTooOld, InvalidInput

_VERSION = re.compile(r"v?([0-9]{1,6})\.([0-9]{1,6})\.([0-9]{1,6})(?:[-+.].{0,60})?", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class ConnectorVersion:
    """Three numbers; what follows them ("-rc1", "+build") does not count."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> ConnectorVersion:
        """Return the version of "1.0.30"; raises InvalidInput("version")."""
        match = _VERSION.fullmatch(text.strip())
        if match is None:
            raise InvalidInput("version", f"not a connector version: {text[:40]!r}", hint="for example 1.80.0")
        return cls(int(match[1]), int(match[2]), int(match[3]))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


MIN_VERSION_FOR_SERVICES = ConnectorVersion(1, 0, 30)


def check_services_allowed(connectors: Iterable[tuple[str, str | None]]) -> None:
    """Raise ConnectorTooOld when a connector, given as (name, reported version), is too old to serve services.

    A connector that has not reported a version yet is no obstacle; one that reported nonsense is.
    """
    old = []
    for name, reported in connectors:
        if reported is None:
            continue
        try:
            if ConnectorVersion.parse(reported) >= MIN_VERSION_FOR_SERVICES:
                continue
        except InvalidInput:
            pass
        old.append(f"{name} ({reported[:40]})")
    if old:
        raise ConnectorTooOld(
            f"Services need connectors of version {MIN_VERSION_FOR_SERVICES} or later; too old: {', '.join(old)}",
            hint="upgrade these connectors, or delete them if they are not used any more, then try again",
        )
