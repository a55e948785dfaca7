"""Leaked keys and tokens are found in any text, told without the secret, and nothing else is taken for one."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis.strategies import binary, text

from klinket.domain import token_text
from klinket.wire import signing
from klinket.wire.key_file import KeyFile
from klinket.wire.leak import Finding, find_secrets

TOKEN = token_text.compose(token_text.API_TOKEN, bytes(range(30)))


def key_file() -> str:
    pem = signing.private_key_to_pem(signing.generate_private_key())
    return KeyFile("acme.example.com", "11111111-1111-1111-1111-111111111111", "key-0123", pem).to_json()


@pytest.mark.parametrize(
    ("prefix", "kind"),
    [
        (token_text.API_TOKEN, "API token"),
        (token_text.CONNECTOR_ACCESS_TOKEN, "connector access token"),
        (token_text.CONNECTOR_REFRESH_TOKEN, "connector refresh token"),
        (token_text.RELAY_TOKEN, "relay token"),
    ],
)
def test_each_kind_of_token_is_found_by_prefix_and_checksum(prefix: str, kind: str) -> None:
    token = token_text.compose(prefix, os.urandom(30))
    (found,) = find_secrets(f"first line\nexport TOKEN='{token}'\n")
    assert found == Finding(2, kind, f"{token[: len(prefix) + 4]}...")
    assert token not in repr(found)


def test_a_token_with_a_wrong_checksum_or_more_letters_is_none() -> None:
    mistyped = TOKEN[:-1] + ("a" if TOKEN[-1] != "a" else "b")
    assert list(find_secrets(f"{mistyped} {TOKEN}x {TOKEN[:-1]}")) == []


@pytest.mark.parametrize(
    "written",
    [
        pytest.param(lambda file: file, id="as it is"),
        pytest.param(lambda file: json.dumps(json.loads(file)), id="on one line"),
        pytest.param(lambda file: json.dumps({"secret": file}), id="inside JSON"),
        pytest.param(lambda file: json.dumps(dict(reversed(json.loads(file).items()))), id="in another order"),
        pytest.param(lambda file: f"KEY='{json.dumps(json.loads(file))}' # {TOKEN[:20]}", id="in a shell script"),
    ],
)
def test_a_key_file_is_found_however_it_was_pasted(written: object) -> None:
    content = written(key_file())  # type: ignore[operator]
    assert [(one.kind, one.id) for one in find_secrets(content)] == [("service key", "key-0123")]


def test_a_key_file_without_its_private_key_is_no_finding() -> None:
    document = {**json.loads(key_file()), "private_key": ""}
    assert list(find_secrets(json.dumps(document))) == []


@given(text(max_size=2_000))
def test_any_text_is_searched(content: str) -> None:
    assert list(find_secrets(content)) == []


@given(binary(max_size=200), binary(max_size=200))
def test_a_token_is_found_between_any_bytes(before: bytes, after: bytes) -> None:
    content = f"{before.decode('utf-8', 'replace')} {TOKEN} {after.decode('utf-8', 'replace')}"
    assert [one.kind for one in find_secrets(content)] == ["API token"]
