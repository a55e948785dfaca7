"""What use cases need from outside: transactions over rows, and a store that runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from klinket.controller.app import rows
from klinket.domain.audit import Actor as Actor
from klinket.domain.audit import AuditEvent
from klinket.domain.cut import Cut, Stamp

R = TypeVar("R")
#: Where in a table one is, in the order of a column: its value, and the primary key.
Position = tuple[int, int]
T = TypeVar("T")


class Repository(Protocol[R]):
    """The rows of one table. Conditions are equalities; a list or set means "one of"; None means null."""

    def get(self, id: Any) -> R | None:
        """Return the row with this primary key, or None."""

    def find(self, **equal: Any) -> list[R]:
        """Return the rows that meet all conditions, by primary key."""

    def since(self, column: str, least: int) -> list[R]:
        """Return the rows whose `column` is at least `least`."""

    def after(self, column: str, bound: int, limit: int, **equal: Any) -> list[R]:
        """Return up to `limit` rows that meet all conditions and whose `column` is above `bound`, ordered by it."""

    def until(self, column: str, bound: int, limit: int, **equal: Any) -> list[R]:
        """Return up to `limit` rows that meet all conditions and whose `column` is at most `bound`, ordered by it."""

    def lowest(self, column: str, **equal: Any) -> int | None:
        """Return the lowest value of `column` in the rows that meet all conditions; None where there is none."""

    def count(self, **equal: Any) -> int:
        """Return how many rows meet all conditions."""

    def all(self) -> Sequence[R]:
        """Return all rows by primary key, read when they are asked for: len() counts, a slice reads that part."""

    def matching(
        self,
        text: str,
        columns: Sequence[str],
        *,
        order: str = "id",
        descending: bool = False,
        least: Mapping[str, int] | None = None,
        below: Mapping[str, int] | None = None,
        beyond: Mapping[str, int] | None = None,
        holding: Mapping[str, str] | None = None,
        **equal: Any,
    ) -> Sequence[R]:
        """Return the rows with `text` in one of the columns, whatever the case of ASCII letters, ordered by a column.

        Read when they are asked for, like all(). An empty text is in every row. Columns are at `least`, `below`, or `beyond`
        a bound; having no value is beyond every bound. `holding`: what the stored text of other columns must contain exactly.
        """

    def pick(self, columns: Sequence[str], **equal: Any) -> list[tuple[Any, ...]]:
        """Return some columns of the rows that meet all conditions, by primary key: for looks at whole tables."""

    def totals(
        self,
        by: Sequence[str],
        of: str | None = None,
        *,
        limit: int | None = None,
        least: Mapping[str, int] | None = None,
        below: Mapping[str, int] | None = None,
        **equal: Any,
    ) -> list[tuple[Any, ...]]:
        """Return (values of `by`..., sum of column `of`, or the number of rows), up to `limit` of them, the highest first.

        Counted are rows that meet all conditions, with columns at `least` and `below`.
        """

    def counts(
        self, each: str, *, least: Mapping[str, int] | None = None, below: Mapping[str, int] | None = None, **equal: Any
    ) -> dict[Any, int]:
        """Return how many rows meet all conditions, by the values of column `each`; values of no row are not there."""

    def highest(self, column: str, each: str, **equal: Any) -> dict[Any, int]:
        """Return the highest value of `column` in the rows that meet all conditions, by the values of column `each`."""

    def sums(
        self, column: str, each: str, along: str, step: int, *, least: Mapping[str, int] | None = None, **equal: Any
    ) -> dict[tuple[Any, int], int]:
        """Return the sums of `column` in the rows that meet all conditions, by the values of `each` and steps of `along`.

        The second part of a key is the value of `along` divided by `step`, rounded down.
        """

    def newest(self, limit: int, order: str = "id", **equal: Any) -> list[R]:
        """Return up to `limit` rows that meet all conditions, the one with the highest `order` column first."""

    def select(
        self,
        order: str,
        limit: int,
        *,
        least: Mapping[str, int] | None = None,
        below: Mapping[str, int] | None = None,
        descending: bool = False,
        **equal: Any,
    ) -> list[R]:
        """Return up to `limit` rows, ordered by a column: those that meet all conditions, with columns at `least` and `below`."""

    def look_through(
        self,
        order: str,
        limit: int,
        *,
        at_most: int,
        narrowed: Mapping[str, Any] | None = None,
        before: Position | None = None,
        after: Position | None = None,
        least: Mapping[str, int] | None = None,
        below: Mapping[str, int] | None = None,
        containing: Mapping[str, Sequence[str]] | None = None,
        **equal: Any,
    ) -> tuple[list[R], Position | None]:
        """Return up to `limit` rows that meet all conditions, the highest first, looking at no more than `at_most` rows.

        Rows are looked at by a column and then by primary key: from `before` downwards (else from the top), or from `after`
        upwards (returned the lowest first). `narrowed`, `least` and `below` choose which rows are looked at, by an index;
        `equal` and `containing` (texts in a column, in any case) which of these are returned. The second value: where the looking
        ended before it was through; None: there is nothing beyond.
        """

    def search(self, columns: Sequence[str], text: str, limit: int) -> list[R]:
        """Return up to `limit` rows with `text` in one of the columns, in any case; those that begin with it come first."""

    def add_all(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows that have all their values; raises Conflict for a broken rule."""

    def add(self, **values: Any) -> R:
        """Insert a row (times of creation and change are filled in) and return it; raises Conflict for a broken rule."""

    def change(self, id: Any, **values: Any) -> R:
        """Change a row and return it; raises Conflict for a broken rule."""

    def remove(self, **equal: Any) -> int:
        """Delete the rows that meet all conditions; returns how many."""

    def remove_below(self, column: str, bound: int) -> int:
        """Delete the rows whose `column` is below `bound`; returns how many."""


class Transaction(Protocol):
    """One consistent view; changes become durable together."""

    remote_networks: Repository[rows.RemoteNetworkRow]
    connectors: Repository[rows.ConnectorRow]
    resources: Repository[rows.ResourceRow]
    service_accounts: Repository[rows.ServiceAccountRow]
    service_keys: Repository[rows.ServiceKeyRow]
    account_limits: Repository[rows.AccountLimitsRow]
    access: Repository[rows.AccessRow]
    security_policies: Repository[rows.SecurityPolicyRow]
    groups: Repository[rows.GroupRow]
    users: Repository[rows.UserRow]
    console_sessions: Repository[rows.ConsoleSessionRow]
    group_members: Repository[rows.GroupMemberRow]
    group_access: Repository[rows.GroupAccessRow]
    devices: Repository[rows.DeviceRow]
    serial_numbers: Repository[rows.SerialNumberRow]
    sessions: Repository[rows.SessionRow]
    used_assertions: Repository[rows.UsedAssertionRow]
    signing_keys: Repository[rows.SigningKeyRow]
    authorities: Repository[rows.AuthorityRow]
    relays: Repository[rows.RelayRow]
    api_tokens: Repository[rows.ApiTokenRow]
    cuts: Repository[rows.CutRow]
    cut_receipts: Repository[rows.CutReceiptRow]
    flow_events: Repository[rows.FlowEventRow]
    live_flows: Repository[rows.LiveFlowRow]
    flow_totals: Repository[rows.FlowTotalRow]
    flow_hours: Repository[rows.FlowHourRow]
    audit: Repository[rows.AuditRow]
    audit_head: Repository[rows.AuditHeadRow]
    audit_anchor: Repository[rows.AuditAnchorRow]
    audit_signatures: Repository[rows.AuditSignatureRow]
    sinks: Repository[rows.SinkRow]
    passwords: Repository[rows.PasswordRow]
    totp_secrets: Repository[rows.TotpSecretRow]
    recovery_codes: Repository[rows.RecoveryCodeRow]
    passkeys: Repository[rows.PasskeyRow]
    sign_in_links: Repository[rows.SignInLinkRow]
    oidc_identities: Repository[rows.OidcIdentityRow]
    lock_outs: Repository[rows.LockOutRow]
    used_challenges: Repository[rows.UsedChallengeRow]

    @property
    def now_ms(self) -> int:
        """Return the time of this transaction in milliseconds since the epoch; the same throughout."""

    @property
    def grant_seconds(self) -> int:
        """Return how long a grant lives, in seconds."""

    def savepoint(self) -> AbstractContextManager[None]:
        """Undo what happens inside when it raises, and only that."""

    def head(self) -> Stamp:
        """Return (epoch, revision) of the last change."""

    def bump(self) -> Stamp:
        """Count one more change; returns the new (epoch, revision). Everything others must hear of calls it."""

    def begin_epoch(self) -> Stamp:
        """Begin another life of this database, above all that any of it ever said; returns the new (epoch, revision)."""

    def proven_head(self) -> Stamp | None:
        """Return the head above its own that was proved to this database; None once a new epoch has begun, or never."""

    def prove_head(self, proven: Stamp) -> bool:
        """Keep a head that was proved, if it is above the own one and what is kept; returns whether it was."""

    def record(self, event: AuditEvent) -> None:
        """Write an audit event."""

    def announce_cut(self, cut: rows.CutRow, ordered: Cut, connectors: Sequence[int]) -> None:
        """Tell listeners of the commit about a cut, and which connectors it concerns. `ordered`: what the row holds signed."""

    @property
    def announced(self) -> Sequence[AnnouncedCut]:
        """Return the cuts announced so far, except those of savepoints that were undone."""

    def sign_cut(self, cut: Cut) -> str:
        """Return the signed form of a cut."""


@dataclass(frozen=True, slots=True)
class AnnouncedCut:
    """A cut that was committed, and the connectors it has to reach."""

    cut: rows.CutRow
    ordered: Cut
    connectors: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Committed:
    """What listeners hear after a commit that others must know of."""

    stamp: Stamp
    cuts: tuple[AnnouncedCut, ...]


class Store(Protocol):
    """Runs transactions. A write is durable when it returns."""

    async def write(self, change: Callable[[Transaction], T]) -> T:
        """Run `change` in a write transaction; when it raises, nothing of it stays."""

    async def read(self, query: Callable[[Transaction], T]) -> T:
        """Run `query` on a snapshot; it cannot change anything."""

    def on_commit(self, listener: Callable[[Committed], None]) -> None:
        """Call `listener` on the event loop after each commit that bumped the revision."""
