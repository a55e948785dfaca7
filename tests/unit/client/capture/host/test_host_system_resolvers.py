"""The system's resolvers, in the layouts in which Linux systems keep them, and as they change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klinket.client.capture.host import system_resolvers
from klinket.client.capture.host.addresses import STUBS
from klinket.client.capture.host.system_resolvers import SystemResolvers


class Etc:
    """A file system with the files a machine has."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.resolv_conf = root / "etc/resolv.conf"
        self.resolved = root / "run/systemd/resolve/resolv.conf"
        self.network_manager = root / "run/NetworkManager/no-stub-resolv.conf"
        for path in (self.resolv_conf, self.resolved, self.network_manager, self.resolvconf):
            path.parent.mkdir(parents=True)

    @property
    def resolvconf(self) -> Path:
        return self.root / "run/resolvconf/resolv.conf"

    def seen(self) -> SystemResolvers:
        made = SystemResolvers([self.resolv_conf, self.resolved, self.network_manager, self.resolvconf])
        assert made.look()
        return made


@pytest.fixture
def etc(tmp_path: Path) -> Etc:
    return Etc(tmp_path)


def captured(found: SystemResolvers) -> set[str]:
    assert found.captured >= set(STUBS)
    return set(found.captured) - set(STUBS)


def test_a_plain_file(etc: Etc) -> None:
    etc.resolv_conf.write_text("# made by hand\nsearch example\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n")
    found = etc.seen()
    assert found.of_libc == ("192.0.2.1", "2001:db8::1")
    assert captured(found) == {"192.0.2.1", "2001:db8::1"}


def test_systemd_resolved_behind_its_stub(etc: Etc) -> None:
    stub = etc.resolved.with_name("stub-resolv.conf")
    stub.write_text("nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch example\n")
    etc.resolved.write_text("nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch example\n")
    etc.resolv_conf.symlink_to(stub)
    found = etc.seen()
    assert found.of_libc == ("127.0.0.53",)
    assert captured(found) == {"127.0.0.53", "192.0.2.1", "192.0.2.2"}, "what it asks itself is captured as well"


def test_networkmanager_with_a_resolver_of_its_own(etc: Etc) -> None:
    target = etc.network_manager.with_name("resolv.conf")
    target.write_text("nameserver 127.0.0.1\n")
    etc.network_manager.write_text("nameserver 192.0.2.9\n")
    etc.resolv_conf.symlink_to(target)
    assert captured(etc.seen()) == {"127.0.0.1", "192.0.2.9"}


def test_resolvconf(etc: Etc) -> None:
    etc.resolvconf.write_text("nameserver 192.0.2.5\n")
    etc.resolv_conf.symlink_to(etc.resolvconf)
    found = etc.seen()
    assert found.of_libc == ("192.0.2.5",)
    assert captured(found) == {"192.0.2.5"}


@pytest.mark.parametrize("text", [None, "", "search example\n", "nameserver\n", "nameserver not-an-address\n"])
def test_without_a_resolver_the_c_librarys_own_default_is_captured(etc: Etc, text: str | None) -> None:
    if text is not None:
        etc.resolv_conf.write_text(text)
    found = etc.seen()
    assert found.of_libc == ("127.0.0.1",)
    assert captured(found) == {"127.0.0.1"}


def test_a_dangling_link_is_no_resolver(etc: Etc) -> None:
    etc.resolv_conf.symlink_to(etc.root / "nowhere")
    assert etc.seen().of_libc == ("127.0.0.1",)


def test_a_resolver_of_a_link_is_asked_past_klinket(etc: Etc) -> None:
    etc.resolv_conf.write_text("nameserver fe80::1%eth0\nnameserver 192.0.2.1\n")
    assert captured(etc.seen()) == {"192.0.2.1"}


def test_the_stub_is_never_asked_by_itself(etc: Etc) -> None:
    etc.resolv_conf.write_text(f"nameserver {STUBS[0]}\nnameserver 192.0.2.1\n")
    assert etc.seen().of_libc == ("192.0.2.1",)


def test_changes_are_followed_however_they_are_made(etc: Etc) -> None:
    etc.resolv_conf.write_text("nameserver 192.0.2.1\n")
    found = etc.seen()
    assert not found.look()
    new = etc.resolv_conf.with_name("new")
    new.write_text("nameserver 192.0.2.2\n")
    os.replace(new, etc.resolv_conf)
    assert found.look()
    assert found.of_libc == ("192.0.2.2",)
    etc.resolvconf.write_text("nameserver 192.0.2.3\n")
    etc.resolv_conf.unlink()
    etc.resolv_conf.symlink_to(etc.resolvconf)
    assert found.look()
    assert found.of_libc == ("192.0.2.3",)
    etc.resolvconf.write_text("nameserver 192.0.2.44\n")
    assert found.look()
    assert found.of_libc == ("192.0.2.44",)
    etc.resolv_conf.unlink()
    found.look()
    assert found.of_libc == ("127.0.0.1",)
    etc.resolv_conf.write_text("nameserver 127.0.0.1\n")
    assert not found.look(), "another file, the same resolvers"


def test_resolvers_are_bounded(etc: Etc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system_resolvers, "MAX_SYSTEM_RESOLVERS", 3)
    etc.resolv_conf.write_text("".join(f"nameserver 192.0.2.{n}\n" for n in range(1, 20)))
    assert captured(etc.seen()) == {"192.0.2.1", "192.0.2.2", "192.0.2.3"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=300))
def test_any_file_is_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "resolv.conf"
    path.write_bytes(content)
    made = SystemResolvers([path])
    made.look()
    assert made.of_libc
