"""Access without capture: `klinket forward`, `klinket ssh-proxy` with a real ssh, and proxies with a token."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from examples.deployment import clean_environment, free_port
from tests.integration.conftest import ECHO_NAME, Loopback
from tests.integration.test_bad_input import REFUSING
from tests.integration.test_run_endings import sessions
from tests.integration.watched import wait_until

pytestmark = pytest.mark.timeout(120)

SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin")
SSH_ADDRESS = "127.77.0.41"
SSH_NAME = "git.internal"


def klinket(*words: str) -> list[str]:
    return [sys.executable, "-m", "klinket", *words]


@contextmanager
def forwarding(world: Loopback, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run `klinket forward`, and end it with SIGTERM."""
    process = subprocess.Popen(
        klinket("forward", "--key-file", str(world.key), *words),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment(),
    )  # fmt: skip
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    finally:
        process.kill()
        process.wait()


def test_a_forward_says_where_it_listens_and_carries(loopback: Loopback) -> None:
    local = free_port()
    with forwarding(loopback, f"{ECHO_NAME}:{loopback.echo_port}", str(local)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"127.0.0.1:{local} -> {ECHO_NAME}:{loopback.echo_port}\n"
        with socket.create_connection(("127.0.0.1", local), timeout=20) as connection:
            loopback.echo(connection)
    assert process.returncode == 0


def test_a_forward_tells_scripts_in_json(loopback: Loopback) -> None:
    asked = f"Echo:{loopback.echo_port}"
    with forwarding(loopback, "--json", asked, "0") as process:
        assert process.stdout is not None
        (row,) = json.loads(process.stdout.readline())
    assert row["listen"].startswith("127.0.0.1:")
    assert (row["resource"], row["asked"], row["port"]) == ("Echo", asked, loopback.echo_port)


def test_a_forward_of_what_is_not_granted_ends_with_68(loopback: Loopback) -> None:
    with forwarding(loopback, "other.internal:80") as process:
        process.wait(60)
    assert process.returncode == 68
    assert process.stderr is not None
    assert process.stderr.readline().startswith("klinket: not-granted: ")


def test_a_forward_to_a_port_that_is_not_granted_ends_with_68_before_it_listens(loopback: Loopback) -> None:
    loopback.grant("ci", "Narrow", "narrow.internal", "--tcp", "5432")
    with forwarding(loopback, "narrow.internal:5433", "0") as process:
        process.wait(60)
    assert process.returncode == 68
    assert process.stderr is not None
    assert "does not open tcp port 5433" in process.stderr.readline()


@pytest.fixture(scope="module")
def ssh_config(loopback: Loopback, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start an ssh server for root, which is granted as SSH_NAME, and return a configuration of ssh as the how-to has it."""
    if SSHD is None or os.geteuid() != 0 or shutil.which("ssh") is None or shutil.which("unshare") is None:
        pytest.skip("needs root, ssh and sshd")
    folder = tmp_path_factory.mktemp("ssh")
    port = free_port(SSH_ADDRESS)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    (folder / "sshd_config").write_text(
        f"ListenAddress {SSH_ADDRESS}\nPort {port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        "PermitRootLogin prohibit-password\nStrictModes no\nUsePAM no\nPidFile none\nSubsystem sftp internal-sftp\n"
    )
    # Its folder below /run is its own: this machine's stays as it is.
    inner = f"mount -t tmpfs none /run && mkdir /run/sshd && exec {SSHD} -D -e -f {folder}/sshd_config"
    server = subprocess.Popen(["unshare", "--mount", "sh", "-c", inner], stderr=(folder / "log").open("w"))
    loopback.grant("ci", "Git", SSH_ADDRESS, "--alias", SSH_NAME, "--tcp", str(port))
    proxy = " ".join(klinket("ssh-proxy", "--key-file", str(loopback.key), "%h", "%p"))
    (folder / "ssh_config").write_text(
        f"Host *.internal\n  ProxyCommand {proxy}\n  Port {port}\n  User root\n  IdentityFile {folder}/user\n  BatchMode yes\n"
        f"  UserKnownHostsFile {folder}/known\n  StrictHostKeyChecking accept-new\n  IdentitiesOnly yes\n"
    )
    deadline = time.monotonic() + 20
    while "listening" not in (folder / "log").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    try:
        yield folder / "ssh_config"
    finally:
        server.terminate()
        server.wait()


def ssh(program: str, config: Path, *words: str, input: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    environment = {**clean_environment(), "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([program, "-F", config, *words], input=input, capture_output=True, timeout=60, env=environment)


def test_ssh_runs_a_command_with_its_input_and_exit_code(ssh_config: Path) -> None:
    content = os.urandom(1_000_000)
    done = ssh("ssh", ssh_config, SSH_NAME, "cat; exit 23", input=content)
    assert (done.returncode, done.stdout == content) == (23, True), done.stderr


def test_scp_copies_a_file(ssh_config: Path, tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(os.urandom(3_000_000))
    done = ssh("scp", ssh_config, str(tmp_path / "sent"), f"{SSH_NAME}:{tmp_path}/received")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "received").read_bytes() == (tmp_path / "sent").read_bytes()


def test_ssh_leaves_no_session_behind(loopback: Loopback, ssh_config: Path) -> None:
    for _ in range(3):
        assert ssh("ssh", ssh_config, SSH_NAME, "true").returncode == 0
    kid = json.loads(loopback.key.read_text())["key_id"]
    # The client of the module has one.
    wait_until(lambda: sessions(loopback, kid) == 1, f"{sessions(loopback, kid)} sessions live")


def test_ssh_to_what_is_not_granted_says_so(ssh_config: Path) -> None:
    done = ssh("ssh", ssh_config, "other.internal", "true")
    assert done.returncode == 255
    assert b"klinket: not-granted: " in done.stderr


def test_ssh_proxy_ends_with_the_code_of_what_happened(loopback: Loopback) -> None:
    loopback.grant("ci", "Refuses", REFUSING)
    command = klinket("ssh-proxy", "--key-file", str(loopback.key), REFUSING, "22")
    done = subprocess.run(command, input=b"", capture_output=True, timeout=60, env=clean_environment())
    assert (done.returncode, done.stdout) == (71, b""), done.stderr
    assert done.stderr.startswith(b"klinket: refused: ")


def test_the_key_of_ssh_proxy_never_comes_from_what_is_carried(loopback: Loopback) -> None:
    command = klinket("ssh-proxy", "--key-file", "-", ECHO_NAME, "22")
    done = subprocess.run(command, input=loopback.key.read_bytes(), capture_output=True, timeout=60, env=clean_environment())
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_a_proxy_beyond_loopback_serves_who_shows_its_token(loopback: Loopback, tmp_path: Path) -> None:
    token, port = "an-example-of-a-token", free_port()
    environment = {**clean_environment(), "TWINGATE_HTTP_PROXY": f"0.0.0.0:{port}", "TWINGATE_TUN": "off"}
    command = klinket("client", "--key-file", str(loopback.key))
    without = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert without.returncode == 2
    assert "--proxy-token-file" in without.stderr
    process = subprocess.Popen(command, env={**environment, "KLINKET_PROXY_TOKEN": token}, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        while "online: " not in (line := process.stderr.readline()):
            assert line, "the client ended"

        def curl(user: str) -> str:
            url = f"http://{ECHO_NAME}:{loopback.echo_port}/"
            word = ["curl", "-s", "-m", "20", "-p", "-x", f"http://{user}127.0.0.1:{port}", "-o", tmp_path / "out"]
            done = subprocess.run([*word, "-w", "%{http_connect}", url], capture_output=True, text=True, timeout=60, env={})
            return done.stdout

        assert curl("") == "407"
        assert curl("job:wrong-and-long-enough@") == "407"
        assert curl(f"job:{token}@") == "200"
    finally:
        process.terminate()
        process.wait(20)


def test_capture_of_the_machine_is_refused_and_not_left_out(loopback: Loopback) -> None:
    environment = {**clean_environment(), "TWINGATE_TUN": "on"}
    command = klinket("client", "--key-file", str(loopback.key), "--http-proxy", "127.0.0.1:0")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 75, done.stderr
