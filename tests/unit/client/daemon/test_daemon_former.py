"""What was granted before a restart stays klinket's until the daemon is online again."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from klinket.client.daemon import former
from klinket.client.daemon.sessions import Sessions
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import Destination, TransportProtocol
from tests.unit.client.conftest import granted


def kept(path: Path) -> Path:
    former.keep(path, [granted(1, "db.internal"), granted(2, "*.prod.internal"), granted(3, "10.0.0.0/24", None)])
    return path


def test_what_is_kept_is_for_its_owner_only_and_read_back(tmp_path: Path) -> None:
    path = kept(tmp_path / "granted.json")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = former.read(path)
    assert [found.lookup(host) is not None for host in ("db.internal", "a.prod.internal", "10.0.0.9", "example.com")] == [
        True, True, True, False,
    ]  # fmt: skip
    former.forget(path)
    assert former.read(path).lookup("db.internal") is None
    former.forget(path)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff", b'[{"id": 1}]', b'[{"id":1,"name":"x","address":"","remote_network":1}]']
)
def test_what_cannot_be_read_is_nothing_and_no_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "granted.json"
    path.write_bytes(content)
    assert former.read(path).lookup("db.internal") is None


def test_a_disk_that_takes_nothing_stops_nothing(tmp_path: Path) -> None:
    former.keep(tmp_path / "missing" / "granted.json", [granted(1, "db.internal")])


async def test_before_the_first_session_former_names_are_claimed_and_not_dialled(tmp_path: Path) -> None:
    sessions = Sessions(lambda: None, former.read(kept(tmp_path / "granted.json")))
    assert sessions.claims("db.internal")
    with pytest.raises(FlowRefused):
        sessions.claims("example.com")
    with pytest.raises(FlowRefused):
        await sessions.open_stream(Destination("db.internal", 5432, TransportProtocol.TCP))
    await sessions.aclose()
