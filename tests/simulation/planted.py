"""Bugs planted on purpose, one at a time: the simulation has to find each, or it is not worth its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from klinket.connector import core as connector_core
from klinket.connector.core import ConnectorCore
from klinket.connector.events import FlowEventLog
from klinket.connector.serve import Connector
from klinket.controller import configuration, dispatch, expiries
from klinket.controller.app import access, cuts, resources, service_keys, sessions, snapshot
from klinket.controller.dispatch import Dispatch
from klinket.domain.cut import Floors
from klinket.domain.flow import FlowFailure
from klinket.relay import core as relay_core
from tests.simulation.controller import InlineStore

#: Hours by which a local time is behind (a zone west of Greenwich).
_ZONE_SECONDS = 5 * 3600.0


def _nothing(*_: Any, **__: Any) -> None:
    """Do nothing."""


@contextmanager
def _replaced(owner: object, name: str, made: Any) -> Iterator[None]:
    with patch.object(owner, name, made):
        yield


def _revocation_skipped_at_resume() -> Any:
    """A connector that attaches again is not told the cuts it missed."""
    return _replaced(cuts, "in_force", lambda _: [])


def _grant_of_another_session_accepted() -> Any:
    """The grant's principal is not compared with the link's."""
    true = connector_core.verify_grant

    class Anybody(str):
        """Equal to every principal and thumbprint."""

        __slots__ = ()

        def __eq__(self, _: object) -> bool:
            return True

        def __ne__(self, _: object) -> bool:
            return False

        __hash__ = str.__hash__

    def verify(*args: Any, **more: Any) -> Any:
        claims = true(*args, **more)
        object.__setattr__(claims, "principal", Anybody())
        object.__setattr__(claims, "jkt", Anybody())
        return claims

    return _replaced(connector_core, "verify_grant", verify)


def _expiry_in_local_time() -> Any:
    """Expiries are compared with a clock of another zone: too late by hours."""
    true_end, true_take = expiries.end_expired, snapshot.take
    true_check = sessions.check_usable

    class Late:
        """A transaction whose clock is behind."""

        def __init__(self, tx: Any) -> None:
            self._tx = tx

        @property
        def now_ms(self) -> int:
            return int(self._tx.now_ms - _ZONE_SECONDS * 1000)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._tx, name)

    @contextmanager
    def planted() -> Iterator[None]:
        with (
            patch.object(expiries, "end_expired", lambda tx: true_end(Late(tx))),
            patch.object(snapshot, "take", lambda tx, *more: true_take(Late(tx), *more)),
            patch.object(sessions, "check_usable", lambda row, now_ms: true_check(row, int(now_ms - _ZONE_SECONDS * 1000))),
            patch.object(snapshot.Snapshot, "check", _nothing),
            patch.object(dispatch.configuration, "for_client", _late(configuration.for_client)),
        ):
            yield

    return planted()


def _late(for_client: Callable[..., Any]) -> Callable[..., Any]:
    def made(current: Any, *args: Any, **more: Any) -> Any:
        return for_client(_without_ends(current), *args, **more)

    return made


def _without_ends(current: Any) -> Any:
    from dataclasses import replace

    return replace(current, keys={kid: replace(facts, expires_at=None) for kid, facts in current.keys.items()})


def _no_second_look() -> Any:
    """A flow is not looked at again between the dial and OPENED."""
    true = ConnectorCore.apply_cut

    def apply(self: ConnectorCore, cut: Any, now: float) -> Any:
        before = set(self._flows)
        ended = true(self, cut, now)
        # Flows that are still being dialled stay in the table, as where nobody looks again.
        for one in ended:
            if one.flow.id in before and now - one.flow.opened_at < 2.0:
                self._flows[one.flow.id] = one.flow
                self._per_account[one.flow.principal.account] += 1
        return [one for one in ended if one.flow.id not in self._flows]

    @contextmanager
    def planted() -> Iterator[None]:
        with patch.object(ConnectorCore, "apply_cut", apply), patch.object(ConnectorCore, "recheck", _nothing):
            yield

    return planted()


def _grants_that_never_end() -> Any:
    """Nobody looks when grants end."""
    return _replaced(ConnectorCore, "deadline_reached", lambda *_: [])


def _floors_not_looked_at() -> Any:
    """A cut ends what is live, and leaves no floor: an older grant that comes later opens again."""
    return _replaced(Floors, "striking", lambda *_: [])


def _hello_taken_twice() -> Any:
    """A relay keeps no record of counters."""
    true = relay_core.RelayCore._refusal

    def refusal(self: Any, hello: Any, admitted: Any, now: float) -> Any:
        admitted.seen.clear()
        admitted.highest = 0
        return true(self, hello, admitted, now)

    return _replaced(relay_core.RelayCore, "_refusal", refusal)


def _cut_not_sent() -> Any:
    """A commit with cuts wakes nobody up: connectors hear of them when they attach again."""
    true = Dispatch._committed

    def committed(self: Dispatch, made: Any) -> None:
        from dataclasses import replace

        true(self, replace(made, cuts=()))

    return _replaced(Dispatch, "_committed", committed)


def _disabled_and_still_granted() -> Any:
    """Disabling a resource is stored, and cuts nothing."""
    return _replaced(resources, "_cut_what_was_lost", _nothing)


def _acknowledged_before_the_commit() -> Any:
    """A change is answered, and made a moment later."""
    true = InlineStore._commit

    async def write(self: InlineStore, change: Any) -> Any:
        import asyncio

        from klinket.controller.store.engine import _Job

        job = _Job(change)
        with self._backend.lock_free() if hasattr(self._backend, "lock_free") else patch.object(self, "_announce", _nothing):
            result = _tried(self, change)
        self.waiting.append(job)  # type: ignore[attr-defined]
        if len(self.waiting) == 1:  # type: ignore[attr-defined]
            asyncio.get_running_loop().call_later(0.4, _make, self)
        return result

    def _make(store: InlineStore) -> None:
        jobs, store.waiting = store.waiting, []  # type: ignore[attr-defined]
        if not store._closed:
            true(store, jobs)

    def _tried(store: InlineStore, change: Any) -> Any:
        with store._backend.writer.connect() as connection:
            store._backend.lock(connection)
            for job in store.waiting:  # type: ignore[attr-defined]
                _quietly(job.change, store._transaction(connection))
            try:
                return change(store._transaction(connection))
            finally:
                connection.rollback()

    def _quietly(change: Any, tx: Any) -> None:
        try:
            with tx.savepoint():
                change(tx)
        except Exception:
            return

    @contextmanager
    def planted() -> Iterator[None]:
        true_init = InlineStore.__init__

        def init(self: InlineStore, *args: Any) -> None:
            true_init(self, *args)
            self.waiting = []  # type: ignore[attr-defined]

        with patch.object(InlineStore, "__init__", init), patch.object(InlineStore, "write", write):
            yield

    return planted()


def _no_audit_of_a_revocation() -> Any:
    """A key is revoked, and no event says so."""

    def revoke(tx: Any, actor: Any, row: Any) -> Any:
        changed = tx.service_keys.change(row.id, revoked_at_ms=tx.now_ms)
        from klinket.domain.audit import SYSTEM

        service_keys._end(tx, SYSTEM, changed, FlowFailure.SERVICE_KEY_REVOKED, "service-key-revoked")
        return changed

    return _replaced(service_keys, "revoke", revoke)


def _flow_events_forgotten_with_the_channel() -> Any:
    """What was sent and not confirmed is not sent again."""

    def stored(self: FlowEventLog) -> None:
        for number in list(self._sent):
            self._state.stored(number)

    return _replaced(FlowEventLog, "channel_lost", stored)


def _receipt_before_the_end() -> Any:
    """A connector answers a cut, and goes on carrying what it ended."""
    true = ConnectorCore.apply_cut

    def apply(self: ConnectorCore, cut: Any, now: float) -> Any:
        true(self, cut, now)
        return []

    return _replaced(ConnectorCore, "apply_cut", apply)


def _access_ended_for_new_sessions_only() -> Any:
    """Taking access away is stored without a cut."""
    return _replaced(access.cuts, "order", _only_other_cuts(access.cuts.order))


def _only_other_cuts(order: Any) -> Any:
    def made(tx: Any, scope: Any, *args: Any, **more: Any) -> Any:
        if scope.kind.value == "access":
            tx.bump()
            return None
        return order(tx, scope, *args, **more)

    return made


def _cuts_not_applied_from_the_configuration() -> Any:
    """A connector drops the cuts that a configuration brings."""
    true = Connector._configure

    async def configure(self: Connector, message: Any) -> Any:
        from msgspec.structs import replace

        return await true(self, replace(message, cuts=[]))

    return _replaced(Connector, "_configure", configure)


#: Bugs by name: what each plants, and in how many seeds it has to show.
PLANTED: dict[str, Callable[[], Any]] = {
    made.__name__.strip("_").replace("_", " "): made
    for made in (
        _revocation_skipped_at_resume,
        _grant_of_another_session_accepted,
        _expiry_in_local_time,
        _no_second_look,
        _grants_that_never_end,
        _floors_not_looked_at,
        _hello_taken_twice,
        _cut_not_sent,
        _disabled_and_still_granted,
        _acknowledged_before_the_commit,
        _no_audit_of_a_revocation,
        _flow_events_forgotten_with_the_channel,
        _receipt_before_the_end,
        _access_ended_for_new_sessions_only,
        _cuts_not_applied_from_the_configuration,
    )
}
