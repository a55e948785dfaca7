"""Connectors: their tokens, enrolment and reports."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence

from klinket.controller.app import cuts
from klinket.controller.app.audit import connector_target
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import ConnectorRow, RemoteNetworkRow
from klinket.domain import token_text
from klinket.domain.audit import SYSTEM, AuditAction, AuditEvent
from klinket.domain.cut import CutScope, Stamp
from klinket.domain.errors import ConnectorTokensDead, EnrolledElsewhere, InvalidToken, NotFound
from klinket.domain.flow import FlowFailure
from klinket.domain.identifiers import ConnectorId
from klinket.domain.names import parse_name
from klinket.domain.printable import printable
from klinket.domain.token_text import token_hash

KIND = "Connector"
#: Milliseconds after the last heartbeat at which a connector counts as dead.
HEARTBEAT_TOO_OLD_MS = 35_000
#: Milliseconds by which a connector's clock may differ before logins and grants begin to fail there (facts §5).
MAX_CLOCK_OFFSET_MS = 5_000
#: What is kept of a difference of clocks at the most, in milliseconds: whatever a connector tells fits a column.
MAX_TOLD_MS = 10**15
_FIRST = (
    "amber", "brave", "calm", "deep", "early", "fine", "gentle", "keen",
    "lucid", "mellow", "noble", "quiet", "swift", "true", "vivid", "wise",
)  # fmt: skip
_SECOND = (
    "arch", "bridge", "castle", "door", "ferry", "gate", "harbor", "hinge",
    "lantern", "latch", "moat", "portal", "quay", "tower", "wall", "wharf",
)  # fmt: skip


def get(tx: Transaction, id: int | None, shown_id: object) -> ConnectorRow:
    """Return the connector; raises NotFound with the id as the caller wrote it."""
    row = tx.connectors.get(id) if id is not None else None
    if row is None:
        raise NotFound(KIND, shown_id)
    return row


def network_of(tx: Transaction, row: ConnectorRow) -> RemoteNetworkRow:
    """Return the remote network the connector is in."""
    network = tx.remote_networks.get(row.remote_network_id)
    assert network is not None  # a foreign key says so
    return network


def made_up_name(tx: Transaction, entropy: Callable[[int], bytes]) -> str:
    """Return two words with a hyphen that no connector has yet."""
    taken = {row.name for row in tx.connectors.find()}
    for _ in range(64):
        one, two = entropy(2)
        name = f"{_FIRST[one % len(_FIRST)]}-{_SECOND[two % len(_SECOND)]}"
        if name not in taken:
            return name
    return f"{name}-{entropy(3).hex()}"


def create(
    tx: Transaction, actor: Actor, network: RemoteNetworkRow, *, name: str, has_status_notifications: bool
) -> ConnectorRow:
    """Create a connector; raises InvalidInput, Conflict."""
    row = tx.connectors.add(
        name=parse_name(name),
        remote_network_id=network.id,
        has_status_notifications=has_status_notifications,
        private_ips=[],
    )
    tx.bump()
    tx.record(AuditEvent(AuditAction.CREATE, actor, (connector_target(row, network),)))
    return row


def update(
    tx: Transaction, actor: Actor, row: ConnectorRow, *, name: str | None, has_status_notifications: bool | None
) -> ConnectorRow:
    """Change what is given."""
    notify = row.has_status_notifications if has_status_notifications is None else has_status_notifications
    changed = tx.connectors.change(row.id, name=row.name if name is None else parse_name(name), has_status_notifications=notify)
    tx.bump()
    network = network_of(tx, row)
    before = {"before": connector_target(row, network)}
    tx.record(AuditEvent(AuditAction.EDIT, actor, (connector_target(changed, network),), before))
    return changed


def delete(tx: Transaction, actor: Actor, row: ConnectorRow) -> None:
    """Delete a connector: clients hear of it with the commit, and stop to trust it (security.md 16).

    One that has ever served is cut: what it carries ends at once, with a receipt.
    """
    network = network_of(tx, row)
    if row.enrolled_jkt is not None or row.last_heartbeat_ms is not None:
        cuts.order(tx, CutScope.of_connector(ConnectorId(row.id)), FlowFailure.CUT, actor, connectors=[row])
    tx.connectors.remove(id=row.id)
    tx.bump()
    tx.record(AuditEvent(AuditAction.DELETE, actor, (connector_target(row, network),)))


def issue_tokens(tx: Transaction, actor: Actor, row: ConnectorRow, entropy: Callable[[int], bytes]) -> tuple[str, str]:
    """Return a new (access token, refresh token); every earlier pair, and the key it enrolled, is dead.

    What the connector with that key carries ends at once, with a receipt.
    """
    if row.enrolled_jkt is not None:
        cuts.order(tx, CutScope.of_connector(ConnectorId(row.id)), FlowFailure.CUT, actor, connectors=[row])
    access = token_text.compose(token_text.CONNECTOR_ACCESS_TOKEN, entropy(token_text.RANDOM_BYTES))
    refresh = token_text.compose(token_text.CONNECTOR_REFRESH_TOKEN, entropy(token_text.RANDOM_BYTES))
    tx.connectors.change(row.id, access_token_hash=token_hash(access), refresh_token_hash=token_hash(refresh), enrolled_jkt=None)
    tx.bump()
    network = network_of(tx, row)
    alarm = {} if row.enrolled_jkt is None else {"alarm": "connector-key-replaced"}
    tx.record(AuditEvent(AuditAction.EDIT, actor, (connector_target(row, network),), {"tokens": "issued", **alarm}))
    return access, refresh


def by_tokens(tx: Transaction, access: str, refresh: str) -> ConnectorRow:
    """Return the connector that both tokens belong to; raises ConnectorTokensDead."""
    dead = ConnectorTokensDead("these connector tokens are not valid: they were replaced, or the connector was deleted")
    try:
        token_text.check(access, token_text.CONNECTOR_ACCESS_TOKEN)
        token_text.check(refresh, token_text.CONNECTOR_REFRESH_TOKEN)
    except InvalidToken:
        raise dead from None
    found = tx.connectors.find(access_token_hash=token_hash(access))
    if len(found) != 1 or not hmac.compare_digest(found[0].refresh_token_hash or "", token_hash(refresh)):
        raise dead
    return found[0]


def enrol(tx: Transaction, row: ConnectorRow, jkt: str, source: str) -> None:
    """Bind the tokens to one key of the connector's own making; raises EnrolledElsewhere for another key."""
    network = network_of(tx, row)
    if row.enrolled_jkt is None:
        tx.connectors.change(row.id, enrolled_jkt=jkt)
        tx.bump()  # clients pin the key
        actor = Actor(SYSTEM.type, name=row.name, source=source)
        tx.record(AuditEvent(AuditAction.ENROL, actor, (connector_target(row, network),), {"jkt": jkt}))
    elif not hmac.compare_digest(row.enrolled_jkt, jkt):
        raise EnrolledElsewhere(f"connector {row.name} has enrolled another key with these tokens")


def record_refused_enrolment(tx: Transaction, row: ConnectorRow, source: str) -> None:
    """Raise the alarm: somebody has the tokens but not the key."""
    actor = Actor(SYSTEM.type, name=row.name, source=source)
    detail = {"alarm": EnrolledElsewhere.code}
    tx.record(AuditEvent(AuditAction.REFUSE, actor, (connector_target(row, network_of(tx, row)),), detail))


def believed(tx: Transaction, connector_id: int, jkt: str) -> ConnectorRow:
    """Return a connector whose present key this is; raises ConnectorTokensDead for a deleted one, or one with new tokens."""
    row = tx.connectors.get(connector_id)
    if row is None or not hmac.compare_digest(row.enrolled_jkt or "", jkt):
        raise ConnectorTokensDead("this connector was deleted, or has new tokens")
    return row


def is_believed(tx: Transaction, connector_id: int, jkt: str) -> bool:
    """Return whether `believed` would return the connector."""
    try:
        believed(tx, connector_id, jkt)
    except ConnectorTokensDead:
        return False
    return True


def heartbeat(
    tx: Transaction,
    connector_id: int,
    jkt: str,
    *,
    version: str,
    hostname: str,
    public_ip: str,
    private_ips: Sequence[str],
    time_ms: int = 0,
    started_ms: int = 0,
    leaves: bool = False,
) -> Stamp:
    """Note a connector's report; returns the head. Raises ConnectorTokensDead.

    `time_ms`: by its own clock; 0 of a time: not told. The difference of the clocks holds the report's time on the way
    as well. `leaves`: it ends now.
    """
    row = believed(tx, connector_id, jkt)
    tx.connectors.change(
        connector_id,
        updated_at_ms=row.updated_at_ms,
        version=printable(version[:100]) or row.version,
        hostname=printable(hostname[:255]),
        public_ip=public_ip[:45],
        private_ips=[printable(text[:45]) for text in private_ips[:32]],
        last_heartbeat_ms=tx.now_ms,
        clock_offset_ms=max(-MAX_TOLD_MS, min(MAX_TOLD_MS, time_ms - tx.now_ms)) if time_ms else None,
        started_ms=max(0, min(started_ms, tx.now_ms)) or None,
        left_ms=tx.now_ms if leaves else None,
    )
    return tx.head()


def prove_head(tx: Transaction, connector_id: int, proven: Stamp, source: str) -> bool:
    """Keep the head that a connector proves; returns whether it is news that this database has forgotten something: an alarm."""
    if not tx.prove_head(proven):
        return False
    row = tx.connectors.get(connector_id)
    if row is not None:
        actor = Actor(SYSTEM.type, name=row.name, source=source)
        detail = {"alarm": "controller-behind", "head": list(tx.head()), "proven": list(proven)}
        tx.record(AuditEvent(AuditAction.WARN, actor, (connector_target(row, network_of(tx, row)),), detail))
    return True


def state(row: ConnectorRow, now_ms: int) -> str:
    """Return the ConnectorState of the Admin API."""
    if row.last_heartbeat_ms is None or row.left_ms is not None:
        return "DEAD_NO_HEARTBEAT"
    if now_ms - row.last_heartbeat_ms > HEARTBEAT_TOO_OLD_MS:
        return "DEAD_HEARTBEAT_TOO_OLD"
    return "ALIVE"
