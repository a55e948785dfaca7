"""What no kind of token may let pass: other kinds, other keys, other algorithms, other times, any junk (security.md 10)."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.cut import Cut, CutScope
from klinket.domain.errors import AuthenticationFailed, InvalidToken
from klinket.domain.flow import FlowFailure
from klinket.domain.grant import Principal
from klinket.domain.identifiers import ConnectorId, CutId, Kid, RemoteNetworkId, ResourceId, ServiceAccountUuid, SessionId
from klinket.wire import access_token, assertion, cut_token, grant_token, receipt_token, signing, ticket
from klinket.wire.identity import ConnectorIdentity
from tests.unit.wire.conftest import ANY_TEXT, JSON, MODERATE, NOW, base64url, forge, parts, resource, signing_input

ACCOUNT = ServiceAccountUuid("a1111111-2222-3333-4444-55555555555f")
LOGIN_URL = "https://acme.example.com/api/v4/headless/login"
#: One key for every kind: kinds must be told apart even so.
KEY = signing.SigningKey.generate("key-1")
OTHER = signing.SigningKey.generate("key-1")
KEYS = signing.KeySet({KEY.kid: KEY.public_key})
JKT = signing.thumbprint(KEY.public_key)
OFFICE = RemoteNetworkId(1)
CUT = Cut(
    CutId(5),
    CutScope.of_access(ACCOUNT, ResourceId(1)),
    1,
    7,
    FlowFailure.CUT,
    NOW,
    resource(1, "db.internal"),
)


@dataclass(frozen=True)
class Kind:
    """A kind of token: a valid one made at NOW, its verifier, and the claims that it can do without."""

    name: str
    make: Callable[[], str]
    verify: Callable[[str, float], object]
    optional: frozenset[str] = frozenset()


def _assertion(typ: str) -> Kind:
    return Kind(
        typ,
        lambda: assertion.sign_assertion(KEY, ACCOUNT, LOGIN_URL, JKT, now=NOW, jti="j1", typ=typ),
        lambda token, now: assertion.verify_assertion(
            token, KEY.public_key, kid=Kid(KEY.kid), account=ACCOUNT, audience=LOGIN_URL, now=now, typ=typ
        ),
    )


KINDS = [
    _assertion(assertion.LOGIN_TYP),
    _assertion(assertion.END_TYP),
    Kind(
        "access",
        lambda: access_token.issue(KEY, ConnectorIdentity("acme", ConnectorId(3)), JKT, now=NOW, lifetime=3600),
        lambda token, now: access_token.verify(token, KEYS, network="acme", now=now),
    ),
    Kind(
        "proof",
        lambda: access_token.sign_proof(KEY.private_key, "nonce", now=NOW),
        lambda token, now: access_token.verify_proof(token, jkt=JKT, nonce="nonce", now=now),
    ),
    Kind(
        "grant",
        lambda: grant_token.sign_grant(
            KEY,
            network="acme",
            remote_network=OFFICE,
            principal=Principal(ACCOUNT, Kid("kid-1"), SessionId("s" * 22)),
            jkt=JKT,
            stamp=(1, 7),
            resources=[resource(1, "db.internal"), resource(2, "10.0.0.0/8")],
            now=NOW,
            lifetime=300,
        ),
        lambda token, now: grant_token.verify_grant(token, KEYS, network="acme", remote_network=OFFICE, now=now),
    ),
    Kind(
        "receipt",
        lambda: receipt_token.sign_receipt(
            KEY.private_key, ConnectorIdentity("acme", ConnectorId(3)), CUT, [], stopped_at=NOW, took=0.002
        ),
        lambda token, now: receipt_token.verify_receipt(token, ConnectorIdentity("acme", ConnectorId(3)), jkt=JKT, now=now),
    ),
    Kind(
        "cut",
        lambda: cut_token.sign_cut(KEY, CUT, network="acme"),
        lambda token, now: cut_token.verify_cut(token, KEYS, network="acme", now=now),
        frozenset({"narrowed"}),
    ),
    Kind(
        "ticket",
        lambda: ticket.sign_ticket(
            KEY,
            network="acme",
            role=ticket.TicketRole.CLIENT,
            holder="s1",
            relay=4,
            connectors=[1, 2],
            now=NOW,
            lifetime=3600,
            id="t",
        ),
        lambda token, now: ticket.verify_ticket(token, KEYS, network="acme", relay=4, now=now),
    ),
]
TYPS = {kind.name: parts(kind.make())[0]["typ"] for kind in KINDS}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def refused(kind: Kind, token: str, now: float = NOW) -> AuthenticationFailed:
    with pytest.raises(AuthenticationFailed) as raised:
        kind.verify(token, now)
    return raised.value


@EVERY_KIND
def test_a_right_token_is_accepted_and_so_is_its_forged_twin(kind: Kind) -> None:
    """The rest of this file changes one thing of such a twin: the twin itself must be good."""
    token = kind.make()
    header, claims, _ = parts(token)
    assert kind.verify(forge(KEY.private_key, header, claims), NOW) == kind.verify(token, NOW)


def test_every_kind_has_a_type_of_its_own() -> None:
    assert len(set(TYPS.values())) == len(KINDS) == 8


@EVERY_KIND
@pytest.mark.parametrize("other", KINDS, ids=lambda kind: kind.name)
def test_no_kind_passes_for_another(kind: Kind, other: Kind) -> None:
    if kind is not other:
        refused(kind, other.make())
        header, claims, _ = parts(kind.make())
        refused(kind, forge(KEY.private_key, {**header, "typ": TYPS[other.name]}, claims))


@EVERY_KIND
@pytest.mark.parametrize("typ", [None, "", "JWT", "jwt", 5, ["x"], {}])
def test_another_typ_is_refused(kind: Kind, typ: object) -> None:
    header, claims, _ = parts(kind.make())
    refused(kind, forge(KEY.private_key, {**header, "typ": typ}, claims))
    refused(kind, forge(KEY.private_key, {**header, "typ": header["typ"].upper()}, claims))
    refused(kind, forge(KEY.private_key, {name: value for name, value in header.items() if name != "typ"}, claims))


@EVERY_KIND
def test_another_key_of_the_same_name_is_refused(kind: Kind) -> None:
    header, claims, _ = parts(kind.make())
    refused(kind, forge(OTHER.private_key, header, claims))


def test_a_key_under_another_name_is_refused() -> None:
    for kind in KINDS:
        if kind.name in ("access", "grant", "cut", "ticket"):
            header, claims, _ = parts(kind.make())
            for kid in ("key-2", "", None, 1, ["key-1"], {"key-1": 1}):
                refused(kind, forge(KEY.private_key, {**header, "kid": kid}, claims))


@EVERY_KIND
def test_no_other_algorithm_is_accepted(kind: Kind) -> None:
    header, claims, signature = parts(kind.make())
    public_pem = signing.public_key_to_pem(KEY.public_key).encode()
    for alg in ("none", "None", "NONE", ""):
        text = signing_input({**header, "alg": alg}, claims)
        refused(kind, f"{text}.")
        refused(kind, f"{text}.{base64url(signature)}")
        refused(kind, forge(KEY.private_key, {**header, "alg": alg}, claims))
    text = signing_input({**header, "alg": "HS256"}, claims)
    for secret in (public_pem, public_pem.strip(), json.dumps(signing.public_jwk(KEY.public_key)).encode(), b"", b"key-1"):
        refused(kind, f"{text}.{base64url(hmac.digest(secret, text.encode(), 'sha256'))}")
    for other in ("es256", "ES384", "ES256K", "RS256", "EdDSA", ["ES256"], None, 256):
        refused(kind, forge(KEY.private_key, {**header, "alg": other}, claims))
    refused(kind, forge(KEY.private_key, {name: value for name, value in header.items() if name != "alg"}, claims))


@EVERY_KIND
def test_only_a_raw_signature_of_the_right_length_counts(kind: Kind) -> None:
    text, _, encoded = kind.make().rpartition(".")
    _, _, signature = parts(kind.make())
    der = KEY.private_key.sign(text.encode(), ec.ECDSA(hashes.SHA256()))
    for wrong in (b"", bytes(64), b"\xff" * 64, signature[:-1], signature + b"\0", signature[32:] + signature[:32], der):
        refused(kind, f"{text}.{base64url(wrong)}")
    for token in (text, f"{text}.{encoded}.{encoded}", f".{text}.{encoded}", f"{text}..{encoded}", f"{text}.{encoded} x"):
        refused(kind, token)


@EVERY_KIND
def test_a_critical_extension_is_refused(kind: Kind) -> None:
    header, claims, _ = parts(kind.make())
    for crit in (["exp"], ["b64"], [], "exp"):
        refused(kind, forge(KEY.private_key, {**header, "crit": crit, "b64": True, "exp": 1}, claims))


@EVERY_KIND
def test_a_token_counts_within_its_times_and_five_seconds(kind: Kind) -> None:
    token = kind.make()
    _, claims, _ = parts(token)
    first, last = claims["iat"] - 5, claims["exp"] + 5
    for now in (first, claims["iat"], claims["exp"], last - 0.001):
        kind.verify(token, now)
    for now in (first - 0.001, 0.0):
        if kind.name == "cut":
            kind.verify(token, now)  # it only takes away: a controller whose clock was ahead is obeyed
        else:
            refused(kind, token, now)
    for now in (last, last + 1, 1e18):
        refused(kind, token, now)


@EVERY_KIND
def test_a_token_that_lives_too_long_or_backwards_is_refused(kind: Kind) -> None:
    header, claims, _ = parts(kind.make())
    for iat, exp in ((NOW, NOW + 3650 * 86_400), (NOW, NOW), (NOW + 1, NOW), (NOW - 3650 * 86_400, NOW + 10)):
        refused(kind, forge(KEY.private_key, header, {**claims, "iat": int(iat), "exp": int(exp)}))


@EVERY_KIND
@pytest.mark.parametrize("name", ["iat", "exp"])
@pytest.mark.parametrize(
    "value", [None, "1800000000", 1_800_000_000.0, True, [1], {}, float("nan"), float("inf"), 10**400, -(10**400), 2**63, -1]
)
def test_a_time_is_a_whole_number(kind: Kind, name: str, value: object) -> None:
    header, claims, _ = parts(kind.make())
    refused(kind, forge(KEY.private_key, header, {**claims, name: value}))


@EVERY_KIND
@pytest.mark.parametrize("far", [10**400, -(10**400), 10**30])
def test_times_far_away_are_refused_even_if_they_agree(kind: Kind, far: int) -> None:
    header, claims, _ = parts(kind.make())
    refused(kind, forge(KEY.private_key, header, {**claims, "iat": far, "exp": far + 30}))


@EVERY_KIND
def test_another_audience_or_issuer_is_refused(kind: Kind) -> None:
    header, claims, _ = parts(kind.make())
    for name in ("aud", "iss"):
        for value in ("", "other", claims[name] + "/", claims[name].upper(), [claims[name]], None, 1):
            refused(kind, forge(KEY.private_key, header, {**claims, name: value}))


@EVERY_KIND
def test_every_claim_is_needed(kind: Kind) -> None:
    header, claims, _ = parts(kind.make())
    for missing in claims:
        token = forge(KEY.private_key, header, {name: value for name, value in claims.items() if name != missing})
        if missing in kind.optional:
            kind.verify(token, NOW)
        else:
            refused(kind, token)


@EVERY_KIND
@pytest.mark.parametrize("claims", [[], "text", 5, None, [{"iss": "acme"}]])
def test_a_payload_that_is_no_object_is_refused(kind: Kind, claims: object) -> None:
    header, _, _ = parts(kind.make())
    refused(kind, forge(KEY.private_key, header, claims))


@MODERATE
@given(st.sampled_from(KINDS), JSON, st.data())
def test_any_value_of_any_claim_is_accepted_or_refused_never_a_crash(kind: Kind, junk: Any, data: st.DataObject) -> None:
    header, claims, _ = parts(kind.make())
    name = data.draw(st.sampled_from(sorted(claims)))
    if name in ("cnf", "narrowed") and data.draw(st.booleans()):
        inner = data.draw(st.sampled_from(sorted(claims[name])))
        junk = {**claims[name], inner: junk}
    elif name == "resources" and data.draw(st.booleans()):
        inner = data.draw(st.sampled_from(sorted(claims[name][0])))
        junk = [{**claims[name][0], inner: junk}]
    token = forge(KEY.private_key, header, {**claims, name: junk})
    try:
        verified = kind.verify(token, NOW)
    except AuthenticationFailed:
        return
    assert kind.name == "proof" or verified is not None


@MODERATE
@given(
    st.sampled_from(KINDS), st.dictionaries(st.sampled_from(["jwk", "jku", "x5c", "b64", "cty", "zip", "q"]), JSON, min_size=1)
)
def test_any_further_header_is_ignored_or_refused_never_a_crash(kind: Kind, junk: dict[str, Any]) -> None:
    header, claims, _ = parts(kind.make())
    token = forge(KEY.private_key, {**header, **junk}, claims)
    try:
        verified = kind.verify(token, NOW)
    except AuthenticationFailed:
        return
    assert verified == kind.verify(kind.make(), NOW)


@MODERATE
@given(st.sampled_from(KINDS), st.data())
def test_one_wrong_bit_anywhere_is_refused(kind: Kind, data: st.DataObject) -> None:
    token = kind.make()
    pieces = [bytearray(part) for part in (token.split(".")[0].encode(), token.split(".")[1].encode(), parts(token)[2])]
    piece = data.draw(st.integers(0, 2))
    at = data.draw(st.integers(0, len(pieces[piece]) - 1))
    pieces[piece][at] ^= 1 << data.draw(st.integers(0, 6))
    refused(kind, f"{pieces[0].decode()}.{pieces[1].decode()}.{base64url(bytes(pieces[2]))}")


@MODERATE
@given(st.sampled_from(KINDS), st.data())
def test_a_token_cut_anywhere_is_refused(kind: Kind, data: st.DataObject) -> None:
    token = kind.make()
    refused(kind, token[: data.draw(st.integers(0, len(token) - 2))])


@MODERATE
@given(
    st.sampled_from(KINDS),
    ANY_TEXT
    | st.binary(max_size=90).map(lambda data: data.decode("latin-1"))
    | st.lists(st.binary(max_size=30) | JSON.map(lambda value: json.dumps(value).encode()), max_size=4).map(
        lambda pieces: ".".join(base64url(piece) for piece in pieces)
    ),
)
def test_arbitrary_text_is_refused(kind: Kind, text: str) -> None:
    refused(kind, text)
    header, _, _ = parts(kind.make())
    refused(kind, f"{base64url(json.dumps(header).encode())}.{text}")


def test_a_header_nested_without_end_is_refused() -> None:
    for kind in KINDS:
        limit = grant_token.MAX_GRANT_CHARS if kind.name == "grant" else signing.MAX_TOKEN_CHARS
        depth = limit * 3 // 4 - 10
        refused(kind, base64url(b"[" * depth) + ".e30.e30")


@EVERY_KIND
def test_a_token_above_the_limit_is_refused_though_it_is_signed(kind: Kind) -> None:
    header, claims, _ = parts(kind.make())
    limit = 2 * 1024 * 1024 if kind.name == "grant" else 16_384
    room = (limit - len(forge(KEY.private_key, header, {**claims, "fill": ""}))) * 3 // 4
    small = forge(KEY.private_key, header, {**claims, "fill": "x" * (room - 4)})
    large = forge(KEY.private_key, header, {**claims, "fill": "x" * (room + 4)})
    assert limit - 20 < len(small) <= limit < len(large) < limit + 20
    kind.verify(small, NOW)
    refused(kind, large)


def test_refusals_of_tokens_hold_no_part_of_them() -> None:
    for kind in KINDS:
        token = kind.make()
        told = str(refused(kind, token[:-4] + "AAAA"))
        assert token[10:40] not in told
        assert hashlib.sha256(token.encode()).hexdigest() not in told


def test_times_of_a_login_are_told_apart_from_forgeries() -> None:
    """A client with a wrong clock must be told so; a forger learns nothing (the signature is checked first)."""
    for kind in KINDS[:2]:
        assert refused(kind, kind.make(), NOW + 100).code == "assertion-stale"
        header, claims, _ = parts(kind.make())
        forged = refused(kind, forge(OTHER.private_key, header, claims), NOW + 100)
        assert isinstance(forged, InvalidToken)
