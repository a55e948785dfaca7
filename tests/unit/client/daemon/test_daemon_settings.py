"""Settings: what people write, what is kept, and what variables say instead."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import dictionaries, from_type, text

from klinket.client.daemon import settings
from klinket.client.daemon.settings import Settings
from klinket.domain.errors import InvalidInput


@pytest.mark.parametrize(
    ("key", "written", "shown"),
    [
        ("log-level", "trace", "trace"),
        ("autostart", "false", "false"),
        ("autostart", "on", "true"),
        ("tun", "off", "off"),
        ("capture", "on", "on"),
        ("http-proxy", "127.0.0.1:9999", "127.0.0.1:9999"),
        ("http-proxy", "off", "off"),
        ("socks", "[::1]:1080", "[::1]:1080"),
        ("save-auth-data", "yes", "true"),
        ("users", "root,65534", "0,65534"),
        ("users", "all", "all"),
        ("gateway-sources", "192.0.2.0/24, 2001:db8::/32", "192.0.2.0/24,2001:db8::/32"),
        ("gateway-sources", "none", "none"),
        ("fast", "db.internal,Build cache", "db.internal,Build cache"),
    ],
)
def test_a_setting_is_shown_as_it_can_be_written(key: str, written: str, shown: str) -> None:
    changed = Settings().with_value(key, written)
    assert changed.shown(key) == shown
    assert changed.with_value(key, shown) == changed


@pytest.mark.parametrize(
    ("key", "written", "told"),
    [
        ("log-level", "loud", "no level: 'loud'"),
        ("tun", "maybe", "neither on nor off"),
        ("http-proxy", "9999", "not host:port"),
        ("users", "no-such-user", "no such user: 'no-such-user'"),
        ("users", "4294967296", "not a user id"),
        ("gateway-sources", "192.0.2.1/24", "not a network"),
        ("gateway-sources", "fe80::1%eth0", "names an interface"),
        ("colour", "red", "no setting is called 'colour'"),
    ],
)
def test_a_wrong_value_is_named(key: str, written: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as refused:
        Settings().with_value(key, written)
    assert refused.value.hint


def test_what_is_saved_is_loaded_and_every_setting_has_a_key(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "settings.json"
    assert settings.load(path) == Settings()
    wanted = Settings("debug", False, True, False, "127.0.0.1:1", "127.0.0.1:2", (0, 5), ("192.0.2.0/24",), ("a b",))
    settings.save(path, wanted)
    assert settings.load(path) == wanted
    names = {key.replace("-", "_") for key in (*settings.KEYS, *settings.NETWORKING_KEYS)}
    assert names == set(json.loads(path.read_text()))


def test_a_file_as_containers_mount_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "network-config.json"
    path.write_text('{"http-proxy": "127.0.0.1:9999", "tun": "off"}')
    assert settings.load(path) == Settings(http_proxy="127.0.0.1:9999", tun=False)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"tun": 3}', '{"colour": "red"}', " " * 70_000])
def test_a_file_that_is_not_understood_is_told_and_not_skipped(content: str, tmp_path: Path) -> None:
    (tmp_path / "s").write_text(content)
    with pytest.raises(InvalidInput):
        settings.load(tmp_path / "s")


@given(dictionaries(text(max_size=12), from_type(int | str | bool | None)))
def test_any_object_is_settings_or_an_error(document: dict[str, object]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, suppress(InvalidInput):
        path = Path(folder) / "s"
        path.write_text(json.dumps(document))
        assert isinstance(settings.load(path), Settings)


def test_variables_come_before_the_file_and_klinkets_own_before_others() -> None:
    given_ = {
        "TWINGATE_HTTP_PROXY": "127.0.0.1:1",
        "KLINKET_HTTP_PROXY": "127.0.0.1:2",
        "TWINGATE_TUN": "off",
        "KLINKET_SOCKS": "",
    }
    assert settings.with_environment(Settings(socks="127.0.0.1:3"), given_) == Settings(
        http_proxy="127.0.0.1:2", tun=False, socks="127.0.0.1:3"
    )


@pytest.mark.parametrize("proxy", ["http-proxy", "socks"])
def test_users_do_not_go_together_with_a_proxy_for_all_users(proxy: str) -> None:
    made = Settings().with_value(proxy, "127.0.0.1:9999")
    made.check(has_proxy_token=False)
    made = made.with_value("users", "1000")
    made.check(has_proxy_token=True)
    with pytest.raises(InvalidInput, match=f"{proxy} would serve all users.*`users`") as refused:
        made.check(has_proxy_token=False)
    assert "KLINKET_PROXY_TOKEN" in refused.value.hint
