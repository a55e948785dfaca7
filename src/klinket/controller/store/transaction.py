"""One transaction: repositories over one connection, the head revision, the audit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection, Table, select, update

from klinket.controller.app import rows
from klinket.controller.app.ports import AnnouncedCut, Repository
from klinket.controller.store import schema
from klinket.controller.store.repository import R, SqlRepository
from klinket.domain import audit_chain
from klinket.domain.audit import AuditEvent
from klinket.domain.cut import Cut, Stamp

CutSigner = Callable[[Cut], str]
_HEAD = select(schema.head.c.epoch, schema.head.c.revision)
_PROVEN = select(schema.head.c.proven_epoch, schema.head.c.proven_revision)
_BUMP = update(schema.head).values(revision=schema.head.c.revision + 1).returning(schema.head.c.epoch, schema.head.c.revision)


class SqlTransaction:
    """Implements controller.app.ports.Transaction."""

    def __init__(self, connection: Connection, now_ms: int, sign_cut: CutSigner, grant_seconds: int) -> None:
        self._connection = connection
        self._now_ms = now_ms
        self.sign_cut = sign_cut
        self.grant_seconds = grant_seconds
        self.announced: list[AnnouncedCut] = []
        self.bumped = False

        def of(table: Table, row: type[R]) -> Repository[R]:
            return SqlRepository(connection, table, row, lambda: now_ms)

        self.remote_networks = of(schema.remote_networks, rows.RemoteNetworkRow)
        self.connectors = of(schema.connectors, rows.ConnectorRow)
        self.resources = of(schema.resources, rows.ResourceRow)
        self.service_accounts = of(schema.service_accounts, rows.ServiceAccountRow)
        self.service_keys = of(schema.service_keys, rows.ServiceKeyRow)
        self.account_limits = of(schema.account_limits, rows.AccountLimitsRow)
        self.access = of(schema.access, rows.AccessRow)
        self.security_policies = of(schema.security_policies, rows.SecurityPolicyRow)
        self.groups = of(schema.groups, rows.GroupRow)
        self.users = of(schema.users, rows.UserRow)
        self.console_sessions = of(schema.console_sessions, rows.ConsoleSessionRow)
        self.group_members = of(schema.group_members, rows.GroupMemberRow)
        self.group_access = of(schema.group_access, rows.GroupAccessRow)
        self.devices = of(schema.devices, rows.DeviceRow)
        self.serial_numbers = of(schema.serial_numbers, rows.SerialNumberRow)
        self.sessions = of(schema.sessions, rows.SessionRow)
        self.used_assertions = of(schema.used_assertions, rows.UsedAssertionRow)
        self.signing_keys = of(schema.signing_keys, rows.SigningKeyRow)
        self.authorities = of(schema.authorities, rows.AuthorityRow)
        self.relays = of(schema.relays, rows.RelayRow)
        self.api_tokens = of(schema.api_tokens, rows.ApiTokenRow)
        self.cuts = of(schema.cuts, rows.CutRow)
        self.cut_receipts = of(schema.cut_receipts, rows.CutReceiptRow)
        self.flow_events = of(schema.flow_events, rows.FlowEventRow)
        self.live_flows = of(schema.live_flows, rows.LiveFlowRow)
        self.flow_totals = of(schema.flow_totals, rows.FlowTotalRow)
        self.flow_hours = of(schema.flow_hours, rows.FlowHourRow)
        self.audit = of(schema.audit_events, rows.AuditRow)
        self.audit_head = of(schema.audit_head, rows.AuditHeadRow)
        self.audit_anchor = of(schema.audit_anchor, rows.AuditAnchorRow)
        self.audit_signatures = of(schema.audit_signatures, rows.AuditSignatureRow)
        self.sinks = of(schema.sinks, rows.SinkRow)
        self.passwords = of(schema.passwords, rows.PasswordRow)
        self.totp_secrets = of(schema.totp_secrets, rows.TotpSecretRow)
        self.recovery_codes = of(schema.recovery_codes, rows.RecoveryCodeRow)
        self.passkeys = of(schema.passkeys, rows.PasskeyRow)
        self.sign_in_links = of(schema.sign_in_links, rows.SignInLinkRow)
        self.oidc_identities = of(schema.oidc_identities, rows.OidcIdentityRow)
        self.lock_outs = of(schema.lock_outs, rows.LockOutRow)
        self.used_challenges = of(schema.used_challenges, rows.UsedChallengeRow)

    @property
    def now_ms(self) -> int:
        """Return the time of this transaction."""
        return self._now_ms

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what happens inside when it raises, announcements included."""
        announced, bumped = len(self.announced), self.bumped
        try:
            with self._connection.begin_nested():
                yield
        except BaseException:
            del self.announced[announced:]
            self.bumped = bumped
            raise

    def head(self) -> Stamp:
        """Return (epoch, revision) of the last change."""
        found = self._connection.execute(_HEAD).one()
        return found.epoch, found.revision

    def bump(self) -> Stamp:
        """Count one more change."""
        found = self._connection.execute(_BUMP).one()
        self.bumped = True
        return found.epoch, found.revision

    def begin_epoch(self) -> Stamp:
        """Begin another life of this database: epochs are times of beginning in ms, so that later ones are higher."""
        epoch = max(self._now_ms, self.head()[0] + 1, (self.proven_head() or (0, 0))[0] + 1)
        changed = {"epoch": epoch, "revision": schema.head.c.revision + 1, "proven_epoch": None, "proven_revision": None}
        self._connection.execute(update(schema.head).values(changed))
        self.bumped = True
        return self.head()

    def proven_head(self) -> Stamp | None:
        """Return the highest head above its own that was proved to this database since its epoch began."""
        found = self._connection.execute(_PROVEN).one()
        return None if found.proven_epoch is None else (found.proven_epoch, found.proven_revision)

    def prove_head(self, proven: Stamp) -> bool:
        """Keep a head that was proved, if it is above the own one and what is kept; returns whether it was."""
        if proven <= max(self.head(), self.proven_head() or (0, 0)):
            return False
        self._connection.execute(update(schema.head).values(proven_epoch=proven[0], proven_revision=proven[1]))
        return True

    def record(self, event: AuditEvent) -> None:
        """Write an audit event as the next link of the chain; its time is never below the one before, also when the clock is."""
        last = self.audit_head.get(1)
        assert last is not None  # the database was made with one
        time_ms = max([self._now_ms, *(row.time_ms for row in self.audit.find(number=last.number))])
        exported = audit_chain.exported(event, number=last.number + 1, time_ms=time_ms, previous=last.digest)
        digest = audit_chain.digest_of(exported)
        self.audit.add(
            time_ms=time_ms,
            action=event.action.value,
            actor=exported["actor"] | {"source": exported["source"]},
            targets=exported["targets"],
            detail=exported["detail"],
            request=exported["request"],
            number=exported["number"],
            digest=digest,
        )
        self.audit_head.change(1, number=exported["number"], digest=digest)

    def announce_cut(self, cut: rows.CutRow, ordered: Cut, connectors: Sequence[int]) -> None:
        """Tell listeners of the commit about a cut."""
        self.announced.append(AnnouncedCut(cut, ordered, tuple(connectors)))
