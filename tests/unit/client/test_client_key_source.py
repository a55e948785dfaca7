"""Where the service key comes from; it stays nowhere else."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from klinket.client.key_source import VARIABLE, KeySource
from klinket.domain.errors import ServiceKeyInvalid
from klinket.wire.key_file import MAX_KEY_FILE_BYTES, KeyFile
from klinket.wire.signing import generate_private_key, private_key_to_pem

PEM = private_key_to_pem(generate_private_key())
KEY = KeyFile("acme.example.com", "11111111-2222-4333-8444-555555555555", "key-1", PEM)


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text(KEY.to_json())
    source = KeySource(str(path))
    assert source.load() == KEY
    assert source.files == [path.resolve()]


def test_a_link_to_a_file_hides_the_file_itself(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text(KEY.to_json())
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    assert KeySource(str(tmp_path / "link.json")).files == [(tmp_path / "real.json").resolve()]


def test_the_variable_is_removed_at_once_and_no_child_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY.to_json())
    source = KeySource(None)
    assert VARIABLE not in os.environ
    child = subprocess.run([sys.executable, "-c", "import os; print(os.environ)"], capture_output=True, text=True, check=True)
    assert VARIABLE not in child.stdout
    assert source.load() == KEY
    assert source.files == []


def test_the_variable_is_removed_even_when_a_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "something else")
    path = tmp_path / "key.json"
    path.write_text(KEY.to_json())
    assert KeySource(str(path)).load() == KEY
    assert VARIABLE not in os.environ


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(KEY.to_json().encode())))
    source = KeySource("-")
    assert source.files == []
    assert source.load() == KEY


def test_no_key_says_how_to_give_one() -> None:
    with pytest.raises(ServiceKeyInvalid) as caught:
        KeySource(None).load()
    assert VARIABLE in caught.value.hint
    assert "--key-file" in caught.value.hint


def test_a_missing_file_or_a_folder_is_told(tmp_path: Path) -> None:
    source = KeySource(str(tmp_path / "gone.json"))
    assert source.files == []
    with pytest.raises(ServiceKeyInvalid, match=r"gone\.json cannot be read"):
        source.load()
    with pytest.raises(ServiceKeyInvalid, match="cannot be read"):
        KeySource(str(tmp_path)).load()


@pytest.mark.parametrize("content", [b"", b"{", b"\x00" * 100, b"{}", b"x" * (MAX_KEY_FILE_BYTES + 10)])
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.json"
    path.write_bytes(content)
    with pytest.raises(ServiceKeyInvalid, match="key file"):
        KeySource(str(path)).load()


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(ServiceKeyInvalid, match="larger"):
        KeySource("/dev/zero").load()
