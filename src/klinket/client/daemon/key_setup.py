"""`klinket setup`: check a service key, here and with the controller, and keep it where the daemon finds it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from klinket.client.daemon import ask, protocol, settings
from klinket.client.daemon.paths import Paths
from klinket.client.key_source import KeySource
from klinket.client.login import log_in, log_out
from klinket.domain.errors import (
    AssertionStale,
    ControllerUnreachable,
    KlinketError,
    NotTheController,
    ServiceKeyExpired,
    Throttled,
)
from klinket.net.channel import controller_context
from klinket.net.clock import wall
from klinket.net.files import replace_private
from klinket.wire.key_file import KeyFile

#: Seconds the controller may take to say whether it takes the key.
CHECK_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class SetUp:
    """`lines`: what is told on standard output; `warnings`: on standard error."""

    lines: list[str]
    warnings: list[str]


async def set_up(source: KeySource, paths: Paths, *, check: bool = True) -> SetUp:
    """Keep the key, and hand it to the daemon where one runs; raises what is wrong with the key, and then changes nothing."""
    key = source.load()
    context = controller_context(key.controller_ca)  # an authority that is none is found here, not at the start
    if key.expires_at is not None and datetime.fromisoformat(key.expires_at).timestamp() <= wall():
        raise ServiceKeyExpired(f"key {key.key_id} expired at {key.expires_at}")
    done = SetUp([], [])
    if check:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await log_out(key, await log_in(key, context), context)
            done.lines.append(f"{key.network} takes the key")
        except NotTheController:
            raise  # waiting does not make it the controller: the key file is wrong, or somebody is in between
        except TimeoutError:
            done.warnings.append(f"not checked with {key.network}: no answer within {CHECK_SECONDS:.0f} s")
        except (ControllerUnreachable, Throttled, AssertionStale) as error:
            done.warnings.append(f"not checked with {key.network}: {error}")
    _keep(key, paths)
    done.lines.append(f"key {key.key_id} of service account {key.service_account_id} is set up ({_until(key)})")
    _hand_over(paths, done)
    return done


def _keep(key: KeyFile, paths: Paths) -> None:
    try:
        settings.make_folder(paths.etc)
        replace_private(paths.key_file, key.to_json().encode() + b"\n")
    except PermissionError as error:
        raise protocol.NeedsRoot(f"{paths.key_file} cannot be written: {error.strerror}") from None


def _until(key: KeyFile) -> str:
    if key.expires_at is None:
        return "it does not expire"
    return f"until {datetime.fromisoformat(key.expires_at).astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _hand_over(paths: Paths, done: SetUp) -> None:
    try:
        told = ask.ask(paths, "reload", timeout=protocol.RELOAD_SECONDS)
        done.lines.append(f"the running daemon: {told.message}")
    except ask.NotRunning:
        done.lines.append("next: klinket start")
    except KlinketError as error:
        done.warnings.append(f"the running daemon does not use it yet: {error}")
