"""Times, sizes, durations and reasons as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

from klinket.domain.flow import FlowFailure

_UNITS = ((365 * 86_400, "y"), (30 * 86_400, "mo"), (86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
#: Why a flow was not opened, or was ended, as a sentence for an admin. A word that is not here is shown as it is.
FAILURES = {
    FlowFailure.NOT_GRANTED: "The service was not granted this address and port",
    FlowFailure.GRANT_EXPIRED: "The client's grant was over and had not been renewed",
    FlowFailure.SERVICE_KEY_REVOKED: "The service key was revoked or deleted",
    FlowFailure.SERVICE_KEY_EXPIRED: "The service key has expired",
    FlowFailure.THROTTLED: "The service used up a limit",
    FlowFailure.CUT: "Access was taken away while it was in use",
    FlowFailure.ADDRESS_FORBIDDEN: "The name leads to an address that connectors never dial unless it is granted itself",
    FlowFailure.NAME_NOT_FOUND: "The connector's network knows no such name",
    FlowFailure.REFUSED: "The resource refused the connection: nothing listens on that port",
    FlowFailure.TIMED_OUT: "The resource did not answer in time",
    FlowFailure.UNREACHABLE: "There is no route from the connector to the resource",
    FlowFailure.NO_CONNECTOR: "No connector of the remote network was reachable",
    FlowFailure.DRAINING: "The connector was about to stop",
    FlowFailure.RESET: "The connection was reset",
    FlowFailure.CONTROLLER_UNREACHABLE: "The client could not reach the controller, so nothing was known to be granted",
    FlowFailure.ICMP_UNAVAILABLE: "The connector's host lets it send no pings",
    FlowFailure.INTERNAL: "A fault inside klinket; the connector's log says more",
}


def relative_time(ms: int, now_ms: int) -> str:
    """Return how long ago, or in what time, a moment is: "3 h ago", "in 12 d", "just now"."""
    seconds = (now_ms - ms) // 1000 if now_ms >= ms else (ms - now_ms) // 1000
    if seconds < 5:
        return "just now"
    span, unit = next((span, unit) for span, unit in _UNITS if seconds >= span)
    text = f"{seconds // span} {unit}"
    return f"{text} ago" if now_ms >= ms else f"in {text}"


def exact_time(ms: int) -> str:
    """Return a moment to the second, in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def bytes_in_words(count: int) -> str:
    """Return a size with at most three digits: "1.2 MB"; units are powers of 1000."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}" if size < 9.95 else f"{size:.0f} {unit}"


def duration_in_words(ms: float) -> str:
    """Return a duration with its two largest units: "12 ms", "3.4 s", "2 min 5 s", "1 h 12 min"."""
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    seconds = int(ms // 1000)
    units = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    index = next(index for index, (span, _) in enumerate(units) if seconds >= span)
    parts = []
    for span, unit in units[index : index + 2]:
        whole, seconds = divmod(seconds, span)
        if whole:
            parts.append(f"{whole} {unit}")
    return " ".join(parts)


def failure_in_words(word: str | None) -> str:
    """Return why a flow failed, as a sentence."""
    if not word:
        return ""
    try:
        return FAILURES.get(FlowFailure(word), word)
    except ValueError:
        return word
