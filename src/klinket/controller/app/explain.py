"""Why a service account reaches an address, or why not: the same decisions that controller and connectors make.

The steps are those of `klinket explain` (domain.explanation), which tries them; here the last two are what connectors have told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType

from klinket.controller.app import account_limits, flow_totals, resources
from klinket.controller.app.access import versions_of
from klinket.controller.app.ports import Transaction
from klinket.controller.app.refused_logins import RefusedLogins
from klinket.controller.app.resources import BYPASS
from klinket.controller.app.rows import ConnectorRow, FlowEventRow, ResourceRow, ServiceAccountRow
from klinket.domain.account_limits import DEFAULTS, AccountLimits
from klinket.domain.address import canonical_host, parse_ip
from klinket.domain.connector import check_services_allowed
from klinket.domain.errors import ConnectorTooOld
from klinket.domain.explanation import Step, StepName, found_resource, opens
from klinket.domain.flow import HINTS, Destination, FlowFailure
from klinket.domain.resource import ResourceIndex
from klinket.domain.service_key import KeyState

#: Resources looked at for the one that would serve a host.
MAX_CANDIDATES = 20_000
#: Newest network events of the account and the resource that are looked through for the last dial.
MAX_EVENTS = 500
#: Steps that tell what was, not what may be now.
_TOLD = (StepName.DNS, StepName.DIAL)


@dataclass(frozen=True, slots=True)
class Explanation:
    """`resource`: the one that decides, granted or not; None when none serves the host."""

    resource: ResourceRow | None
    steps: tuple[Step, ...]

    @property
    def allowed(self) -> bool:
        """Return whether every condition is met; what connectors saw last is none."""
        return all(step.ok for step in self.steps if step.name not in _TOLD)


def explain(
    tx: Transaction,
    account: ServiceAccountRow,
    destination: Destination,
    attached: Mapping[int, Sequence[int]],
    listening: Mapping[int, Sequence[str]] = MappingProxyType({}),
    defaults: AccountLimits = DEFAULTS,
    refused: RefusedLogins | None = None,
) -> Explanation:
    """Return the conditions in the order in which they count. `attached`: connectors online now, and the relays each is at.

    `listening`: where connectors listen for clients themselves; `defaults`: limits of accounts for which nothing else is set;
    `refused`: logins that limits have refused.

    Raises InvalidInput for a host that is none.
    """
    host = canonical_host(destination.host)
    destination = Destination(host, destination.port, destination.protocol)
    first = (_key_step(tx, account), _account_step(tx, account, defaults, refused or RefusedLogins()))
    links = tx.access.find(service_account_id=account.id)
    ids = [one.resource_id for one in links if one.expires_at_ms is None or one.expires_at_ms > tx.now_ms]
    rows = {row.id: row for row in tx.resources.find(id=ids)}
    networks = {row.id: row for row in tx.remote_networks.find(id={row.remote_network_id for row in rows.values()})}
    live = [
        row for row in rows.values() if row.is_active and row.routing_mode != BYPASS and networks[row.remote_network_id].is_active
    ]
    serving = ResourceIndex(resources.to_domain(row) for row in live).serving(host)
    if not serving:
        nearest = _nearest(tx, host, rows)
        is_granted = nearest is not None and nearest.id in rows
        return Explanation(nearest, (*first, _why_not(account, host, nearest, granted=is_granted)))
    row = rows[serving[0].id]
    steps = [*first, found_resource(serving, host), _grant_step(opens(serving[0], destination), row)]
    return Explanation(
        row, (*steps, *_connector_steps(tx, row, attached, listening), *_told_steps(tx, account, row, destination))
    )


def _key_step(tx: Transaction, account: ServiceAccountRow) -> Step:
    states = [row.state(tx.now_ms) for row in tx.service_keys.find(service_account_id=account.id, is_canary=False)]
    active = states.count(KeyState.ACTIVE)  # a canary key opens nothing
    if active:
        return Step(StepName.KEY, True, f"{account.name!r} has {active} active of {len(states)} keys")
    hint = "generate one: klinket admin service key generate"
    return Step(StepName.KEY, False, f"{account.name!r} has no active key", hint=hint, code="service-key-revoked")


def _account_step(tx: Transaction, account: ServiceAccountRow, defaults: AccountLimits, refused: RefusedLogins) -> Step:
    sessions = tx.sessions.count(service_account_id=account.id, ended_at_ms=None)
    limits, throttled = account_limits.of(tx, account.id, defaults), flow_totals.throttled(tx, account.id)
    evidence = (
        f"sessions now: {sessions} of {limits.max_sessions}",
        f"logins: {limits.login_burst} at once, then {limits.logins_per_second:g} a second",
        f"flows at each connector: {limits.max_flows} at a time; new ones {limits.new_flows_burst} at once, then "
        f"{limits.new_flows_per_second:g} a second",
        f"bandwidth at each connector: {_bandwidth(limits)}",
        f"flows refused in the last 7 days because a limit was used up: {throttled}",
        f"logins refused because of a limit since the controller began: {refused.told(account.uuid)}",
    )
    return Step(StepName.ACCOUNT, True, f"service account {account.name!r} may log in", evidence)


def _bandwidth(limits: AccountLimits) -> str:
    if limits.bytes_per_second is None:
        return "no limit"
    return f"{limits.bytes_per_second} bytes a second in each direction, all flows together"


def _grant_step(step: Step, row: ResourceRow) -> Step:
    if step.ok:
        return step
    change = f"klinket admin resource update {row.name!r} with --tcp, --udp or --icmp"
    return replace(step, hint=f"{change}: name all that is to be open, it replaces what was")


def _nearest(tx: Transaction, host: str, granted: Mapping[int, ResourceRow]) -> ResourceRow | None:
    """Return the resource that would serve the host were it granted and active; what is granted already comes first."""
    found = ResourceIndex(resources.to_domain(row) for row in granted.values()).lookup(host)
    if found is not None:
        return granted[found.id]
    rows = _candidates(tx, host)
    found = ResourceIndex(resources.to_domain(row) for row in rows.values()).lookup(host)
    return None if found is None else rows[found.id]


def _candidates(tx: Transaction, host: str) -> dict[int, ResourceRow]:
    """Return the resources whose address can serve a host: those that have it in their text, and ranges or wildcards.

    Without reading all of them: most resources of a large network have a plain name.
    """
    if "xn--" in host:  # a name with letters beyond ASCII, which may be written in many ways
        return {row.id: row for row in tx.resources.find()}
    ip = parse_ip(host)
    texts = ("*", "?") if ip is None else ("/",) if ip.version == 4 else ("/", ":")
    found = {row.id: row for row in tx.resources.search(("address", "alias"), host, MAX_CANDIDATES)}
    for text in texts:
        found |= {row.id: row for row in tx.resources.search(("address",), text, MAX_CANDIDATES)}
    return found


def _why_not(account: ServiceAccountRow, host: str, row: ResourceRow | None, *, granted: bool) -> Step:
    hint: str | None
    if row is None:
        text, hint = f"no resource serves {host}", "create one: klinket admin resource create"
    elif not granted:
        text = f"resource {row.name!r} serves {host}, but is not granted to {account.name!r}"
        hint = f"grant it: klinket admin service grant {account.name} {row.name!r}"
    elif not row.is_active:
        text, hint = f"resource {row.name!r} is disabled", f"klinket admin resource enable {row.name!r}"
    elif row.routing_mode == BYPASS:
        text, hint = f"resource {row.name!r} bypasses klinket: the client leaves its address to the system", None
    else:
        text, hint = f"the remote network of {row.name!r} is not active", "make the remote network active again"
    return Step(StepName.RESOURCE, False, text, hint=hint, code=FlowFailure.NOT_GRANTED.value)


def _connector_steps(
    tx: Transaction, row: ResourceRow, attached: Mapping[int, Sequence[int]], listening: Mapping[int, Sequence[str]]
) -> list[Step]:
    connectors = tx.connectors.find(remote_network_id=row.remote_network_id)
    online = [one for one in connectors if one.id in attached]
    steps = []
    if online:
        steps.append(_path_step(tx, online, attached, listening))
    try:
        check_services_allowed(versions_of(tx, row.remote_network_id))
    except ConnectorTooOld as error:
        return [*steps, Step(StepName.CONNECTOR, False, error.message, hint=error.hint, code=error.code)]
    if online:
        names = ", ".join(one.name for one in online)
        text = f"{len(online)} of {len(connectors)} connectors of its remote network are online: {names}"
        steps.append(Step(StepName.CONNECTOR, True, text))
    else:
        text = "no connector of its remote network is online" if connectors else "its remote network has no connector"
        hint = "klinket admin connector list; look at the connector's log"
        steps.append(Step(StepName.CONNECTOR, False, text, hint=hint, code=FlowFailure.NO_CONNECTOR.value))
    return steps


def _path_step(
    tx: Transaction,
    online: Sequence[ConnectorRow],
    attached: Mapping[int, Sequence[int]],
    listening: Mapping[int, Sequence[str]],
) -> Step:
    relays = {relay.id: relay for relay in tx.relays.find()}
    at = {id for one in online for id in attached[one.id] if id in relays}
    evidence = [f"relay {relays[id].name} ({relays[id].address})" for id in sorted(at)]
    evidence += [f"connector {one.name} listens at {', '.join(listening[one.id])}" for one in online if one.id in listening]
    if evidence:
        return Step(StepName.PATH, True, f"its connectors wait at {len(at)} of {len(relays)} relays", tuple(evidence))
    hint = "look at the connector's log: it must reach a relay"
    return Step(StepName.PATH, False, "no online connector is at a relay", hint=hint, code=FlowFailure.NO_CONNECTOR.value)


def _told_steps(tx: Transaction, account: ServiceAccountRow, row: ResourceRow, destination: Destination) -> Sequence[Step]:
    """Return what a connector said when it looked this host up and dialled it last; nothing where none is known to have."""
    for event in tx.flow_events.newest(MAX_EVENTS, service_account_id=account.id, resource_id=row.id):
        connection = event.event["connection"]
        asked = (event.event["resource"]["address"], connection["resource_port"], connection["protocol"])
        if asked == (destination.host, destination.port, destination.protocol.value) and event.kind != "denied":
            return _told(event, destination)
    return ()


def _told(event: FlowEventRow, destination: Destination) -> Sequence[Step]:
    host = destination.host
    connector = event.event["connector"]["name"] or event.connector_id
    at = datetime.fromtimestamp(event.time_ms / 1000, UTC).isoformat(timespec="seconds")
    evidence = (f"connector {connector}, {at}",)
    failure = event.failure if event.kind == "failed" else None
    if failure in (FlowFailure.NAME_NOT_FOUND.value, FlowFailure.ADDRESS_FORBIDDEN.value):
        word = FlowFailure(failure)
        return [Step(StepName.DNS, False, f"the last look-up of {host} ended with {failure}", evidence, HINTS.get(word), failure)]
    address = event.event["connection"]["resource_ip"]
    known = Step(
        StepName.DNS, True, f"the connector knew {host}" + (f" as {address}" if address and address != host else ""), evidence
    )
    if failure is None:
        return [known, Step(StepName.DIAL, True, f"the last connection to {destination} was accepted", evidence)]
    hint = HINTS.get(FlowFailure(failure)) if failure in {one.value for one in FlowFailure} else None
    return [
        known,
        Step(StepName.DIAL, False, f"the last connection to {destination} ended with {failure}", evidence, hint, failure),
    ]
