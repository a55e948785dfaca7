"""Messages of the live channel between the controller and a client or a connector.

One JSON text frame of a WebSocket each, tagged by `type`. The order on every channel:

1. controller: `Challenge`;  2. peer: `Attach`;  3. controller: `ClientConfiguration` or `ConnectorConfiguration`
(full state, never a delta), or `Refused` and close;  4. anything below, in any order, until either side closes.

Times are milliseconds since the epoch at the controller, ages and durations say their unit in the name.
Fields are only ever added, with a default: an older peer ignores what it does not know. (docs/reference/control.md)
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from klinket.domain.errors import ProtocolError
from klinket.wire.inventory import ConnectorEntry, Grant, RelayEntry, RelayTicket, ResourceEntry

#: A frame above this is refused by both sides.
MAX_CONTROL_BYTES = 4 * 1024 * 1024
#: Resources that `Attach.only` names, and characters of each.
MAX_ONLY, MAX_ONLY_CHARACTERS = 64, 256
#: Path of the live channel at the controller.
CHANNEL_PATH = "/api/klinket/v1/channel"
#: Seconds over which clients come back that have lost their controller, at the most.
MAX_SPREAD_SECONDS = 20.0
#: Seconds between heartbeats of a peer; the controller answers each.
HEARTBEAT_SECONDS = 10.0
#: A channel without any message for this long is dead, on either side, in seconds.
CHANNEL_SILENCE_SECONDS = 35.0


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Base of all control messages."""


# ---- opening


class Challenge(Message, frozen=True, kw_only=True, tag="challenge"):
    """First message of the controller. `nonce` goes into the proof of `Attach` (RFC 7800 proof of possession).

    `uptime_ms`, `boot`: of a clock that goes on while the controller's machine is up, asleep or not, from a moment of its own,
    and which boot that is ("": not told). Unlike `time_ms` nobody sets that clock.
    """

    nonce: str
    time_ms: int
    uptime_ms: int = 0
    boot: str = ""


class Attach(Message, frozen=True, kw_only=True, tag="attach"):
    """`access_token` as issued at login or enrolment; `proof`: wire.access_token.sign_proof over the nonce.

    `only`, from clients: grants are to be for these resources alone, by name, alias, address or a host they serve; none: for all.
    """

    access_token: str
    proof: str
    version: str
    only: list[str] = []


class Refused(Message, frozen=True, kw_only=True, tag="refused"):
    """The channel ends after this. `code` is a code of domain.errors."""

    code: str
    message: str
    hint: str = ""
    retry_after: float | None = None


# ---- both roles, peer to controller


class Heartbeat(Message, frozen=True, kw_only=True, tag="heartbeat"):
    """Every HEARTBEAT_SECONDS. Clients leave the connector's facts out. `head`: the newest signed head it was ever given.

    `started_ms`: when the connector's process began, by the controller's clock; 0: not told. `direct`: host:port where it
    listens for clients itself, if it does; `punches`: it does hole punching; `leaves`: it ends now.
    """

    sequence: int
    time_ms: int
    version: str = ""
    hostname: str = ""
    private_ips: list[str] = []
    relays: list[int] = []
    revision: int = 0
    flows: int = 0
    head: str = ""
    started_ms: int = 0
    direct: list[str] = []
    punches: bool = False
    leaves: bool = False


class Renew(Message, frozen=True, kw_only=True, tag="renew"):
    """Asks for a new configuration: fresh grants and tickets. Sent at half of the grants' life."""


class RenewCertificate(Message, frozen=True, kw_only=True, tag="renew-certificate"):
    """Asks for a certificate and access token for the same key. `request` is a PKCS#10 request, PEM."""

    request: str


class Punch(Message, frozen=True, kw_only=True, tag="punch"):
    """Client to controller: it wants connections with a connector through the NATs of both."""

    connector: int


# ---- both roles, controller to peer


class PunchInvitation(Message, frozen=True, kw_only=True, tag="punch-invitation"):
    """To both sides: show `token` at REFLECT_PATH from domain.punch.ENDPOINTS local ports. `connector`: of the meeting."""

    id: str
    token: str
    connector: int


class PunchStart(Message, frozen=True, kw_only=True, tag="punch-start"):
    """To both sides: begin `in_ms` from now; `peers`: where the other one's ports were seen ("address:port")."""

    id: str
    peers: list[str]
    in_ms: int = 0


class PunchRefused(Message, frozen=True, kw_only=True, tag="punch-refused"):
    """To the client: there will be no connection with this connector, and why; relays serve."""

    connector: int
    message: str


class HeartbeatAnswer(Message, frozen=True, kw_only=True, tag="heartbeat-answer"):
    """`uptime_ms`, `boot`: as in Challenge."""

    sequence: int
    time_ms: int
    uptime_ms: int = 0
    boot: str = ""


class CertificateRenewed(Message, frozen=True, kw_only=True, tag="certificate-renewed"):
    certificate: str
    access_token: str
    expires_at_ms: int


# ---- client


class ClientConfiguration(Message, frozen=True, kw_only=True, tag="client-configuration"):
    """Everything a client needs, complete each time. `connector_authority`: PEM; `valid_until_ms`: trust in the
    connectors named here ends then (security.md 16); `renew_at_ms`: when to send Renew; `spread_ms`: over how long the
    clients come back, each at a random moment, when they have lost the controller."""

    epoch: int
    revision: int
    network: str
    session: str
    time_ms: int
    connector_authority: str
    resources: list[ResourceEntry] = []
    connectors: list[ConnectorEntry] = []
    relays: list[RelayEntry] = []
    tickets: list[RelayTicket] = []
    grants: list[Grant] = []
    renew_at_ms: int
    valid_until_ms: int
    spread_ms: int = 0


class EndSession(Message, frozen=True, kw_only=True, tag="end-session"):
    """Client to controller: this session is over."""


class SessionEnded(Message, frozen=True, kw_only=True, tag="session-ended"):
    """Controller to client: the session is over and why, e.g. `service-key-revoked`."""

    code: str
    message: str
    hint: str = ""


# ---- connector


class AccountLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits per service account, all keys together, at each connector. `bytes_per_second`: in each direction, 0: no limit."""

    new_flows_per_second: float
    new_flows_burst: int
    max_flows: int
    bytes_per_second: int = 0


class LimitsOfAccount(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one service account (its UUID) that are not those of all."""

    service_account: str
    limits: AccountLimits


class ConnectorConfiguration(Message, frozen=True, kw_only=True, tag="connector-configuration"):
    """Everything a connector needs, complete each time. `grant_keys`, `cut_keys`: JWK sets as JSON objects;
    `cuts`: signed cuts (wire.cut_token) younger than the longest grant, to be applied again; `head`: epoch and
    revision, signed (wire.head_token), for the connector to keep and to show; `uptime_ms`, `boot`: as in Challenge."""

    epoch: int
    revision: int
    network: str
    connector: int
    remote_network: int
    time_ms: int
    uptime_ms: int = 0
    boot: str = ""
    client_authority: str
    grant_keys: dict[str, object]
    cut_keys: dict[str, object]
    relays: list[RelayEntry] = []
    tickets: list[RelayTicket] = []
    cuts: list[str] = []
    limits: AccountLimits
    own_limits: list[LimitsOfAccount] = []
    max_grant_seconds: int
    renew_at_ms: int
    head: str = ""


class Cut(Message, frozen=True, kw_only=True, tag="cut"):
    """Controller to connector: end access now. `token`: signed cut (wire.cut_token); `head`: signed head of its stamp."""

    id: int
    token: str
    head: str = ""


class CutFlow(msgspec.Struct, frozen=True, kw_only=True):
    """A flow that was ended by a cut; `stopped_after_ms` counts from receiving the cut to the last byte released."""

    flow: str
    session: str
    service_account: str
    key: str
    resource: int
    host: str
    port: int
    protocol: str
    stopped_after_ms: float


class CutReceipt(Message, frozen=True, kw_only=True, tag="cut-receipt"):
    """Connector to controller: the cut `id` is in force here, and these flows were ended by it.

    `token`: the same, signed (wire.receipt_token); without it a receipt does not count.
    """

    id: int
    stopped_at_ms: int
    took_ms: float
    flows: list[CutFlow] = []
    token: str = ""


class FlowEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a flow (facts §5). `event`: established, closed, failed or denied; `failure`: a FlowFailure word."""

    event: str
    flow: str
    time_ms: int
    session: str
    service_account: str
    key: str
    resource: int | None
    host: str
    port: int
    protocol: str
    resource_ip: str | None = None
    client_ip: str | None = None
    relay: int | None = None
    bytes_from_client: int = 0
    bytes_to_client: int = 0
    duration_ms: int | None = None
    failure: str | None = None


class FlowEvents(Message, frozen=True, kw_only=True, tag="flow-events"):
    """Connector to controller, kept on its disk until answered. `batch` grows from batch to batch of this
    connector, by no fixed step, and is never given twice."""

    batch: int
    events: list[FlowEvent]


class FlowEventsStored(Message, frozen=True, kw_only=True, tag="flow-events-stored"):
    batch: int


ToController = Attach | Heartbeat | Punch | Renew | RenewCertificate | EndSession | CutReceipt | FlowEvents
PunchTold = PunchInvitation | PunchStart | PunchRefused
ToClient = Challenge | Refused | HeartbeatAnswer | CertificateRenewed | ClientConfiguration | SessionEnded | PunchTold
ToConnector = (
    Challenge | Refused | HeartbeatAnswer | CertificateRenewed | ConnectorConfiguration | Cut | FlowEventsStored
    | PunchInvitation | PunchStart
)  # fmt: skip

_T = TypeVar("_T")

_encoder = msgspec.json.Encoder()
_to_controller: msgspec.json.Decoder[ToController] = msgspec.json.Decoder(ToController)
_to_client: msgspec.json.Decoder[ToClient] = msgspec.json.Decoder(ToClient)
_to_connector: msgspec.json.Decoder[ToConnector] = msgspec.json.Decoder(ToConnector)


def encode(message: Message) -> str:
    """Return the JSON text of one message."""
    return _encoder.encode(message).decode()


def decode_to_controller(text: str | bytes) -> ToController:
    """Parse what a client or connector sent; raises ProtocolError."""
    return _decode(_to_controller, text)


def decode_to_client(text: str | bytes) -> ToClient:
    """Parse what the controller sent to a client; raises ProtocolError."""
    return _decode(_to_client, text)


def decode_to_connector(text: str | bytes) -> ToConnector:
    """Parse what the controller sent to a connector; raises ProtocolError."""
    return _decode(_to_connector, text)


def _decode(decoder: msgspec.json.Decoder[_T], text: str | bytes) -> _T:
    if len(text) > MAX_CONTROL_BYTES:
        raise ProtocolError(f"control message of {len(text)} characters, the limit is {MAX_CONTROL_BYTES}")
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ProtocolError(f"control message: {error}") from error
