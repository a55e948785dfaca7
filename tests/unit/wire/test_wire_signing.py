"""Keys, key sets and thumbprints under the tokens."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.errors import InvalidToken, WrongSignature
from klinket.wire import signing
from tests.unit.wire.conftest import ANY_TEXT, JSON, MODERATE, base64url, unbase64url

KEY = signing.SigningKey.generate("key-1")
PEM = signing.private_key_to_pem(KEY.private_key)
PUBLIC_PEM = signing.public_key_to_pem(KEY.public_key)
P256_OID, UNKNOWN_OID = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a8648ce3d030177")
#: RFC 7517 appendix A.1, and its RFC 7638 thumbprint computed from the text of that RFC's rule.
RFC_JWK = {
    "kty": "EC",
    "crv": "P-256",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
}


def test_private_keys_survive_pem() -> None:
    assert PEM.startswith("-----BEGIN PRIVATE KEY-----\n")
    assert signing.private_key_from_pem(PEM).private_numbers() == KEY.private_key.private_numbers()
    assert signing.private_key_from_pem(PEM.encode()).private_numbers() == KEY.private_key.private_numbers()


def test_public_keys_survive_pem_and_jwk() -> None:
    assert signing.public_key_from_pem(PUBLIC_PEM).public_numbers() == KEY.public_key.public_numbers()
    assert signing.public_key_from_jwk(signing.public_jwk(KEY.public_key)).public_numbers() == KEY.public_key.public_numbers()
    assert set(signing.public_jwk(KEY.public_key)) == {"kty", "crv", "x", "y"}


def private_pem(key: Any) -> bytes:
    data: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return data


def pem(label: str, der: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n".encode() + base64.encodebytes(der) + f"-----END {label}-----\n".encode()


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP256K1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65_537, 2048),
    ],
    ids=["P-384", "K-256", "Ed25519", "RSA"],
)
def test_keys_of_other_types_are_refused(key: Any) -> None:
    with pytest.raises(InvalidToken, match="P-256"):
        signing.private_key_from_pem(private_pem(key))
    with pytest.raises(InvalidToken, match="P-256"):
        signing.public_key_from_pem(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def test_keys_on_curves_nobody_knows_are_refused() -> None:
    private = KEY.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    public = KEY.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert P256_OID in private
    assert P256_OID in public
    with pytest.raises(InvalidToken):
        signing.private_key_from_pem(pem("PRIVATE KEY", private.replace(P256_OID, UNKNOWN_OID)))
    with pytest.raises(InvalidToken):
        signing.public_key_from_pem(pem("PUBLIC KEY", public.replace(P256_OID, UNKNOWN_OID)))


def test_an_encrypted_key_is_refused() -> None:
    encrypted = KEY.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    with pytest.raises(InvalidToken):
        signing.private_key_from_pem(encrypted)


@MODERATE
@given(st.binary(max_size=200).map(lambda der: pem("PRIVATE KEY", der)) | st.binary(max_size=60) | ANY_TEXT)
def test_arbitrary_pem_is_refused_and_not_repeated(data: bytes | str) -> None:
    for parse in (signing.private_key_from_pem, signing.public_key_from_pem):
        with pytest.raises(InvalidToken) as refused:
            parse(data)
        assert len(str(refused.value)) < 100


@MODERATE
@given(st.data())
def test_a_damaged_private_key_is_another_or_refused(data: st.DataObject) -> None:
    der = bytearray(KEY.private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    at = data.draw(st.integers(0, len(der) - 1))
    der[at] ^= data.draw(st.integers(1, 255))
    try:
        damaged = signing.private_key_from_pem(pem("PRIVATE KEY", bytes(der)))
    except InvalidToken:
        return
    assert isinstance(damaged.curve, ec.SECP256R1)


@MODERATE
@given(st.sampled_from(["kty", "crv", "x", "y"]), JSON)
def test_a_jwk_with_a_wrong_member_is_refused(name: str, junk: Any) -> None:
    with pytest.raises(InvalidToken):
        signing.public_key_from_jwk({**RFC_JWK, name: junk})
    with pytest.raises(InvalidToken):
        signing.public_key_from_jwk({member: value for member, value in RFC_JWK.items() if member != name})


def test_a_point_off_the_curve_is_refused() -> None:
    y = bytearray(unbase64url(RFC_JWK["y"]))
    y[-1] ^= 1
    for wrong in (bytes(y), bytes(32), b"\xff" * 32, unbase64url(RFC_JWK["y"])[1:], b"\0" + unbase64url(RFC_JWK["y"])):
        with pytest.raises(InvalidToken):
            signing.public_key_from_jwk({**RFC_JWK, "y": base64url(wrong)})


def test_a_thumbprint_is_the_hash_of_the_four_members_in_order() -> None:
    text = '{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}' % (RFC_JWK["x"], RFC_JWK["y"])  # noqa: UP031 - braces
    expected = base64url(hashlib.sha256(text.encode()).digest())
    assert signing.thumbprint(signing.public_key_from_jwk(RFC_JWK)) == expected == "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s"


def test_coordinates_with_leading_zeros_keep_their_length() -> None:
    for number in range(1, 400):
        key = ec.derive_private_key(number, ec.SECP256R1()).public_key()
        jwk = signing.public_jwk(key)
        assert len(jwk["x"]) == len(jwk["y"]) == 43
        if min(key.public_numbers().x, key.public_numbers().y) < 1 << 248:
            break
    else:
        pytest.fail("no such key among the first: take more")
    assert signing.public_key_from_jwk(jwk).public_numbers() == key.public_numbers()


def test_a_key_set_survives_jwks() -> None:
    other = signing.SigningKey.generate("key-2")
    keys = signing.KeySet({KEY.kid: KEY.public_key, other.kid: other.public_key})
    jwks = json.loads(json.dumps(keys.to_jwks()))
    again = signing.KeySet.from_jwks(jwks)
    assert len(again) == 2
    assert again.get("key-1").public_numbers() == KEY.public_key.public_numbers()
    assert again.get("key-2").public_numbers() == other.public_key.public_numbers()
    assert all(set(jwk) == {"kty", "crv", "x", "y", "kid", "alg", "use"} for jwk in jwks["keys"])  # nothing private


@pytest.mark.parametrize("kid", ["", "key-2", None, 1, ["key-1"], {}])
def test_a_key_that_is_not_in_the_set_is_refused(kid: object) -> None:
    with pytest.raises(InvalidToken):
        signing.KeySet({KEY.kid: KEY.public_key}).get(kid)


@pytest.mark.parametrize(
    "jwks",
    [
        {},
        {"keys": None},
        {"keys": {}},
        {"keys": "x"},
        {"keys": [1]},
        {"keys": [{}]},
        {"keys": [RFC_JWK]},
        {"keys": [{**RFC_JWK, "kid": 1}]},
        {"keys": [{**RFC_JWK, "kid": "a", "crv": "P-384"}]},
        {"keys": [{"kty": "oct", "k": "AAAA", "kid": "a"}]},
        {"keys": [{**RFC_JWK, "kid": f"{number}"} for number in range(65)]},
    ],
)
def test_what_is_no_key_set_is_refused(jwks: dict[str, object]) -> None:
    with pytest.raises(InvalidToken):
        signing.KeySet.from_jwks(jwks)


@MODERATE
@given(st.dictionaries(st.sampled_from(["keys", "x"]), JSON) | st.lists(JSON, max_size=3).map(lambda keys: {"keys": keys}))
def test_any_object_is_a_key_set_or_refused(jwks: dict[str, Any]) -> None:
    if jwks.get("keys") == []:
        assert len(signing.KeySet.from_jwks(jwks)) == 0
    else:
        with pytest.raises(InvalidToken):
            signing.KeySet.from_jwks(jwks)


def test_no_representation_of_a_signing_key_shows_it() -> None:
    assert "private" not in repr(KEY).lower()
    assert "key-1" in repr(KEY)


@pytest.mark.parametrize("value", [None, "", 5, "x" * 513, ["x"], True])
def test_a_text_claim_is_a_text(value: object) -> None:
    with pytest.raises(InvalidToken, match="name"):
        signing.text({"name": value}, "name")


@pytest.mark.parametrize("cnf", [None, [], "x", {}, {"jkt": ""}, {"jkt": 5}, {"jkt": "x" * 65}, {"kid": "x"}])
def test_a_confirmation_names_a_thumbprint(cnf: object) -> None:
    with pytest.raises(InvalidToken):
        signing.confirmation({"cnf": cnf})


@pytest.mark.parametrize("other", ["", "thumb", "thümb", "\ud800", "THUMB "])
def test_texts_of_any_characters_are_compared(other: str) -> None:
    assert signing.same("thumb", other) is (other == "thumb")
    assert signing.same(other, "thumb") is (other == "thumb")
    assert signing.same(other, other)


# ---- the form of a token (RFC 7515)


def respelt(part: str) -> str:
    """Return another base64url text of the same bytes: a bit that no byte is made of is set."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return part[:-1] + alphabet[alphabet.index(part[-1]) ^ 1]


def test_another_implementation_agrees_on_signatures_in_both_directions() -> None:
    from joserfc import jws
    from joserfc.jwk import ECKey

    claims = {"iss": "acme", "number": 1}
    ours = signing.sign(KEY, "x+jwt", claims)
    assert json.loads(jws.deserialize_compact(ours, ECKey.import_key(PUBLIC_PEM), algorithms=["ES256"]).payload) == claims
    header = {"alg": "ES256", "typ": "x+jwt", "kid": KEY.kid}
    theirs = jws.serialize_compact(header, json.dumps(claims), ECKey.import_key(PEM), algorithms=["ES256"])
    assert signing.verify_signature(theirs, KEY.public_key, "x+jwt") == claims


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_token_has_one_spelling_only(part: int) -> None:
    parts = signing.sign(KEY, "x+jwt", {"n": "1"}).split(".")
    for spelling in (parts[part] + "=", parts[part] + "\n", parts[part] + "!", "+" + parts[part]):
        changed = [*parts[:part], spelling, *parts[part + 1 :]]
        with pytest.raises(InvalidToken):
            signing.verify_signature(".".join(changed), KEY.public_key, "x+jwt")
    last = respelt(parts[2])
    assert unbase64url(last) == unbase64url(parts[2])
    with pytest.raises(WrongSignature):
        signing.verify_signature(".".join([*parts[:2], last]), KEY.public_key, "x+jwt")


@pytest.mark.parametrize("length", [0, 1, 32, 63, 65, 128])
def test_a_signature_has_64_bytes(length: int) -> None:
    first, payload, last = signing.sign(KEY, "x+jwt", {}).split(".")
    changed = base64url((unbase64url(last) * 2)[:length])
    with pytest.raises(WrongSignature):
        signing.verify_signature(f"{first}.{payload}.{changed}", KEY.public_key, "x+jwt")


@pytest.mark.parametrize("r, s", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_trivial_signatures_are_none(r: int, s: int) -> None:
    signed = signing.sign(KEY, "x+jwt", {}).rpartition(".")[0]
    with pytest.raises(WrongSignature):
        signing.verify_signature(f"{signed}.{base64url(r.to_bytes(32) + s.to_bytes(32))}", KEY.public_key, "x+jwt")
