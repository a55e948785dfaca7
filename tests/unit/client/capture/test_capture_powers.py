"""Programs whose powers have no effect inside a namespace are known before they are run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("namespaces are there on Linux only", allow_module_level=True)

from klinket.client.capture.namespace.inside import powers_of


@pytest.mark.parametrize(
    ("mode", "powers"), [(0o4755, "setuid"), (0o2755, "setgid"), (0o2644, ""), (0o755, ""), (0o6755, "setuid")]
)
def test_a_setuid_or_setgid_program_is_told_apart(tmp_path: Path, mode: int, powers: str) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(mode)
    assert powers_of(str(program), "") == powers
    if mode & 0o111:
        assert powers_of("program", str(tmp_path)) == powers


def test_a_program_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert powers_of("nobody-has-this", str(tmp_path)) == ""
