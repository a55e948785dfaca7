"""Versions of klinket and of what it stands on, and whether all of it is installed for a role."""

from __future__ import annotations

import platform
import re
import ssl
import sys
from collections.abc import Iterator
from importlib import metadata

from klinket.doctor.finding import Finding, fail, ok
from klinket.wire.version import PRODUCT_VERSION

#: What klinket is tested with at the least.
MIN_PYTHON = (3, 11)
MIN_OPENSSL = (3, 0)


def versions(role: str) -> Iterator[Finding]:
    """Yield `versions` and `packages`."""
    python = ".".join(map(str, sys.version_info[:3]))
    told = f"klinket {PRODUCT_VERSION}, Python {python}, {ssl.OPENSSL_VERSION}, {platform.system()} {platform.release()}"
    if sys.version_info < MIN_PYTHON or ssl.OPENSSL_VERSION_INFO[:2] < MIN_OPENSSL:
        yield fail("versions", told, "klinket needs Python 3.11 and OpenSSL 3.0, or newer")
    else:
        yield ok("versions", told)
    try:
        wanted = metadata.requires("klinket") or []
    except metadata.PackageNotFoundError:
        yield fail("packages", "klinket is not installed as a package", f"pip install 'klinket[{role}]'")
        return
    missing = [name for name in _needed(wanted, role) if not _is_installed(name)]
    if missing:
        yield fail("packages", f"missing: {', '.join(missing)}", f"pip install 'klinket[{role}]'")
    else:
        yield ok("packages", f"all there for the role {role}")


def _needed(requirements: list[str], role: str) -> list[str]:
    """Return the names of the packages that this role needs on this system."""
    names = []
    for requirement in requirements:
        spec, _, marker = requirement.partition(";")
        extra = re.search(r"extra == ['\"]([\w-]+)", marker)
        if (extra is not None and extra[1] != role) or ("== 'win32'" in marker.replace('"', "'") and sys.platform != "win32"):
            continue
        if "!= 'win32'" in marker.replace('"', "'") and sys.platform == "win32":
            continue
        if name := re.match(r"[\w.-]+", spec.strip()):
            names.append(name[0])
    return names


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
