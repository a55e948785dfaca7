"""What `klinket config` keeps in settings.json: few things, each with a rule. The key itself names the network."""

from __future__ import annotations

import ipaddress
import json
import os
import pwd
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from klinket.domain.errors import InvalidInput
from klinket.net.files import replace_private
from klinket.net.sockets import HostPort

#: Bytes of the settings file that are read at the most.
MAX_SETTINGS_BYTES = 65_536
#: As `klinket config log-level` takes them, and what Python's logging calls them.
LEVELS = {"error": "error", "warn": "warning", "warning": "warning", "info": "info", "debug": "debug", "trace": "debug"}
_SWITCH = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}


@dataclass(frozen=True, slots=True)
class Settings:
    """`tun`: capture the machine's traffic; `http_proxy`, `socks`: HOST:PORT to listen on, or "".

    `autostart`: start with the machine. `users`: ids of the users whose traffic is captured, none: of all. `gateway_sources`:
    networks whose machines use this one as their gateway. `fast`: resources whose connects are accepted at once, `*`: all.
    """

    log_level: str = "info"
    autostart: bool = True
    save_auth_data: bool = False
    tun: bool = True
    http_proxy: str = ""
    socks: str = ""
    users: tuple[int, ...] = ()
    gateway_sources: tuple[str, ...] = ()
    fast: tuple[str, ...] = ()

    def with_value(self, key: str, text: str) -> Settings:
        """Return settings with one changed, as people write it; raises InvalidInput that names the key."""
        name, parse = _entry(key)
        value = parse(key, text.strip())
        return replace(self, **{name: value})  # type: ignore[arg-type]  # the table pairs each field with its parser

    def check(self, *, has_proxy_token: bool) -> None:
        """Raise InvalidInput for settings that contradict each other: every user of the machine reaches a proxy on loopback."""
        proxies = [name for name, address in (("http-proxy", self.http_proxy), ("socks", self.socks)) if address]
        if self.users and proxies and not has_proxy_token:
            raise InvalidInput(
                "users",
                f"{' and '.join(proxies)} would serve all users of this machine, and `users` allows some only",
                hint="give the daemon a token that programs must show, in KLINKET_PROXY_TOKEN; "
                f"or klinket config networking {' '.join(f'{name}=off' for name in proxies)}, or users=all",
            )

    def shown(self, key: str) -> str:
        """Return a setting as it is written; raises InvalidInput."""
        name, _ = _entry(key)
        value = getattr(self, name)
        if isinstance(value, tuple):
            return ",".join(map(str, value)) or _NONE.get(name, "none")
        if isinstance(value, bool):
            return ("on" if value else "off") if name == "tun" else str(value).lower()
        return str(value) or "off"

    def document(self, *keys: str) -> dict[str, object]:
        """Return settings as the file has them: by their names there; raises InvalidInput."""
        return {name: getattr(self, name) for name, _ in map(_entry, keys)}


def _switch(key: str, text: str) -> bool:
    if text.lower() not in _SWITCH:
        raise InvalidInput(key, f"neither on nor off: {text[:40]!r}", hint="write on or off, or true or false")
    return _SWITCH[text.lower()]


def _address(key: str, text: str) -> str:
    if text.lower() in ("", "off", "none"):
        return ""
    try:
        return str(HostPort.parse(text))
    except InvalidInput as error:
        raise InvalidInput(key, error.message, hint="write HOST:PORT on loopback, for example 127.0.0.1:9999, or off") from None


def _level(key: str, text: str) -> str:
    if text not in LEVELS:
        raise InvalidInput(key, f"no level: {text[:40]!r}", hint=f"one of {', '.join(LEVELS)}")
    return text


def _words(text: str) -> list[str]:
    return [] if text.lower() in ("", "off", "none", "all") else [word.strip() for word in text.split(",") if word.strip()]


def _users(key: str, text: str) -> tuple[int, ...]:
    found = []
    for word in _words(text):
        try:
            found.append(int(word) if word.isascii() and word.isdigit() else pwd.getpwnam(word).pw_uid)
        except KeyError:
            raise InvalidInput(key, f"no such user: {word[:40]!r}", hint="names or ids with commas between, or all") from None
        if found[-1] >= 2**32:
            raise InvalidInput(key, f"not a user id: {word[:40]!r}", hint="names or ids with commas between, or all")
    return tuple(found)


def _networks(key: str, text: str) -> tuple[str, ...]:
    try:
        for word in (words := _words(text)):
            if "%" in word:  # Python takes whatever follows it
                raise ValueError(f"{word[:80]!r} names an interface")
        return tuple(str(ipaddress.ip_network(word)) for word in words)
    except ValueError as error:
        raise InvalidInput(
            key, f"not a network: {error}", hint="for example 192.0.2.0/24, with commas between, or none"
        ) from None


def _resources(_: str, text: str) -> tuple[str, ...]:
    return tuple(_words(text))


#: How an empty list is shown, where it does not mean none.
_NONE = {"users": "all"}
#: Field and parser of each key.
_KEYS: dict[str, tuple[str, Callable[[str, str], object]]] = {
    "log-level": ("log_level", _level),
    "autostart": ("autostart", _switch),
    "save-auth-data": ("save_auth_data", _switch),
    "http-proxy": ("http_proxy", _address),
    "socks": ("socks", _address),
    "tun": ("tun", _switch),
    "capture": ("tun", _switch),
    "users": ("users", _users),
    "gateway-sources": ("gateway_sources", _networks),
    "fast": ("fast", _resources),
}
#: What `klinket config` shows, and what `klinket config networking` does.
KEYS = ("log-level", "autostart", "save-auth-data")
NETWORKING_KEYS = ("http-proxy", "socks", "tun", "users", "gateway-sources", "fast")


def _entry(key: str) -> tuple[str, Callable[[str, str], object]]:
    if key not in _KEYS:
        hint = f"there are network, {', '.join(KEYS)}, and networking with {', '.join(NETWORKING_KEYS)}"
        raise InvalidInput("config", f"no setting is called {key[:40]!r}", hint=hint)
    return _KEYS[key]


def load(path: Path, settings: Settings | None = None) -> Settings:
    """Return `settings` (or the defaults) with what the file says, if there is one; raises InvalidInput."""
    settings = settings or Settings()
    try:
        with path.open("rb") as file:
            text = file.read(MAX_SETTINGS_BYTES + 1)
    except FileNotFoundError:
        return settings
    hint = "correct the file, or remove it: klinket config writes a new one"
    if len(text) > MAX_SETTINGS_BYTES:
        raise InvalidInput("settings", f"{path} is larger than {MAX_SETTINGS_BYTES} bytes", hint=hint)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise InvalidInput("settings", f"{path} is not a JSON object", hint=hint)
    for name, value in document.items():
        word = ("on" if value else "off") if isinstance(value, bool) else value
        if isinstance(value, list) and all(isinstance(one, str | int) for one in value):
            word = ",".join(map(str, value))
        if not isinstance(word, str):
            raise InvalidInput(name[:40], f"in {path}: neither a text nor true or false", hint=hint)
        settings = settings.with_value(name.replace("_", "-"), word)
    return settings


def make_folder(path: Path) -> None:
    """Make the folder of settings and key, which every user may look into: the key itself is for its owner. Raises OSError."""
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o755)


def save(path: Path, settings: Settings) -> None:
    """Replace the file; raises OSError."""
    make_folder(path.parent)
    replace_private(path, json.dumps(asdict(settings), indent=2).encode() + b"\n", mode=0o644)


def with_environment(settings: Settings, environment: Mapping[str, str] | None = None) -> Settings:
    """Return settings with what the variables say; each has a name of klinket's own and one that scripts know from elsewhere."""
    given = os.environ if environment is None else environment
    for key, names in (
        ("http-proxy", ("KLINKET_HTTP_PROXY", "TWINGATE_HTTP_PROXY")),
        ("socks", ("KLINKET_SOCKS",)),
        ("tun", ("KLINKET_TUN", "TWINGATE_TUN")),
        ("log-level", ("KLINKET_LOG_LEVEL",)),
    ):
        text = next((given[name] for name in names if given.get(name)), None)
        if text is not None:
            settings = settings.with_value(key, text)
    return settings
