"""Fuzz targets of what is text: tokens, keys, identities, addresses, files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from klinket.client.core import split_port
from klinket.domain import api_token, audit_verification, names, password, recovery_code, source_range, token_text
from klinket.domain.address import ResourceAddress, canonical_host, parse_alias, parse_ip
from klinket.domain.connector import ConnectorVersion
from klinket.domain.identifiers import ConnectorId, Kid, RemoteNetworkId, ServiceAccountUuid
from klinket.domain.ports import PortRange
from klinket.domain.punch import Endpoint
from klinket.domain.sink import SinkKind, checked_settings
from klinket.net.sockets import HostPort
from klinket.wire import (
    access_token,
    assertion,
    audit_export,
    audit_signature,
    cut_document,
    cut_token,
    grant_token,
    head_token,
    leak,
    receipt_token,
    signing,
    ticket,
)
from klinket.wire.identity import ClientIdentity, ConnectorIdentity, parse_network_name
from klinket.wire.key_file import parse_key_file
from tests.fuzz.target import Target, as_text, attempt

NOW = 1_800_000_000.0
ACCOUNT = "11111111-2222-4333-8444-555555555555"
SESSION = "a" * 22
#: The same at every run, so that kept inputs mean the same.
_KEY = signing.SigningKey("k", ec.derive_private_key(0x5EED, ec.SECP256R1()))
_KEYS = signing.KeySet({"k": _KEY.public_key, "audit-k": _KEY.public_key})
_JKT = signing.thumbprint(_KEY.public_key)
_CONNECTOR = ConnectorIdentity("acme", ConnectorId(1))
_TYPES = (
    access_token.TYP,
    access_token.PROOF_TYP,
    assertion.LOGIN_TYP,
    audit_signature.BLOCK_TYP,
    audit_signature.RANGE_TYP,
    audit_signature.ANCHOR_TYP,
    cut_token.TYP,
    grant_token.TYP,
    head_token.TYP,
    receipt_token.TYP,
    ticket.TYP,
)


def cut_documents(data: bytes) -> None:
    """What somebody hands in as a cut's signed document: nothing without a signature of the controller proves anything."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = {"signature": as_text(data)}
    if isinstance(document, dict):
        for found in (document, {**{key: [] for key in cut_document.SIGNED}, **document}):
            assert attempt(cut_document.verify_document, found, _KEYS) is None


def _verify_all(token: str) -> list[Any]:
    return [
        attempt(access_token.verify, token, _KEYS, network="acme", now=NOW),
        attempt(access_token.verify_proof, token, jkt=_JKT, nonce="n", now=NOW),
        attempt(assertion.unverified_kid, token),
        attempt(
            assertion.verify_assertion,
            token,
            _KEY.public_key,
            kid=Kid("k"),
            account=ServiceAccountUuid(ACCOUNT),
            audience="https://acme/login",
            now=NOW,
        ),
        attempt(audit_signature.verify_block, token, _KEYS),
        attempt(audit_signature.verify_range, token, _KEYS),
        attempt(audit_signature.verify_anchor, token, _KEYS),
        attempt(cut_token.verify_cut, token, _KEYS, network="acme", now=NOW),
        attempt(grant_token.verify_grant, token, _KEYS, network="acme", remote_network=RemoteNetworkId(1), now=NOW),
        attempt(head_token.verify_head, token, _KEYS, network="acme"),
        attempt(receipt_token.verify_receipt, token, _CONNECTOR, jkt=_JKT, now=NOW),
        attempt(ticket.verify_ticket, token, _KEYS, network="acme", relay=1, now=NOW),
    ]


def tokens(data: bytes) -> None:
    """Tokens as they come: nothing that nobody signed is ever believed."""
    token = as_text(data)
    attempt(signing.unverified_header, token)
    attempt(signing.verify_signature, token, _KEY.public_key, ticket.TYP)
    attempt(signing.verify, token, _KEYS, typ=ticket.TYP, issuer="acme", audience="relay:1", now=NOW, max_lifetime=60)
    _verify_all(token)


def claims(data: bytes) -> None:
    """Claims that a holder of the key signed: the first byte is the type, the rest JSON. Every oddity is a refusal."""
    if not data:
        return
    try:
        given = json.loads(data[1:])
    except (ValueError, RecursionError):
        return
    if not isinstance(given, dict):
        return
    attempt(signing.check_claims, given, issuer="acme", audience="relay:1", now=NOW, max_lifetime=60)
    header = {"jwk": signing.public_jwk(_KEY.public_key)}
    _verify_all(signing.sign(_KEY, _TYPES[data[0] % len(_TYPES)], given, header))


def keys(data: bytes) -> None:
    """Keys in PEM and JWK, key files, base64url."""
    attempt(signing.public_key_from_pem, data)
    attempt(signing.private_key_from_pem, data)
    attempt(signing.public_key_from_pem, as_text(data))
    attempt(parse_key_file, data)
    attempt(parse_key_file, as_text(data))
    try:
        signing.from_base64url(as_text(data))
    except ValueError:
        pass
    try:
        given = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(given, dict):
        attempt(signing.public_key_from_jwk, given)
        attempt(signing.KeySet.from_jwks, given)
        attempt(audit_signature.audit_keys, given)
        attempt(signing.KeySet.from_jwks, {"keys": [given]})


def identities(data: bytes) -> None:
    """Identities: what is understood is written the same again."""
    text = as_text(data)
    attempt(parse_network_name, text)
    for kind in (ClientIdentity, ConnectorIdentity):
        if (identity := attempt(kind.parse, text)) is not None:
            assert identity.uri == text


def addresses(data: bytes) -> None:
    """Hosts, resource addresses, ports: a canonical form is its own canonical form."""
    text = as_text(data)
    if (host := attempt(canonical_host, text)) is not None:
        assert host.isascii()
        assert len(host) <= 253
        assert canonical_host(host) == host
    if (alias := attempt(parse_alias, text)) is not None:
        assert parse_alias(alias) == alias
    parse_ip(text)
    if (address := attempt(ResourceAddress.parse, text)) is not None:
        address.matches("db.internal")
        address.matches(host or "10.0.0.1")
        assert ResourceAddress.parse(address.canonical).canonical == address.canonical
    if (endpoint := attempt(Endpoint.parse, text)) is not None:
        assert Endpoint.parse(str(endpoint)) == endpoint
    attempt(HostPort.parse, text)
    attempt(HostPort.parse, text, 443)
    split_port(text)
    attempt(PortRange.parse, text)
    attempt(source_range.parse_ranges, text.split(","))


def words(data: bytes) -> None:
    """What people and programs type: names, passwords, codes, secrets, versions, settings."""
    text = as_text(data)
    attempt(names.parse_name, text)
    attempt(password.check_password, text, ("acme",))
    attempt(recovery_code.parse, text)
    for prefix in token_text.PREFIXES:
        attempt(token_text.check, text, prefix)
    attempt(api_token.parse_scopes, text.split(","))
    attempt(ConnectorVersion.parse, text)
    list(leak.find_secrets(text))
    try:
        given = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(given, dict):
        for kind in SinkKind:
            attempt(checked_settings, kind, given)


def audit_exports(data: bytes) -> None:
    """An export whose lines nobody signed is never intact."""
    records = list(audit_export.read_records(data.splitlines(keepends=True)))
    found = attempt(
        audit_verification.verify,
        records,
        lambda token: audit_signature.verify_block(token, _KEYS),
        lambda token: audit_signature.verify_range(token, _KEYS),
        lambda token: audit_signature.verify_anchor(token, _KEYS),
    )
    assert found is None


# ---- seeds


def _common(audience: str) -> dict[str, Any]:
    return {"iss": "acme", "aud": audience, "iat": int(NOW), "exp": int(NOW) + 50, "cnf": {"jkt": _JKT}}


def _claim_seeds() -> Sequence[bytes]:
    entry = {"id": 1, "name": "db", "address": "*.internal", "remote_network": 1, "alias": "db.x", "tcp": [[1, 2]], "udp": []}
    stamp = {"epoch": 1, "rev": 2}
    uri = f"spiffe://acme/service-account/{ACCOUNT}/key/k/session/{SESSION}"
    flows = {"cut": 1, "stopped_at_ms": 1, "took_us": 1, "flows": 0, "flows_sha256": "00"}
    digest = "0" * 64
    audit = {"first": 1, "previous": digest, "digest": digest, "number": 1, "digests": signing.base64url(bytes(32))}
    by_type: dict[str, dict[str, Any]] = {
        access_token.TYP: {**_common("controller"), "sub": uri},
        access_token.PROOF_TYP: {**_common("controller"), "iss": "self", "nonce": "n"},
        assertion.LOGIN_TYP: {**_common("https://acme/login"), "iss": ACCOUNT, "sub": ACCOUNT, "jti": "j"},
        audit_signature.BLOCK_TYP: {**_common(audit_signature.AUDIENCE), **audit},
        audit_signature.RANGE_TYP: {
            **_common(audit_signature.AUDIENCE), **audit, "last": 1, "from": None, "to": 1, "filter": "none",
        },
        audit_signature.ANCHOR_TYP: {**_common(audit_signature.AUDIENCE), **audit, "until": 1},
        cut_token.TYP: {**_common("connectors"), **stamp, "id": 1, "kind": "access", "account": ACCOUNT, "resource": 1,
            "reason": "cut", "narrowed": entry},
        grant_token.TYP: {
            **_common("remote-network:1"), **stamp, "sub": ACCOUNT, "key": "k", "sid": SESSION, "resources": [entry],
        },
        head_token.TYP: {**_common("controller"), **stamp},
        receipt_token.TYP: {**_common("controller"), **stamp, **flows, "sub": _CONNECTOR.uri},
        ticket.TYP: {
            **_common("relay:1"), "sub": SESSION, "role": "client", "connectors": [1], "jti": "j", "account": ACCOUNT,
        },
    }  # fmt: skip
    return [bytes((number,)) + json.dumps(by_type[typ]).encode() for number, typ in enumerate(_TYPES)]


def _token_seeds() -> Sequence[bytes]:
    return [signing.sign(_KEY, _TYPES[seed[0]], json.loads(seed[1:])).encode() for seed in _claim_seeds()] + [
        b"a.b.c",
        b"e30.e30.",
    ]


def _key_seeds() -> Sequence[bytes]:
    pem = signing.private_key_to_pem(_KEY.private_key)
    text = pem.decode() if isinstance(pem, bytes) else pem
    document = {"version": "1", "network": "acme:1", "service_account_id": ACCOUNT, "key_id": "k", "private_key": text}
    jwk = signing.public_jwk(_KEY.public_key)
    return [
        text.encode(),
        json.dumps({**document, "expires_at": "2030-01-01T00:00:00+00:00", "login_path": "/x"}).encode(),
        json.dumps(jwk).encode(),
        json.dumps({"keys": [{**jwk, "kid": "audit-1"}]}).encode(),
    ]


def _identity_seeds() -> Sequence[bytes]:
    return [
        f"spiffe://acme/service-account/{ACCOUNT}/key/k/session/{SESSION}".encode(),
        b"spiffe://acme/connector/12",
        b"acme.example.com",
    ]


def _address_seeds() -> Sequence[bytes]:
    texts = (
        "db.internal",
        "10.0.0.0/8",
        "*.a-?.b",
        "::ffff:10.0.0.1",
        "[fe80::1]:443",
        "0x7f.1",
        "1-65535",
        "bücher.example",
        "a:80",
    )
    return [text.encode() for text in texts]


def _word_seeds() -> Sequence[bytes]:
    texts = (
        token_text.compose(token_text.API_TOKEN, bytes(30)),
        recovery_code.compose(bytes(recovery_code.RANDOM_BYTES)),
        "1.80.0+klinket.0.1.0",
        "correct horse battery staple",
        '{"url":"https://logs.example/x"}',
        '{"recipients":["a@b.example"]}',
        '{"address":"logs.example:6514"}',
        '{"key_id":"k","service_account_id":"x","private_key":"-----BEGIN PRIVATE KEY-----"}',
    )
    return [text.encode() for text in texts]


def _audit_seeds() -> Sequence[bytes]:
    event = {"number": 1, "digest": "0" * 64, "previous": "0" * 64}
    return [audit_export.event_line(event) + audit_export.signature_line("t") + audit_export.trailer_line("t")]


TARGETS = (
    Target(
        "tokens",
        tokens,
        (
            "wire.signing:unverified_header",
            "wire.signing:verify_signature",
            "wire.signing:verify",
            "wire.assertion:unverified_kid",
        ),
        _token_seeds,
    ),
    Target(
        "claims",
        claims,
        (
            "wire.signing:check_claims",
            "wire.access_token:verify",
            "wire.access_token:verify_proof",
            "wire.assertion:verify_assertion",
            "wire.audit_signature:verify_block",
            "wire.audit_signature:verify_range",
            "wire.audit_signature:verify_anchor",
            "wire.cut_token:verify_cut",
            "wire.grant_token:verify_grant",
            "wire.head_token:verify_head",
            "wire.receipt_token:verify_receipt",
            "wire.ticket:verify_ticket",
        ),
        _claim_seeds,
    ),
    Target(
        "cut-documents",
        cut_documents,
        ("wire.cut_document:verify_document",),
        lambda: [b"{}", b'{"signature": "e30.e30."}', b'{"signature": 7, "receipts": {}}'],
    ),
    Target(
        "keys",
        keys,
        (
            "wire.signing:private_key_from_pem",
            "wire.signing:public_key_from_pem",
            "wire.signing:public_key_from_jwk",
            "wire.signing:from_base64url",
            "wire.signing:KeySet.from_jwks",
            "wire.audit_signature:audit_keys",
            "wire.key_file:parse_key_file",
        ),
        _key_seeds,
    ),
    Target(
        "identities",
        identities,
        ("wire.identity:parse_network_name", "wire.identity:ClientIdentity.parse", "wire.identity:ConnectorIdentity.parse"),
        _identity_seeds,
    ),
    Target(
        "addresses",
        addresses,
        (
            "domain.address:parse_ip",
            "domain.address:canonical_host",
            "domain.address:parse_alias",
            "domain.address:ResourceAddress.parse",
            "domain.ports:PortRange.parse",
            "domain.punch:Endpoint.parse",
            "domain.source_range:parse_ranges",
            "net.sockets:HostPort.parse",
        ),
        _address_seeds,
    ),
    Target(
        "words",
        words,
        (
            "domain.names:parse_name",
            "domain.password:check_password",
            "domain.recovery_code:parse",
            "domain.token_text:check",
            "domain.api_token:parse_scopes",
            "domain.connector:ConnectorVersion.parse",
            "domain.sink:checked_settings",
        ),
        _word_seeds,
    ),
    Target("audit-exports", audit_exports, ("wire.audit_export:read_records", "domain.audit_verification:verify"), _audit_seeds),
)
