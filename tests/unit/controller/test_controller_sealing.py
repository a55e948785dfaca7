"""The master key: three sources, in order; private, whole, and the one that sealed the database."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.controller import sealing
from klinket.controller.sealing import MASTER_KEY_BYTES, MasterKey, MasterKeyWrong

ONE, OTHER, THIRD = ("11" * 32, "22" * 32, "33" * 32)


def opens(master: MasterKey, text: str) -> bool:
    return MasterKey(bytes.fromhex(text)).open(master.seal(b"secret", "test"), "test") == b"secret"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.delenv("KLINKET_MASTER_KEY", raising=False)
    return tmp_path / "keys" / "master.key"


def written(path: Path, text: str, mode: int = 0o600) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def test_a_credential_comes_before_the_variable_and_that_before_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(path, THIRD)
    assert opens(sealing.load_or_make(path), THIRD)
    monkeypatch.setenv("KLINKET_MASTER_KEY", OTHER)
    assert opens(sealing.load_or_make(path), OTHER)
    folder = path.parent.parent / "credentials"
    written(folder / "klinket-master-key", ONE + "\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    monkeypatch.setenv("KLINKET_MASTER_KEY", OTHER)
    assert opens(sealing.load_or_make(path), ONE)


def test_a_folder_of_credentials_without_ours_is_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(path.parent.parent))
    written(path, ONE)
    assert opens(sealing.load_or_make(path), ONE)


def test_the_variable_is_taken_away_so_that_no_child_inherits_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLINKET_MASTER_KEY", ONE)
    sealing.load_or_make(path)
    assert "KLINKET_MASTER_KEY" not in os.environ
    assert not path.exists()


def test_a_missing_file_is_made_private_and_stays_the_same(path: Path) -> None:
    master = sealing.load_or_make(path)
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text().strip()
    assert len(bytes.fromhex(text)) == MASTER_KEY_BYTES
    assert opens(master, text)
    assert opens(sealing.load_or_make(path), text)
    assert [one.name for one in path.parent.iterdir()] == ["master.key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601])
def test_a_file_that_others_can_read_or_write_is_refused(path: Path, mode: int) -> None:
    written(path, ONE, mode)
    with pytest.raises(MasterKeyWrong, match="readable by others") as caught:
        sealing.load_or_make(path)
    assert "chmod 600" in caught.value.hint


@pytest.mark.parametrize("text", ["", "11", ONE[:-1], ONE + "11", "zz" * 32, ONE[:-1] + "١"])
def test_what_is_not_64_hexadecimal_digits_is_refused_and_not_shown(path: Path, text: str) -> None:
    written(path, text)
    with pytest.raises(MasterKeyWrong) as caught:
        sealing.load_or_make(path)
    assert ONE[:10] not in str(caught.value)


def test_a_key_shows_nothing_of_itself() -> None:
    assert ONE not in repr(MasterKey(bytes.fromhex(ONE)))
    assert "17" not in repr(MasterKey(bytes.fromhex(ONE)))  # bytes 0x11


@given(st.binary(max_size=200))
def test_anything_that_was_not_sealed_is_refused(sealed: bytes) -> None:
    with pytest.raises(MasterKeyWrong):
        MasterKey(bytes.fromhex(ONE)).open(sealed, "test")


def test_a_secret_opens_with_its_key_as_what_it_is_and_no_other_way() -> None:
    master = MasterKey(bytes.fromhex(ONE))
    sealed = master.seal(b"secret", "authority client")
    assert b"secret" not in sealed
    assert master.open(sealed, "authority client") == b"secret"
    assert master.seal(b"secret", "authority client") != sealed
    for other, what in ((master, "authority connector"), (MasterKey(bytes.fromhex(OTHER)), "authority client")):
        with pytest.raises(MasterKeyWrong):
            other.open(sealed, what)
