"""The controller's TLS by real handshakes: strong suites outside, TLS 1.3 alone between klinket's own parts."""

from __future__ import annotations

import asyncio
import shutil
import ssl

import pytest

from klinket.domain.errors import ControllerUnreachable
from klinket.net.channel import controller_context, open_channel
from klinket.wire import control
from klinket.wire.relay import RELAY_CHANNEL_PATH
from tests.unit.controller.running import Running

STRONG = ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"]
#: CBC, truncated tags, no forward secrecy, no encryption, nobody named.
WEAK = [
    "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA384", "ECDHE-ECDSA-AES128-CCM8",
    "AES128-GCM-SHA256", "AES128-SHA", "DHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-NULL-SHA", "AECDH-AES128-SHA",
]  # fmt: skip


def old_context(live: Running, suites: str = "", version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=live.authority)
    context.minimum_version = context.maximum_version = version
    if suites:
        context.set_ciphers(f"{suites}:@SECLEVEL=0")
    return context


async def agreed(live: Running, context: ssl.SSLContext) -> ssl.SSLObject:
    """Shake hands, and return what was agreed; raises OSError."""
    async with asyncio.timeout(10):
        _, writer = await asyncio.open_connection(
            "127.0.0.1", live.config.listen.port, ssl=context, server_hostname="127.0.0.1"
        )
    found = writer.get_extra_info("ssl_object")
    writer.close()
    assert isinstance(found, ssl.SSLObject)
    return found


@pytest.mark.parametrize("suite", STRONG)
async def test_old_clients_get_strong_suites_without_compression(live: Running, suite: str) -> None:
    found = await agreed(live, old_context(live, suite))
    cipher = found.cipher()
    assert cipher is not None
    assert (cipher[0], found.version(), found.compression()) == (suite, "TLSv1.2", None)


@pytest.mark.parametrize("suite", WEAK)
async def test_weak_suites_are_refused(live: Running, suite: str) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await agreed(live, old_context(live, suite))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1], ids=["1.0", "1.1"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_older_versions_are_refused(live: Running, version: ssl.TLSVersion) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await agreed(live, old_context(live, "ALL", version))


async def test_klinkets_own_parts_speak_tls_1_3_only(live: Running) -> None:
    context = controller_context(live.authority)
    assert (await agreed(live, context)).version() == "TLSv1.3"
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        await agreed(live, context)


@pytest.mark.parametrize("path", [control.CHANNEL_PATH, RELAY_CHANNEL_PATH])
async def test_a_live_channel_inside_tls_1_2_is_refused(live: Running, path: str) -> None:
    with pytest.raises(ControllerUnreachable, match="403"):
        async with open_channel(live.config.public_url, path, old_context(live), max_bytes=1000):
            pass


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
async def test_nobody_may_renegotiate(live: Running) -> None:
    address = f"127.0.0.1:{live.config.listen.port}"
    client = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-connect", address, "-tls1_2",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert client.stdin is not None
    assert client.stdout is not None
    said = b""
    async with asyncio.timeout(20):
        while b"Extended master secret" not in said:
            said += await client.stdout.read(4096)
        client.stdin.write(b"R\n")
        said += await client.stdout.read()
        await client.wait()
    assert b"RENEGOTIATING" in said
    assert b"no renegotiation" in said
