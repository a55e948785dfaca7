"""The network's authorities: one certifies clients, one connectors, one the controller's own web server (security.md 11)."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass, field
from enum import Enum

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from klinket.domain.errors import AuthenticationFailed
from klinket.wire import signing

#: Days an authority's certificate is made for.
AUTHORITY_DAYS = 3650
#: Days of the controller's web certificate; it is made anew at each start.
WEB_DAYS = 397
#: Seconds a certificate begins before it was made: clocks may differ that much.
BACKDATE_SECONDS = 300
#: Characters of a certificate request.
MAX_REQUEST_CHARS = 8_192


class CertificateRequestInvalid(AuthenticationFailed):
    """A PKCS#10 request that is not understood, not P-256, or not signed with its own key."""

    code = "certificate-request-invalid"


class AuthorityPurpose(Enum):
    """Whom an authority certifies; roles never share one."""

    CLIENT = "client"
    CONNECTOR = "connector"
    WEB = "web"


_USAGES = {
    AuthorityPurpose.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH,
    AuthorityPurpose.CONNECTOR: ExtendedKeyUsageOID.SERVER_AUTH,
    AuthorityPurpose.WEB: ExtendedKeyUsageOID.SERVER_AUTH,
}


#: Begins the organization in an authority's name, which ends with its network.
_OF = "klinket "


@dataclass(frozen=True, slots=True)
class Authority:
    """A self-signed authority with pathLen 0."""

    purpose: AuthorityPurpose
    certificate: x509.Certificate
    key: signing.PrivateKey = field(repr=False)

    @property
    def certificate_pem(self) -> str:
        """Return its certificate."""
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def network(self) -> str:
        """Return the name of the network it was made for."""
        (organization,) = self.certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        return str(organization.value).removeprefix(_OF)

    @classmethod
    def make(cls, purpose: AuthorityPurpose, network: str, now: float) -> Authority:
        """Return a new authority for a network."""
        key = signing.generate_private_key()
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"{_OF}{network}"),
                x509.NameAttribute(NameOID.COMMON_NAME, f"{purpose.value} authority"),
            ]
        )
        builder = _builder(name, name, key.public_key(), now, AUTHORITY_DAYS * 86_400)
        certificate = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(sign=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(purpose, certificate, key)

    def certify(self, public_key: signing.PublicKey, uri: str, *, now: float, lifetime: float) -> str:
        """Return a leaf (PEM) whose single name is the URI; `lifetime` in seconds."""
        return self._leaf(public_key, [x509.UniformResourceIdentifier(uri)], now, lifetime)

    def certify_web(self, public_key: signing.PublicKey, hosts: list[str], now: float) -> str:
        """Return a web server's leaf (PEM) for names and IP addresses."""
        return self._leaf(public_key, [_host_name(host) for host in hosts], now, WEB_DAYS * 86_400)

    def _leaf(self, key: signing.PublicKey, names: list[x509.GeneralName], now: float, lifetime: float) -> str:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"klinket {self.purpose.value}")])
        issuer_key = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        certificate = (
            _builder(subject, self.certificate.subject, key, now, lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(sign=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([_USAGES[self.purpose]]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return certificate.public_bytes(Encoding.PEM).decode()


def _builder(
    subject: x509.Name, issuer: x509.Name, key: signing.PublicKey, now: float, lifetime: float
) -> x509.CertificateBuilder:
    begin = datetime.datetime.fromtimestamp(now - BACKDATE_SECONDS, datetime.UTC)
    end = datetime.datetime.fromtimestamp(now + lifetime, datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _key_usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not sign,
        crl_sign=not sign,
        encipher_only=False,
        decipher_only=False,
    )


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def parse_request(pem: str) -> signing.PublicKey:
    """Return the key a certificate request proves possession of; raises CertificateRequestInvalid.

    Names and extensions of the request do not count: what a certificate says is the controller's decision alone.
    """
    if len(pem) > MAX_REQUEST_CHARS:
        raise CertificateRequestInvalid("the certificate request is too large")
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key = request.public_key()
        valid = request.is_signature_valid
    except (ValueError, TypeError) as error:
        raise CertificateRequestInvalid("the certificate request is not understood") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CertificateRequestInvalid("the certificate request is not for an ECDSA P-256 key")
    if not valid:
        raise CertificateRequestInvalid("the certificate request is not signed with its own key")
    return key
