"""A command of `klinket run` gets no open file but those it was meant to: not the key, and no way past the capture."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from examples.deployment import clean_environment
from tests.integration.conftest import Loopback

pytestmark = [pytest.mark.alone, pytest.mark.timeout(180)]

CAPTURES = pytest.mark.parametrize("capture", ["namespace", "proxy"])
PRIVATE = "PRIVATE KEY"


def run(
    world: Loopback,
    capture: str,
    script: str,
    *,
    before: str = "",
    after: str = "",
    key: str | None = None,
    options: Sequence[str] = (),
    pass_fds: Sequence[int] = (),
) -> subprocess.CompletedProcess[str]:
    """Run a shell script as the command; `before`, `after`: shell text around klinket's own command line."""
    line = world.deployment.run_command(world.key, "sh", "-c", "$SCRIPT", options=["--capture", capture, *options])
    line[line.index(str(world.key))] = key or str(world.key)
    quoted = " ".join(f'"{word}"' for word in line)
    done = subprocess.run(
        ["bash", "-c", f"{before}\n{quoted} {after}"],
        capture_output=True,
        text=True,
        timeout=60,
        pass_fds=pass_fds,
        env={**clean_environment(), "SCRIPT": script, "KEY": str(world.key)},
    )
    if "capture-impossible" in done.stderr:
        pytest.skip("this host has no namespaces for users")
    return done


@CAPTURES
@pytest.mark.parametrize("key", [None, "/dev/fd/3"])
def test_an_inherited_descriptor_of_the_key_file_is_closed(loopback: Loopback, capture: str, key: str | None) -> None:
    done = run(loopback, capture, "cat <&3; ls /proc/self/fd; echo went on", before=f"exec 3<{loopback.key}", key=key)
    assert PRIVATE not in done.stdout + done.stderr
    assert done.stdout.split() == ["0", "1", "2", "3", "went", "on"]  # 3: the listing itself


@CAPTURES
def test_a_key_on_standard_input_cannot_be_read_again(loopback: Loopback, capture: str) -> None:
    script = "exec 2>&1; python3 -c 'import os; os.lseek(0, 0, 0)'; cat; cat /proc/self/fd/0; echo went on"
    for key, redirect in (("-", f"<{loopback.key}"), (str(loopback.key), f"<{loopback.key}")):
        done = run(loopback, capture, script, after=redirect, key=key)
        assert PRIVATE not in done.stdout + done.stderr
        assert done.stdout.endswith("went on\n")


@CAPTURES
def test_a_key_from_a_pipe_cannot_be_read_again(loopback: Loopback, capture: str) -> None:
    done = run(loopback, capture, "cat <&9; echo went on", key="/dev/fd/9", before=f"exec 9< <(cat {loopback.key})")
    assert PRIVATE not in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr


@CAPTURES
def test_an_inherited_connection_does_not_lead_past_the_capture(loopback: Loopback, capture: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as ours:
        theirs = server.accept()[0]
        theirs.settimeout(1)
        done = run(
            loopback, capture, "echo past it >&7; echo went on", before=f"exec 7>&{ours.fileno()}", pass_fds=[ours.fileno()]
        )
        assert done.stdout == "went on\n", done.stderr
        ours.close()
        assert theirs.recv(10) == b""
        theirs.close()


@CAPTURES
def test_a_descriptor_is_passed_when_it_was_asked_for(loopback: Loopback, capture: str, tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("a job\n")
    done = run(loopback, capture, "cat <&7", before=f"exec 7<{tmp_path}/jobs", options=["--pass-fd", "7"])
    assert done.stdout == "a job\n", done.stderr


@pytest.mark.parametrize(
    ("before", "word"),
    [
        ("exec 7<$KEY", "the key file"),
        ("exec 7<>/dev/tcp/127.0.0.1/$PORT", "network socket"),
        ("exec 7</", "a directory"),
        ("exec 7<&-", "not open"),
    ],
)
def test_what_must_not_be_passed_is_refused(loopback: Loopback, before: str, word: str) -> None:
    before = before.replace("$PORT", str(loopback.deployment.port))
    done = run(loopback, "proxy", "echo ran", before=before, options=["--pass-fd", "7"])
    assert word in done.stderr
    assert done.stdout == ""
    assert done.returncode not in (0, 1)


def test_hard_links_and_a_readable_key_are_told(loopback: Loopback) -> None:
    link = Path(f"{loopback.key}.link")
    os.link(loopback.key, link)
    try:
        assert "hard links" in run(loopback, "namespace", "true").stderr
    finally:
        link.unlink()
    assert "hard links" not in run(loopback, "namespace", "true").stderr
    told = run(loopback, "proxy", "true").stderr
    assert f"can read the key file {loopback.key}" in told
    assert "KLINKET_SERVICE_KEY" in told
