"""What an admin can do about a flow that was denied, failed or ended."""

from __future__ import annotations

from klinket.domain.flow import FlowFailure

REMEDIES = {
    FlowFailure.NOT_GRANTED: "If the service should reach it, grant it the resource, and see that the resource opens this port.",
    FlowFailure.GRANT_EXPIRED: "Look whether the client still runs and reaches the controller; it renews its grant by itself.",
    FlowFailure.SERVICE_KEY_REVOKED: "Give the job another key if it should go on: a revoked key does not come back.",
    FlowFailure.SERVICE_KEY_EXPIRED: "Generate a new key for the service and give it to the job.",
    FlowFailure.THROTTLED: "See what the service does so often; its limits are shared by all of its flows.",
    FlowFailure.CUT: "Nothing: access was taken away on purpose. The cut's receipt says by whom and how fast.",
    FlowFailure.ADDRESS_FORBIDDEN: "Make a resource for the IP address itself if it is meant to be reached.",
    FlowFailure.NAME_NOT_FOUND: "Check the resource's address; the resolver of the connector's network must know it.",
    FlowFailure.REFUSED: "Check that the program behind the resource runs and listens on this port.",
    FlowFailure.TIMED_OUT: "Check that the resource is up, and that no firewall stands between the connector and it.",
    FlowFailure.UNREACHABLE: "Check the routes of the connector's host to the resource.",
    FlowFailure.NO_CONNECTOR: "Bring a connector of the remote network online.",
    FlowFailure.DRAINING: "Nothing: clients go on over another connector of the remote network, if there is one.",
    FlowFailure.RESET: "Look at the program on the resource's side, and at what stands between it and the connector.",
    FlowFailure.ICMP_UNAVAILABLE: "Let the connector's group ping, by sysctl net.ipv4.ping_group_range, or give it CAP_NET_RAW.",
    FlowFailure.INTERNAL: "Look at the connector's log.",
}


def remedy(failure: str | None) -> str:
    """Return what to do, as a sentence; empty where there is nothing to say."""
    try:
        return REMEDIES.get(FlowFailure(failure), "")
    except ValueError:
        return ""
