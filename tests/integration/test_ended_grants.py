"""A grant that ended is never dialled past klinket, though this machine could reach the address by itself."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from examples.deployment import clean_environment, free_port
from tests.integration.conftest import ECHO_ADDRESS, ECHO_NAME, Loopback, ProxyRefused, dial_socks

pytestmark = [pytest.mark.alone, pytest.mark.timeout(180)]

NOT_GRANTED = 2  # SOCKS: not allowed by ruleset

#: Dials through klinket's proxy until it is told that the grant is gone, and then the address itself, as words on stdout.
COMMAND = """
import os, sys
from tests.integration.conftest import ProxyRefused, dial_socks
from urllib.parse import urlsplit
proxy = urlsplit(os.environ["ALL_PROXY"])
for line in sys.stdin:
    host, port = line.split()
    try:
        dial_socks((proxy.hostname, proxy.port), host, int(port)).close()
        print("reached", flush=True)
    except ProxyRefused as refused:
        print("refused", refused.reply, flush=True)
"""


def test_a_proxy_that_dials_others_itself_refuses_what_is_no_longer_granted(loopback: Loopback) -> None:
    deployment = loopback.deployment
    socks = ("127.0.0.1", free_port())
    client = [sys.executable, "-m", "klinket", "client", "--key-file", str(loopback.key), "--direct"]
    part = deployment.start("direct", [*client, "--socks", f"127.0.0.1:{socks[1]}"])
    line = deployment.run_command(loopback.key, sys.executable, "-c", COMMAND, options=["--capture", "proxy"])
    command = subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=clean_environment()
    )

    def asked_of_the_command(host: str, port: int) -> str:
        assert command.stdin is not None
        assert command.stdout is not None
        command.stdin.write(f"{host} {port}\n")
        command.stdin.flush()
        return command.stdout.readline().strip()

    def online() -> bool:
        try:
            dial_socks(socks, ECHO_NAME, loopback.echo_port).close()
        except OSError:
            return False
        return True

    try:
        deployment.wait_for("the client", online, part)
        # Not granted, and reachable: dialled by klinket itself, without a connector.
        dial_socks(socks, "127.0.0.1", deployment.port).close()
        for host in (ECHO_NAME, ECHO_ADDRESS):
            assert asked_of_the_command(host, loopback.echo_port) == "reached"
        deployment.admin("service", "ungrant", "ci", "Echo")
        deadline = time.monotonic() + 20
        while asked_of_the_command(ECHO_NAME, loopback.echo_port) == "reached":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for host in (ECHO_NAME, ECHO_ADDRESS):
            assert asked_of_the_command(host, loopback.echo_port) == f"refused {NOT_GRANTED}"
        assert asked_of_the_command("127.0.0.1", deployment.port) == "reached"

        def refused() -> bool:
            try:
                dial_socks(socks, ECHO_ADDRESS, loopback.echo_port).close()
            except ProxyRefused as error:
                return error.reply == NOT_GRANTED
            return False

        deployment.wait_for("the client to know", refused, part)
        deployment.admin("service", "grant", "ci", "Echo")
        deployment.wait_for("the grant", online, part)
    finally:
        part.stop()
        command.kill()
        command.wait()
