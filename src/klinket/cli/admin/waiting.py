"""`--wait`: until every connector has answered the cut that a change has ordered."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click

from klinket.cli.admin import cut as cuts
from klinket.cli.admin.api import AdminApiClient
from klinket.cli.admin.output import show_object, show_rows, told
from klinket.domain.errors import KlinketError

#: Seconds waited for receipts unless told otherwise, and between two looks.
WAIT_SECONDS = 10.0
LOOK_SECONDS = 0.1
_F = TypeVar("_F", bound=Callable[..., Any])


class CutNotAnswered(KlinketError):
    """A connector has not said that it stopped what was cut; the message names it, the hint until when it may go on."""

    code = "cut-not-answered"


@dataclass
class Waiting:
    """Follows one change. `seconds`: the bound, or None: nobody asked to wait. An api that rehearses changed nothing."""

    api: AdminApiClient
    seconds: float | None
    newest: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.seconds is not None:
            self.newest = max((one["id"] for one in cuts.newest_cuts(self.api)), default=0)

    def tell(self, text: str, row: Mapping[str, Any] | None = None, *, scope: Callable[[str], bool], as_json: bool) -> None:
        """Say what was done; with `--wait` also the cuts it ordered, those whose scope (kind and ids) `scope` says yes to.

        Raises CutNotAnswered when somebody has not answered in time.
        """
        if self.api.would_cut is not None:
            show_foreseen(self.api.would_cut, as_json=as_json)
            return
        if self.seconds is None:
            told(text, row, as_json=as_json)
            return
        ordered = [one["id"] for one in cuts.newest_cuts(self.api) if one["id"] > self.newest and scope(one["scope"])]
        found = self._complete(sorted(ordered))
        told(text, {**(row if row is not None else {"ok": True}), "cuts": found}, as_json=as_json)
        if not as_json:
            for one in found:
                cuts.show_cut(one)
            if not found:
                click.echo("there was nothing to cut", err=True)
        _check(found, self.seconds)

    def _complete(self, numbers: list[int]) -> list[dict[str, Any]]:
        deadline = time.monotonic() + (self.seconds or 0.0)
        while True:
            found = [cuts.find_cut(self.api, number) for number in numbers]
            if all(cuts.is_complete(one) for one in found) or time.monotonic() >= deadline:
                return found
            time.sleep(LOOK_SECONDS)


def show_foreseen(foreseen: list[dict[str, Any]], *, as_json: bool) -> None:
    """Say what a change would cut, which was made and undone."""
    flows = sum(one["flows"] for one in foreseen)
    ordered = [cut for one in foreseen for cut in one["cuts"]]
    if as_json:
        listed = [flow for one in foreseen for flow in one["listed"]]
        show_object({"dryRun": True, "flows": flows, "cuts": ordered, "listed": listed}, as_json=True)
        return
    click.echo(f"dry run, nothing was changed: {flows} live {'flow' if flows == 1 else 'flows'} would end at once")
    rows = [{"what": cut["what"], "reason": cut["reason"], **connector} for cut in ordered for connector in cut["connectors"]]
    if rows:
        show_rows(rows, {"WHAT": "what", "REASON": "reason", "CONNECTOR": "connector", "FLOWS": "flows"}, as_json=False)


def _check(found: list[dict[str, Any]], seconds: float) -> None:
    pending = [receipt for one in found for receipt in one["receipts"] if receipt["state"] == cuts.PENDING]
    if pending:
        names = ", ".join(sorted({receipt["connector"] for receipt in pending}))
        latest = cuts.moment(max(receipt["grants_end_at_ms"] for receipt in pending))
        number = next(one["id"] for one in found if not cuts.is_complete(one))
        raise CutNotAnswered(
            f"no answer within {seconds:g} s from: {names}",
            hint=f"what it had granted ends at {latest} at the latest; see klinket admin cut show {number}",
        )


def access_to(resource: int) -> Callable[[str], bool]:
    """Return what picks the cuts of somebody's access to the resource of this number."""
    return lambda scope: scope.startswith("access ") and scope.endswith(f" {resource}")


def with_wait(command: _F) -> _F:
    """Give a command `waiting`, and the options `--wait`, `--timeout` and `--dry-run`; below `with_api`: it needs its api.

    With `--dry-run` the command has an api whose changes are undone, and `waiting.tell` says what they would cut.
    """

    @click.option("--dry-run", is_flag=True, help="Change nothing: say which live flows would end.")
    @click.option("--wait", "wait", is_flag=True, help="Wait until every connector has answered, and show what it answered.")
    @click.option(
        "--timeout", type=click.FloatRange(0, 3600), metavar="SECONDS", help=f"How long --wait waits; default: {WAIT_SECONDS:g}."
    )
    @functools.wraps(command)
    def wrapped(*args: Any, api: AdminApiClient, wait: bool, timeout: float | None, dry_run: bool, **kwargs: Any) -> Any:
        if dry_run and wait:
            raise click.UsageError("--dry-run and --wait exclude each other")
        if dry_run:
            api = api.rehearsing
        if timeout is not None and not wait:
            raise click.UsageError("--timeout goes with --wait")
        seconds = (WAIT_SECONDS if timeout is None else timeout) if wait else None
        return command(*args, api=api, waiting=Waiting(api, seconds), **kwargs)

    return wrapped  # type: ignore[return-value]
