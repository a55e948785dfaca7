"""The main job on this machine: reach a private resource, be refused another, lose access with a receipt.

example: ./dev demo --keep
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from examples.deployment import Deployment, clean_environment, free_port

#: The private service listens here; the job knows it only as `orders.internal`.
PRIVATE_ADDRESS = "127.77.0.10"
FETCH = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())"
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20)"
WATCH = """import sys, urllib.request
for line in urllib.request.urlopen(sys.argv[1]):
    print(line.decode(), end="", flush=True)
"""


class Story:
    """Prints numbered steps with the time since the start."""

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.number = 0

    def step(self, text: str) -> None:
        self.number += 1
        print(f"\n\033[1m{self.number}. {text}\033[0m  [{time.monotonic() - self.begun:.1f} s]", flush=True)

    def tell(self, text: str) -> None:
        print("   " + text.rstrip().replace("\n", "\n   "), flush=True)


def job(deployment: Deployment, key: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run one job to its end and return its result."""
    return subprocess.run(
        deployment.run_command(key, *command), capture_output=True, text=True, env=clean_environment(), timeout=60
    )


def first_link(deployment: Deployment) -> str:
    """Return the one-time link that the first start of the controller has printed."""
    found = re.search(r"https://\S+/console/sign-in/link\S+", deployment.parts["controller"].log.read_text())
    return found.group() if found else "klinket issue admin-link EMAIL --state " + str(deployment.state)


def check(holds: bool, text: str) -> None:
    """End the demo with an error when what it wants to show is not so."""
    if not holds:
        raise SystemExit(f"the demo failed: {text}")


def play(deployment: Deployment, story: Story) -> str:
    """Play every step and return the private service's URL; raises SystemExit when one does not show what it should."""
    python = sys.executable

    story.step("Start the controller with its relay, and a service that is private")
    deployment.start_controller()
    port = free_port(PRIVATE_ADDRESS)
    service = Path(__file__).parent / "orders_service.py"
    deployment.start("orders", [python, str(service), PRIVATE_ADDRESS, str(port)])
    story.tell(f"controller {deployment.url}, relay port {deployment.relay_port}, private service on port {port}")

    story.step("Describe the private network: a connector and a resource (klinket admin ...)")
    deployment.admin("network", "create", "office")
    deployment.add_connector("office", "office-1")
    deployment.admin(
        "resource", "create", "--network", "office", "--address", PRIVATE_ADDRESS,
        "--alias", "orders.internal", "--tcp", str(port), "Orders",
    )  # fmt: skip
    deployment.start_connector("office-1")
    story.tell("connector office-1 is alive: it dialled out, nothing listens in the private network")

    story.step("Make a service account with a key, and grant it the resource")
    deployment.admin("service", "create", "ci")
    deployment.admin("service", "grant", "ci", "Orders")
    key = deployment.add_key("ci", "runner")
    story.tell(f"the key was shown once; it is in {key.name}, mode 0600")

    story.step("A job reaches what it was granted, by a name that exists only for it")
    url = f"http://orders.internal:{port}"
    done = job(deployment, key, python, "-c", FETCH, f"{url}/orders")
    story.tell(f"$ klinket run --key-file {key.name} -- fetch {url}/orders\n{done.stdout}{done.stderr}")
    check(done.returncode == 0 and "gate hinge" in done.stdout, f"the job ended with {done.returncode}")

    story.step("The same job is refused another port")
    done = job(deployment, key, python, "-c", CONNECT, "orders.internal", "22")
    refusal = [line for line in done.stderr.splitlines() if "klinket" in line or "refused" in line]
    story.tell("$ klinket run ... -- connect orders.internal 22\n" + "\n".join(refusal))
    check(done.returncode != 0 and "not-granted" in done.stderr, "port 22 was not refused")

    story.step("Revoke the key while a job is reading")
    reader = subprocess.Popen(
        deployment.run_command(key, python, "-c", WATCH, f"{url}/ticker"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment(),
    )  # fmt: skip
    assert reader.stdout is not None
    try:
        for _ in range(3):
            story.tell(reader.stdout.readline())
        deployment.admin("service", "key", "revoke", "ci", "runner")
        _, errors = reader.communicate(timeout=30)
    finally:
        reader.kill()  # when the demo is ended here; otherwise it has ended by itself
    story.tell("revoked: the reader's connection was reset" if "reset" in errors.lower() else errors[-400:])
    check(reader.returncode != 0, "the reader went on after the key was revoked")

    story.step("The receipt")
    cut = deployment.admin("cut", "list")[0]
    story.tell(json.dumps(cut, indent=2))
    check(any(receipt["state"] == "answered" for receipt in cut["receipts"]), "no connector has answered the cut")

    story.step("The key opens nothing any more")
    done = job(deployment, key, "true")
    story.tell(f"{done.stderr}exit code {done.returncode}")
    check(done.returncode == 67, f"exit code {done.returncode} instead of 67 (service-key-revoked)")
    return url


def next_steps(deployment: Deployment, url: str) -> str:
    """Return commands for another shell, as they can be pasted: a new key, a job with it, and what was cut."""
    klinket = shlex.quote(os.path.relpath(Path(sys.executable).with_name("klinket")))
    key = shlex.quote(str(deployment.directory / "ci-mine.json"))
    return f"""\
export KLINKET_URL={deployment.url} KLINKET_CA={shlex.quote(str(deployment.authority))}
export KLINKET_API_TOKEN={deployment.api_token}
{klinket} admin service key generate ci --name mine --out {key}
{klinket} run --key-file {key} -- curl --silent --show-error {url}/orders
{klinket} admin service key revoke ci mine
{klinket} admin cut list
"""


def end_on_signals() -> None:
    """Let SIGTERM and SIGHUP end the demo as Ctrl-C does: with every part stopped and the directory gone."""

    def end(number: int, _frame: object) -> None:
        for each in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)  # stopping takes a moment; a second one would leave parts behind
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup asks for that
            signal.signal(number, end)


def main() -> None:
    """Play the demo in a new directory; `--keep` leaves everything running until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="./dev demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")
    keep = parser.parse_args().keep
    story = Story()
    end_on_signals()
    with tempfile.TemporaryDirectory(prefix="klinket-demo-") as directory, Deployment(Path(directory)) as deployment:
        url = play(deployment, story)
        print(f"\nDone in {time.monotonic() - story.begun:.1f} s.")
        if not keep:
            print("To go on with it, also in its console: ./dev demo --keep")
        else:
            print(f"\nConsole: {deployment.url}/console/   make its first admin: {first_link(deployment)}")
            print(f"Admin API: {deployment.url}/api/graphql/   certificate authority: {deployment.authority}")
            print("\nEverything still runs. In another shell, in this directory:\n")
            print(next_steps(deployment, url))
            print("Running until Ctrl-C.", flush=True)
            try:
                while True:
                    time.sleep(3600)
            except KeyboardInterrupt:
                print("\nstopping")


if __name__ == "__main__":
    main()
