"""The relay's own certificate: self-signed, kept in its state folder, pinned by its digest, replaced without a stop."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from klinket.net.files import replace_private
from klinket.net.tls import certificate_digest
from klinket.wire.relay import ADMISSION_PROTOCOLS, certificate_name

#: Days a certificate is made for; it is pinned, so its end matters only to strict TLS stacks.
CERTIFICATE_DAYS = 3650
_FILE = "relay-certificate.pem"
#: Former certificates that are still shown to peers that were told of them only; the oldest go first.
MAX_FORMER = 2


class Certificates:
    """The certificate of a state folder, and former ones of this process. `context`: to accept with; `digest`: to report."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._former: dict[str, ssl.SSLContext] = {}
        self.context, self.digest = self._load()

    def _load(self) -> tuple[ssl.SSLContext, str]:
        context, digest = load_or_make(self._state)
        context.sni_callback = self._choose
        return context, digest

    def reload(self) -> bool:
        """Take over the certificate that is in the folder now, a new one where there is none; returns whether it is another.

        Raises OSError, ssl.SSLError or ValueError when it cannot be used: the present one stays.
        """
        context, digest = self._load()
        if digest == self.digest:
            return False
        self._former[self.digest] = self.context
        self._former.pop(digest, None)
        while len(self._former) > MAX_FORMER:
            del self._former[next(iter(self._former))]
        self.context, self.digest = context, digest
        return True

    def _choose(self, tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """Show a former certificate to whoever asks for it by its name (wire.relay.certificate_name)."""
        for digest, context in self._former.items():
            if name == certificate_name(digest):
                tls.context = context
                return


def load_or_make(state: Path) -> tuple[ssl.SSLContext, str]:
    """Return a server context with the relay's certificate, and the certificate's SHA-256 in hexadecimal."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = state / _FILE
    if not path.exists():
        replace_private(path, _make())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.set_alpn_protocols(list(ADMISSION_PROTOCOLS))
    context.load_cert_chain(path)
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return context, certificate_digest(certificate.public_bytes(Encoding.DER))


def _make() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "klinket relay")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=CERTIFICATE_DAYS))
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM) + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
