"""The texts that the console offers with a new key do what they say, with a real klinket."""

from __future__ import annotations

import base64
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from examples.deployment import clean_environment, free_port
from klinket.controller.console.team.services.snippets import VARIABLE, Snippet, file_name, snippets
from tests.integration.conftest import ECHO_NAME, Loopback, dial_socks

pytestmark = [pytest.mark.alone, pytest.mark.timeout(120)]

#: Stands for the job: reaches the echo service directly where klinket captures, else over the proxy that klinket names.
JOB = """#!{python}
import os, socket, sys
sys.path.insert(0, {root!r})
from tests.integration.conftest import dial_socks
proxy = os.environ.get("ALL_PROXY", "")
if proxy:
    host, _, port = proxy.rpartition("/")[2].rpartition(":")
    connection = dial_socks((host, int(port)), {name!r}, {port})
else:
    connection = socket.create_connection(({name!r}, {port}), 20)
connection.sendall(b"reached")
print(connection.recv(100).decode(), "with the key" if "{variable}" in os.environ else "without the key")
"""


@pytest.fixture
def folder(loopback: Loopback, tmp_path: Path) -> Path:
    """A folder with the downloaded key, and a job that reaches the resource."""
    (tmp_path / file_name("ci")).write_text(loopback.key.read_text())
    root = str(Path(__file__).parents[2])
    text = JOB.format(python=sys.executable, root=root, name=ECHO_NAME, port=loopback.echo_port, variable=VARIABLE)
    job = tmp_path / "your-command"
    job.write_text(text)
    job.chmod(0o755)
    return tmp_path


def snippet(id: str) -> Snippet:
    return next(one for one in snippets("ci") if one.id == id)


def run(script: str, folder: Path, **environment: str) -> str:
    """Run a script as a shell does; returns what it has printed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, capture_output=True, text=True, timeout=60,
        stdin=subprocess.DEVNULL, env={**clean_environment(), "PATH": path, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def line_of(id: str, begin: str) -> str:
    """Return the one line of a snippet that begins so, without that beginning."""
    (line,) = [line.strip() for line in snippet(id).text.splitlines() if line.strip().startswith(begin)]
    return line.removeprefix(begin).strip()


def test_the_shell_reaches_the_resource_as_the_text_stands(folder: Path) -> None:
    assert run(snippet("shell").text, folder) == "reached without the key"
    assert (folder / "ci.json").stat().st_mode & 0o777 == 0o600


def test_github_gives_the_whole_file_as_a_secret(folder: Path) -> None:
    assert VARIABLE in line_of("github", f"{VARIABLE}:")
    key = (folder / "ci.json").read_text()
    command = "klinket run " + line_of("github", "- run: klinket run")
    assert run(command, folder, **{VARIABLE: key}) == "reached without the key"


def test_gitlab_gives_it_on_one_line(folder: Path) -> None:
    told = line_of("gitlab", f"# {VARIABLE}: a masked variable with the output of:")
    key = run(told, folder)
    assert "\n" not in key
    assert base64.b64decode(key) == (folder / "ci.json").read_bytes()
    command = "klinket run " + line_of("gitlab", "- klinket run")
    assert run(command, folder, **{VARIABLE: key}) == "reached without the key"


def test_docker_is_given_it_by_name_so_that_no_list_of_processes_shows_it(folder: Path) -> None:
    export, command = snippet("docker").text.replace("\\\n", "").strip().splitlines()
    words = shlex.split(command)
    assert words[words.index("-e") + 1] == VARIABLE
    inside = shlex.join(words[words.index("my-image") + 1 :])
    assert run(f"{export}\n{inside}", folder) == "reached without the key"


@pytest.mark.parametrize(
    ("id", "begin", "place"), [("kubernetes", "command:", "/run/klinket/key.json"), ("systemd", "ExecStart=", "%d/key")]
)
def test_containers_and_units_read_the_file_where_it_is_put(folder: Path, id: str, begin: str, place: str) -> None:
    command = line_of(id, begin).strip("[]").replace(",", "") if id == "kubernetes" else line_of(id, begin)
    command = command.replace(place, "ci.json").replace("/usr/bin/", "").replace("/usr/local/bin/", "./")
    assert run(command, folder) == "reached without the key"


def test_the_proxy_of_a_unit_serves_what_was_granted(loopback: Loopback, folder: Path) -> None:
    http, socks = free_port(), free_port()
    command = line_of("client", "ExecStart=").replace("/usr/bin/klinket", f"{sys.executable} -m klinket")
    command = command.replace("%d/key", "ci.json")
    command = command.replace("127.0.0.1:3128", f"127.0.0.1:{http}").replace("127.0.0.1:1080", f"127.0.0.1:{socks}")
    client = subprocess.Popen(shlex.split(command), cwd=folder, env=clean_environment(), stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                with dial_socks(("127.0.0.1", socks), ECHO_NAME, loopback.echo_port) as connection:
                    loopback.echo(connection)
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
    finally:
        client.terminate()
        client.wait(10)
