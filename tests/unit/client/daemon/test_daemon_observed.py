"""The daemon's metrics: what its sessions did, over keys that replace each other, on loopback alone."""

from __future__ import annotations

import asyncio
import re
import tempfile
from pathlib import Path

import pytest

from klinket.client.daemon import serve
from klinket.client.daemon.observed import Observed
from klinket.client.daemon.paths import Paths
from klinket.client.daemon.settings import Settings
from klinket.client.daemon.states import State
from klinket.domain.errors import FlowRefused, InvalidInput
from klinket.domain.flow import Destination, TransportProtocol
from klinket.domain.readiness import Readiness
from klinket.net.exposition import Exposition
from klinket.net.sockets import HostPort
from tests.eventually import eventually
from tests.unit.client.daemon.test_daemon_daemon import Start, online, start, whole
from tests.unit.whole import Whole

__all__ = ["start", "whole"]


def read(observed: Observed) -> dict[str, float]:
    """Return each sample by its name with labels."""
    text = Exposition("client", observed.metrics).text(Readiness())[1].decode()
    return {name: float(value) for name, value in re.findall(r"^(klinket_client\S+) (\S+)$", text, re.MULTILINE)}


async def test_what_the_sessions_did_is_told(whole: Whole, start: Start) -> None:
    daemon = start(whole.key_file)
    observed = Observed(daemon.sessions, daemon.verdict)
    assert not (await observed.ready()).is_ready
    await online(daemon)
    assert (await observed.ready()).is_ready
    flow = await whole.flow(daemon.sessions)  # type: ignore[arg-type]
    await flow.echo()
    with pytest.raises(FlowRefused) as refused:
        await daemon.sessions.open_stream(Destination("nobody.internal", 80, TransportProtocol.TCP))
    found = read(observed)
    reason = refused.value.failure.value
    assert found["klinket_client_attached"] == 1
    assert found["klinket_client_sessions"] == 1
    assert found["klinket_client_links"] == 1
    assert found["klinket_client_resources"] == 1
    assert found["klinket_client_flows"] == 1
    assert found["klinket_client_logins_total"] == 1
    assert found["klinket_client_flows_opened_total"] == 1
    assert found[f'klinket_client_flows_refused_total{{reason="{reason}"}}'] == 1
    assert "klinket_client_key_expires_in_seconds" not in found
    assert found['klinket_client_bytes_total{direction="sent"}'] == 0


async def test_counters_go_on_over_a_new_key_and_what_flows_moved_counts_once_they_have_ended(whole: Whole, start: Start) -> None:
    file = [whole.key_file]
    daemon = await online(start(whole.key_file, file=file))
    observed = Observed(daemon.sessions, daemon.verdict)
    flow = await whole.flow(daemon.sessions)  # type: ignore[arg-type]
    await flow.echo()
    file.append((await whole.controller.add_key(whole.account, name="next"))[1])
    await daemon.reload()
    assert read(observed)["klinket_client_logins_total"] == 2
    assert read(observed)["klinket_client_flows_opened_total"] == 1
    assert read(observed)["klinket_client_sessions"] == 2
    await whole.controller.revoke_key(whole.key)
    assert await flow.is_reset()
    await eventually(lambda: read(observed)['klinket_client_bytes_total{direction="received"}'] > 0)


async def test_a_lost_channel_is_counted_and_shows(whole: Whole, start: Start) -> None:
    daemon = await online(start(whole.key_file))
    observed = Observed(daemon.sessions, daemon.verdict)
    client = daemon.sessions.current
    assert client is not None
    client._channel.abort()
    await eventually(lambda: read(observed)["klinket_client_channel_losses_total"] == 1)
    await eventually(lambda: daemon.verdict().state is State.ONLINE)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.com"])
async def test_metrics_beyond_loopback_are_refused(host: str) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with pytest.raises(InvalidInput) as raised:
            await serve.run(Paths(folder, folder, folder, folder / "log"), Settings(), asyncio.Event(), HostPort(host, 9466))
    assert raised.value.field == "metrics"
