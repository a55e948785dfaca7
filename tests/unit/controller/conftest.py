"""A running controller: `controller` answers requests, `live` has live channels as well."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.controller.running import Running


@pytest.fixture
async def controller(tmp_path: Path) -> AsyncIterator[Running]:
    running = Running(tmp_path / "state")
    await running.open()
    yield running
    running.store.close()


@pytest.fixture
async def live(controller: Running) -> AsyncIterator[Running]:
    async with controller.listening():
        yield controller
