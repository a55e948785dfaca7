"""PKCS#10 requests for keys made in this process."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from klinket.wire.signing import PrivateKey


def certificate_request(key: PrivateKey) -> str:
    """Return a request (PEM) that proves possession of `key`; it names nobody, that is the controller's part."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()
