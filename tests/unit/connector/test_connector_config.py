"""Settings of a connector: the tokens file first, then the environment; tokens never stay in the environment."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import trustme

from klinket.connector.config import ConnectorConfig, load
from klinket.domain.errors import InvalidInput


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("KLINKET_", "TWINGATE_")):
            monkeypatch.delenv(name)


AUTHORITY = trustme.CA().cert_pem.bytes().decode()


def from_environment(tmp_path: Path) -> ConnectorConfig:
    return load(None, None, None, tmp_path)


@pytest.mark.parametrize("prefix", ["KLINKET", "TWINGATE"])
def test_tokens_are_taken_out_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    monkeypatch.setenv(f"{prefix}_ACCESS_TOKEN", " access ")
    monkeypatch.setenv(f"{prefix}_REFRESH_TOKEN", "refresh\n")
    monkeypatch.setenv("KLINKET_URL" if prefix == "KLINKET" else "TWINGATE_NETWORK", "https://acme.example.com:8443/")
    config = from_environment(tmp_path)
    assert (config.access_token, config.refresh_token) == ("access", "refresh")
    assert config.controller == "https://acme.example.com:8443"
    assert not [name for name in os.environ if "TOKEN" in name and name.startswith(("KLINKET", "TWINGATE"))]


def test_both_spellings_leave_the_environment_whichever_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for prefix in ("KLINKET", "TWINGATE"):
        monkeypatch.setenv(f"{prefix}_ACCESS_TOKEN", f"{prefix} access")
        monkeypatch.setenv(f"{prefix}_REFRESH_TOKEN", f"{prefix} refresh")
    monkeypatch.setenv("KLINKET_URL", "acme.example.com")
    assert from_environment(tmp_path).access_token == "KLINKET access"
    assert not [name for name in os.environ if name.endswith("_TOKEN") and name.startswith(("KLINKET", "TWINGATE"))]


def test_the_file_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLINKET_ACCESS_TOKEN", "other")
    monkeypatch.setenv("KLINKET_URL", "https://other.example.com")
    path = tmp_path / "tokens.json"
    document = {"url": "https://acme.example.com", "access_token": "a", "refresh_token": "r", "controller_ca": AUTHORITY}
    path.write_text(json.dumps(document))
    config = load(path, None, None, tmp_path)
    assert (config.access_token, config.refresh_token) == ("a", "r")
    assert (config.controller, config.controller_ca) == ("https://acme.example.com", AUTHORITY.strip())


def test_an_option_names_another_controller_and_authority(tmp_path: Path) -> None:
    path, ca = tmp_path / "tokens.json", tmp_path / "ca.pem"
    path.write_text(json.dumps({"url": "https://acme.example.com", "access_token": "a", "refresh_token": "r"}))
    ca.write_text(AUTHORITY)
    config = load(path, "https://there.example.com", ca, tmp_path)
    assert (config.controller, config.controller_ca) == ("https://there.example.com", AUTHORITY)


def test_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINGATE_ACCESS_TOKEN", "a")
    monkeypatch.setenv("TWINGATE_REFRESH_TOKEN", "r")
    monkeypatch.setenv("TWINGATE_NETWORK", "acme.example.com")
    monkeypatch.setenv("TWINGATE_LABEL_REGION", "eu-west")
    assert from_environment(tmp_path).labels == {"Region": "eu-west"}


def test_tokens_do_not_show(tmp_path: Path) -> None:
    config = ConnectorConfig(controller="https://x", access_token="sesame", refresh_token="sesame", state=tmp_path)
    assert "sesame" not in repr(config)


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"", "tokens-file"),
        (b"{", "tokens-file"),
        (b"[]", "tokens-file"),
        (b"\xff\xfe\x00", "tokens-file"),
        (b"[" * 100_000, "tokens-file"),
        (b"{}", "tokens-file"),
        (b'{"access_token": "a"}', "tokens-file"),
        (b'{"access_token": 1, "refresh_token": 2}', "tokens-file"),
        (b'{"access_token": " ", "refresh_token": "r"}', "tokens-file"),
        (b'{"access_token": "a", "refresh_token": "r"}', "url"),
    ],
)
def test_a_bad_tokens_file_names_what_is_wrong(tmp_path: Path, content: bytes, field: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInput) as caught:
        load(path, None, None, tmp_path)
    assert caught.value.field == field


def test_a_missing_tokens_file_or_authority_is_told_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"gone\.json"):
        load(tmp_path / "gone.json", None, None, tmp_path)
    path = tmp_path / "tokens.json"
    path.write_text('{"access_token": "a", "refresh_token": "r"}')
    with pytest.raises(InvalidInput, match=r"gone\.pem"):
        load(path, "https://acme.example.com", tmp_path / "gone.pem", tmp_path)


@pytest.mark.parametrize(
    "content", ["", "  \n", "not PEM", "é", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
@pytest.mark.parametrize("where", ["file", "tokens"])
def test_an_authority_that_is_none_is_refused_at_once(tmp_path: Path, content: str, where: str) -> None:
    tokens: dict[str, str] = {"url": "https://acme.example.com", "access_token": "a", "refresh_token": "r"}
    if where == "tokens":
        if not content.strip():
            pytest.skip("left out of a tokens file: the system's authorities")
        tokens["controller_ca"] = content
    path, ca = tmp_path / "tokens.json", tmp_path / "ca.pem"
    path.write_text(json.dumps(tokens))
    ca.write_text(content)
    with pytest.raises(InvalidInput) as caught:
        load(path, None, ca if where == "file" else None, tmp_path)
    assert caught.value.field == "controller_ca"


@pytest.mark.parametrize(
    "url",
    ["", "  ", "http://acme.example.com", "https://", "ftp://acme.example.com", "https://[::1", "https:///path", "https://x:y"],
)
def test_a_controller_is_reached_over_https_only(tmp_path: Path, url: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text('{"access_token": "a", "refresh_token": "r"}')
    with pytest.raises(InvalidInput) as caught:
        load(path, url, None, tmp_path)
    assert caught.value.field == "url"


@pytest.mark.parametrize(
    ("text", "controller"),
    [
        ("acme.example.com", "https://acme.example.com"),
        ("https://acme.example.com:8443/", "https://acme.example.com:8443"),
        ("https://acme.example.com/some/path?query", "https://acme.example.com"),
        ("https://[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_the_controllers_url(tmp_path: Path, text: str, controller: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text('{"access_token": "a", "refresh_token": "r"}')
    assert load(path, text, None, tmp_path).controller == controller


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"private_key": "x", "key_id": "k"}', "it is a service key file"),
        ('{"url": "https://x", "access_token": "a"}', "it has no refresh_token"),
        ('{"url": "https://x"}', "it has no access_token"),
    ],
)
def test_another_file_than_tokens_is_told_for_what_it_is(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(content)
    with pytest.raises(InvalidInput) as caught:
        load(path, None, None, tmp_path)
    assert caught.value.message.endswith(f"is not a tokens file: {told}")
    assert "klinket admin connector tokens NAME --out FILE" in caught.value.hint


def test_a_network_without_its_host_name_says_what_to_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ACCESS_TOKEN", "a"), ("REFRESH_TOKEN", "r"), ("NETWORK", "acme")):
        monkeypatch.setenv(f"TWINGATE_{name}", value)
    with pytest.raises(InvalidInput) as caught:
        load(None, None, None, tmp_path)
    assert caught.value.field == "TWINGATE_NETWORK"
    assert "whole host name" in caught.value.hint
