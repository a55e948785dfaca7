"""A private file is replaced as a whole or not at all, and nobody else can read it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from klinket.net.files import replace_private


@pytest.fixture
def open_umask():  # type: ignore[no-untyped-def]
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o400])
def test_the_file_has_exactly_the_mode_asked_for_whatever_the_umask(tmp_path: Path, open_umask: None, mode: int) -> None:
    replace_private(tmp_path / "key.pem", b"secret", mode)
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == mode
    assert (tmp_path / "key.pem").read_bytes() == b"secret"


def test_what_was_there_is_replaced_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(b"the old content, and longer")
    path.chmod(0o644)
    replace_private(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_a_failure_keeps_the_old_content_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "inside").touch()
    with pytest.raises(OSError):
        replace_private(tmp_path / "taken", b"new")  # a folder is there: the last step fails
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]
    assert (tmp_path / "taken" / "inside").exists()


def test_a_leftover_of_a_killed_writer_does_not_stand_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "key.new").write_bytes(b"half")
    (tmp_path / ".key.new").write_bytes(b"half")
    replace_private(tmp_path / "key", b"whole")
    assert (tmp_path / "key").read_bytes() == b"whole"


def test_content_and_name_are_on_disk_before_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    replace_private(tmp_path / "key", b"content")
    assert synced == [False, True], "first the file, then the folder that holds its name"
