"""A controller that listens, and `klinket admin` with the token of an admin who may do everything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from klinket.cli.exit_codes import exit_code
from klinket.cli.main import klinket
from klinket.controller.app import api_tokens, defaults
from klinket.domain.errors import KlinketError
from tests.unit.controller.running import Running


class Admin:
    """Runs `klinket admin` in a thread beside the controller."""

    def __init__(self, running: Running, folder: Path) -> None:
        self.running = running
        self.folder = folder
        (folder / "ca.pem").write_text(running.authority)
        self.environment = {
            "KLINKET_URL": running.config.public_url,
            "KLINKET_CA": str(folder / "ca.pem"),
            "KLINKET_API_TOKEN": running.tokens[api_tokens.ALL_SCOPES],
        }

    async def run(self, *words: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, klinket, ["admin", *words], env=self.environment)

    async def ok(self, *words: str) -> str:
        """Return what a command prints for people."""
        result = await self.run(*words)
        assert result.exit_code == 0, (result.output, result.exception)
        return str(result.output)

    async def json(self, *words: str) -> Any:
        """Return the JSON that a command prints."""
        result = await self.run(*words, "--json")
        assert result.exit_code == 0, (result.output, result.exception)
        return json.loads(result.stdout)

    async def fails(self, *words: str) -> tuple[int, str]:
        """Return the exit code of a command that fails, and what it says."""
        result = await self.run(*words)
        assert result.exit_code != 0, result.output
        if isinstance(result.exception, KlinketError):
            where = getattr(result.exception, "field", "")
            return exit_code(result.exception), f"{where}: {result.exception}" if where else str(result.exception)
        assert isinstance(result.exception, SystemExit), result.exception
        return int(result.exit_code), result.output


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    running = Running(tmp_path / "state")
    await running.open()
    await running.write(defaults.ensure)
    async with running.listening():
        yield Admin(running, tmp_path)
    running.store.close()
