"""The service key file as people paste, cut, encode and mistype it (facts §1, security.md 8)."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.errors import ServiceKeyInvalid
from klinket.wire import signing
from klinket.wire.key_file import KeyFile, parse_key_file
from tests.unit.wire.conftest import ANY_TEXT, JSON, MODERATE

KEY = signing.generate_private_key()
PEM = signing.private_key_to_pem(KEY)
SECRET = PEM.splitlines()[1][:40]
AUTHORITY = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
DOCUMENT: dict[str, Any] = {
    "version": "1",
    "network": "acme.example.com",
    "service_account_id": "a1111111-2222-3333-4444-55555555555f",
    "private_key": PEM,
    "key_id": "Kid_-1",
    "expires_at": "2027-01-01T00:00:00+00:00",
    "login_path": "/api/v4/headless/login",
}
EXPECTED = KeyFile("acme.example.com", DOCUMENT["service_account_id"], "Kid_-1", PEM, DOCUMENT["expires_at"])


def changed(**fields: object) -> str:
    return json.dumps({**DOCUMENT, **fields})


def without(*fields: str) -> str:
    return json.dumps({name: value for name, value in DOCUMENT.items() if name not in fields})


def refused(content: str | bytes) -> str:
    """Return the text of the refusal, which never holds the key."""
    with pytest.raises(ServiceKeyInvalid) as raised:
        parse_key_file(content)
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None  # a cause would be logged too, with what it holds
    return raised.value.message


def test_a_key_file_is_written_with_the_public_names_in_order_and_read_back() -> None:
    text = EXPECTED.to_json()
    assert list(json.loads(text)) == list(DOCUMENT)
    assert json.loads(text) == DOCUMENT
    assert parse_key_file(text) == EXPECTED


def test_the_parsed_key_is_the_one_that_was_written() -> None:
    for pem in (PEM, PEM.replace("\n", ""), PEM.replace("\n", "\r\n")):
        assert parse_key_file(changed(private_key=pem)).private_key.private_numbers() == KEY.private_numbers()


def test_an_authority_of_its_own_is_kept() -> None:
    key_file = parse_key_file(changed(controller_ca=AUTHORITY))
    assert key_file.controller_ca == AUTHORITY
    assert parse_key_file(key_file.to_json()) == key_file
    assert parse_key_file(changed(controller_ca=AUTHORITY.replace("\n", "\\n"))).controller_ca == AUTHORITY


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(json.dumps(DOCUMENT), id="one line"),
        pytest.param(json.dumps(DOCUMENT, indent=4).replace("\n", "\r\n"), id="other newlines"),
        pytest.param("\n\n  " + json.dumps(DOCUMENT) + "\n\n", id="blank lines around"),
        pytest.param(json.dumps(DOCUMENT).encode(), id="bytes"),
        pytest.param("\ufeff" + json.dumps(DOCUMENT), id="byte order mark"),
        pytest.param(b"\xef\xbb\xbf\n" + json.dumps(DOCUMENT).encode(), id="byte order mark in bytes"),
        pytest.param(json.dumps(DOCUMENT).replace("\\n", "\\\\n"), id="literal backslash n"),
        pytest.param(json.dumps(DOCUMENT).replace("\\n", "\n"), id="raw newlines inside the text"),
        pytest.param(base64.b64encode(json.dumps(DOCUMENT).encode()), id="base64"),
        pytest.param(base64.encodebytes(json.dumps(DOCUMENT).encode()).decode(), id="base64 in lines"),
        pytest.param(base64.b64encode(json.dumps(DOCUMENT).encode() + b"\n") + b"\n", id="base64 of a file with newline"),
        pytest.param(changed(private_key="  " + PEM.strip() + "  "), id="spaces around the key"),
        pytest.param(changed(service_account_id=DOCUMENT["service_account_id"].upper()), id="upper-case UUID"),
        pytest.param(changed(network=" Acme.Example.COM\n"), id="upper-case network"),
        pytest.param(without("version", "login_path"), id="without version and path"),
        pytest.param(changed(login_path=""), id="empty path"),
        pytest.param(changed(login_path=None), id="null path"),
        pytest.param(changed(unknown={"a": 1}), id="unknown field"),
    ],
)
def test_a_key_file_survives_what_people_do_to_it(content: str | bytes) -> None:
    assert parse_key_file(content) == EXPECTED


@pytest.mark.parametrize("value", [None, ""])
def test_no_expiry_means_never(value: object) -> None:
    assert parse_key_file(changed(expires_at=value)).expires_at is None
    assert parse_key_file(without("expires_at")).expires_at is None


@pytest.mark.parametrize("text", ["2027-01-01T00:00:00Z", "2027-01-01T00:00:00.123456+05:30"])
def test_an_expiry_is_kept_as_it_was_given(text: str) -> None:
    assert parse_key_file(changed(expires_at=text)).expires_at == text


@pytest.mark.parametrize("value", ["2027-01-01T00:00:00", "tomorrow", 1_800_000_000, True, ["2027"], {}, "\ud800"])
def test_another_expiry_is_refused(value: object) -> None:
    assert "expires_at" in refused(changed(expires_at=value))


@pytest.mark.parametrize(
    ("network", "host", "port", "url"),
    [
        ("acme.example.com", "acme.example.com", 443, "https://acme.example.com/api/v4/headless/login"),
        ("acme.example.com:8443", "acme.example.com", 8443, "https://acme.example.com:8443/api/v4/headless/login"),
        ("localhost:1", "localhost", 1, "https://localhost:1/api/v4/headless/login"),
        ("10.0.0.1:65535", "10.0.0.1", 65_535, "https://10.0.0.1:65535/api/v4/headless/login"),
        ("[2001:db8::1]", "2001:db8::1", 443, "https://[2001:db8::1]/api/v4/headless/login"),
        ("[::1]:8443", "::1", 8443, "https://[::1]:8443/api/v4/headless/login"),
    ],
)
def test_the_network_is_a_host_with_or_without_port(network: str, host: str, port: int, url: str) -> None:
    key_file = parse_key_file(changed(network=network))
    assert (key_file.host, key_file.port, key_file.login_url) == (host, port, url)
    assert key_file.port_given is (port != 443)


@pytest.mark.parametrize(
    "network",
    [
        "https://acme.example.com",
        "acme.example.com/",
        "acme.example.com/path",
        "user@acme.example.com",
        "acme.example.com:0",
        "acme.example.com:70000",
        "acme.example.com:443:1",
        "acme.example.com:",
        "acme.example.com:x",
        "acme.example.com?x",
        "acme.example.com#x",
        "acme.example.com\\x",
        "acme .example.com",
        "acme\n.example.com",
        "-acme.example.com",
        "acme.example.com.",
        "::1",
        "[::1",
        "::1]:443",
        "[evil.example]:443",
        "bücher.example",
        "a" * 300,
        "a%2fb",
    ],
)
def test_another_network_is_refused(network: str) -> None:
    assert "network" in refused(changed(network=network))


@pytest.mark.parametrize("path", ["/login", "/a/b.c/~d_e-f/", "/api/v5/headless/login"])
def test_another_path_is_taken(path: str) -> None:
    assert parse_key_file(changed(login_path=path)).login_url == f"https://acme.example.com{path}"


@pytest.mark.parametrize(
    "path",
    [
        "login",
        "/",
        "//evil.example/login",
        "/a//b",
        "/a/../b",
        "/..",
        "/a?b",
        "/a#b",
        "/a%2e%2e/b",
        "/a b",
        "/a\n",
        "@evil.example/",
        ":8443/a",
        ".evil.example/a",
        "https://evil.example/a",
        "/a\\b",
        "/" + "a" * 256,
        5,
        ["/a"],
        True,
    ],
)
def test_a_path_that_is_no_plain_absolute_path_is_refused(path: object) -> None:
    assert "login_path" in refused(changed(login_path=path))


@pytest.mark.parametrize("name", ["network", "service_account_id", "private_key", "key_id"])
@pytest.mark.parametrize("value", [None, "", "  ", 5, [], {}, True])
def test_every_needed_field_is_named_when_it_is_missing(name: str, value: object) -> None:
    assert name in refused(changed(**{name: value}))
    assert name in refused(without(name))


@pytest.mark.parametrize(
    "account", ["x", "U2VydmljZUFjY291bnQ6MQ==", "a1111111222233334444555555555555", "g" * 8 + "-2222-3333-4444-555555555555"]
)
def test_an_account_is_a_uuid(account: str) -> None:
    assert "service_account_id" in refused(changed(service_account_id=account))


@pytest.mark.parametrize("key_id", ["a b", "a/b", "ключ", "a" * 65, "a.b", "a\nb"])
def test_a_key_id_is_a_plain_word(key_id: str) -> None:
    assert "key_id" in refused(changed(key_id=key_id))


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65_537, 2048)],
    ids=["P-384", "Ed25519", "RSA"],
)
def test_a_key_of_another_type_is_refused(key: Any) -> None:
    other = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    assert "P-256" in refused(changed(private_key=other))


def test_a_public_or_damaged_key_is_refused() -> None:
    body = PEM.splitlines()
    for wrong in (
        signing.public_key_to_pem(KEY.public_key()),
        "\n".join(body[:-1]),
        "\n".join([body[0], body[1], body[-1]]),
        body[1],
        PEM.replace("PRIVATE", "PUBLIC"),
    ):
        assert "private_key" in refused(changed(private_key=wrong))


@pytest.mark.parametrize("value", ["", "x", 5, ["BEGIN CERTIFICATE"], False])
def test_an_authority_is_a_certificate(value: object) -> None:
    assert "controller_ca" in refused(changed(controller_ca=value))


def test_a_truncated_file_is_refused_wherever_it_was_cut() -> None:
    text = json.dumps(DOCUMENT)
    for end in range(len(text)):
        refused(text[:end])


def test_a_truncated_base64_file_is_refused_wherever_it_was_cut() -> None:
    text = base64.b64encode(json.dumps(DOCUMENT).encode()).decode()
    for end in range(0, len(text.rstrip("=")) - 1, 3):
        refused(text[:end])


@pytest.mark.parametrize("content", ["", " \n", b"\xef\xbb\xbf"])
def test_an_empty_file_asks_about_the_secret(content: str | bytes) -> None:
    with pytest.raises(ServiceKeyInvalid, match="empty") as raised:
        parse_key_file(content)
    assert "secret" in raised.value.hint


@pytest.mark.parametrize(
    "content",
    ["[]", "null", "5", '"text"', "[" * 60_000, "{" * 60_000, '{"a":' * 9000, b"\xff\xfe{}", "\ud800", "{\ud800}", "aGFsbG8="],
)
def test_what_is_no_object_is_refused(content: str | bytes) -> None:
    assert "JSON" in refused(content)


def test_a_file_above_the_limit_is_refused() -> None:
    assert "larger" in refused(changed(fill="x" * 65_536))
    assert parse_key_file(changed(fill="x" * 60_000)) == EXPECTED


def test_the_representation_shows_no_key() -> None:
    assert SECRET not in repr(parse_key_file(changed()))


@MODERATE
@given(st.binary(max_size=120) | ANY_TEXT | JSON.map(json.dumps) | st.binary(max_size=60).map(base64.b64encode))
def test_arbitrary_content_is_refused(content: str | bytes) -> None:
    refused(content)


@MODERATE
@given(st.sampled_from([*DOCUMENT, "controller_ca"]), JSON | st.text("acme.:/[]@%0189-\n ", max_size=20))
def test_any_value_of_any_field_is_taken_or_refused_by_name(name: str, junk: Any) -> None:
    content = changed(**{name: junk})
    try:
        key_file = parse_key_file(content)
    except ServiceKeyInvalid as raised:
        message = raised.message
    else:
        assert parse_key_file(key_file.to_json()) == key_file
        assert 0 < key_file.port < 65_536
        return
    assert name in message


@MODERATE
@given(st.from_regex(r"[a-z0-9.-]{1,20}(:[0-9]{0,5})?", fullmatch=True))
def test_a_url_never_has_another_host_than_the_file(network: str) -> None:
    try:
        key_file = parse_key_file(changed(network=network))
    except ServiceKeyInvalid:
        return
    url = urlsplit(key_file.login_url)
    assert (url.hostname, url.port or 443, url.path) == (key_file.host, key_file.port, key_file.login_path)
    assert url.username is None
