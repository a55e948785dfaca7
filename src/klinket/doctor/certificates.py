"""How long certificates last: files of a part, and what a controller shows."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509

from klinket.doctor.finding import Finding, fail, ok, warn

#: Days before its end at which a certificate is worth a look.
WARN_DAYS = 14


def lasts(name: str, what: str, certificate: x509.Certificate, now: datetime.datetime, renew: str) -> Finding:
    """Return whether a certificate counts now, and for how long; `renew`: what to do when it does not."""
    end = certificate.not_valid_after_utc
    if now < certificate.not_valid_before_utc:
        return fail(name, f"{what} does not count before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC", "set the clock")
    left = (end - now).total_seconds() / 86_400
    if left <= 0:
        return fail(name, f"{what} ended on {end:%Y-%m-%d}", renew)
    text = f"{what} counts until {end:%Y-%m-%d}, {left:.0f} days"
    return warn(name, text, renew) if left < WARN_DAYS else ok(name, text)


def file(path: Path, now: datetime.datetime, renew: str) -> Finding:
    """Return `certificate-file` for the first certificate in a PEM file."""
    try:
        (first, *_) = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        return fail(
            "certificate-file", f"{path}: {error.strerror}", "the part makes it at its first start; else look at its path"
        )
    except ValueError:
        return fail("certificate-file", f"{path} is no certificate in PEM", renew)
    return lasts("certificate-file", str(path), first, now, renew)
