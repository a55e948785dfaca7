"""`./dev demo`, as the README has it: it ends well, shows each step, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import urllib.request
from pathlib import Path

import pytest

from examples.deployment import clean_environment
from tests.integration.watched import wait_until

pytestmark = [pytest.mark.alone, pytest.mark.timeout(180)]

ROOT = Path(__file__).parents[2]
DEMO = [str(ROOT / "dev"), "demo"]
#: By step: words of its title, and what it must show.
STEPS = [
    ("controller", "private service on port"),
    ("connector and a resource", "office-1 is alive"),
    ("service account with a key", "mode 0600"),
    ("reaches what it was granted", "gate hinge"),
    ("refused another port", "not-granted"),
    ("Revoke the key", "the reader's connection was reset"),
    ("receipt", '"answered"'),
    ("opens nothing any more", "exit code 67"),
]


def environment(directory: Path) -> dict[str, str]:
    return {**clean_environment(), "TMPDIR": str(directory)}


def processes_in(directory: Path) -> list[str]:
    """Return the command lines that name a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().decode(errors="replace") if entry.name.isdigit() else ""
        except OSError:
            continue
        if str(directory) in line:
            found.append(line.replace("\0", " "))
    return found


def without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_the_demo_shows_every_step_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(DEMO, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=150, env=environment(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    shown = re.split(r"^(?=\d+\. )", without_colours(done.stdout), flags=re.MULTILINE)[1:]
    assert len(shown) == len(STEPS), done.stdout
    for number, (step, (title, words)) in enumerate(zip(shown, STEPS, strict=True), 1):
        first, _, rest = step.partition("\n")
        assert first.startswith(f"{number}. ")
        assert title in first
        assert words in rest, f"step {number} does not show {words!r}: {step}"
    assert re.search(r"^Done in [\d.]+ s\.$", shown[-1], re.MULTILINE)
    assert "PRIVATE KEY" not in done.stdout + done.stderr
    assert "kl_api_" not in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []
    assert processes_in(tmp_path) == []


def test_keep_leaves_it_running_until_ctrl_c(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [*DEMO, "--keep"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(tmp_path),
        start_new_session=True,
    )  # fmt: skip
    shown = ""
    try:
        assert demo.stdout is not None
        for line in demo.stdout:
            shown += line
            if "Running until Ctrl-C" in line:
                break
        found = re.search(r"^export KLINKET_URL=(\S+) KLINKET_CA=(\S+)$", shown, re.MULTILINE)
        assert found is not None, shown
        context = ssl.create_default_context(cafile=found.group(2))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        with opener.open(f"{found.group(1)}/readyz", timeout=10) as answer:
            assert answer.status == 200
        assert re.search(r"^export KLINKET_API_TOKEN=kl_api_\w+$", shown, re.MULTILINE)
        os.killpg(demo.pid, signal.SIGINT)  # as a terminal does
        demo.wait(30)
    finally:
        if demo.poll() is None:
            os.killpg(demo.pid, signal.SIGKILL)
        demo.communicate()
    assert demo.returncode == 0
    wait_until(lambda: processes_in(tmp_path) == [], f"still running: {processes_in(tmp_path)}", 20)
    assert list(tmp_path.iterdir()) == []
