"""How klinket's own failures leave the process. Stable: scripts compare them (docs/reference/exit-codes.md)."""

from __future__ import annotations

from klinket.domain.errors import KlinketError

USAGE = 2
INTERNAL = 79
#: As shells have it: the command cannot be executed, or was not found.
CANNOT_EXECUTE = 126
NOT_FOUND = 127

#: Exit code by code word.
EXIT_CODES: dict[str, int] = {
    "service-key-invalid": 65,
    "service-key-expired": 66,
    "service-key-revoked": 67,
    "service-key-unknown": 67,
    "not-granted": 68,
    "no-connector": 69,
    "name-not-found": 70,
    "refused": 71,
    "timed-out": 72,
    "throttled": 73,
    "controller-unreachable": 74,
    "capture-impossible": 75,
    "session-ended": 76,
    "assertion-stale": 77,
    "conflict": 80,
    "not-found": 81,
    "connector-tokens-dead": 82,
    "connector-enrolled-elsewhere": 83,
    "connector-too-old": 84,
    "unreachable": 85,
    "grant-expired": 86,
    "cut": 87,
    "address-forbidden": 88,
    "key-not-ended": 89,
    "connector-refused": 90,
    "audit-altered": 92,
    "cut-not-answered": 93,
    "reset": 94,
    "not-running": 95,
    "needs-root": 96,
    "already-running": 97,
    "not-answering": 98,
    "daemon-ended": 99,
    "drain-incomplete": 100,
    "icmp-unavailable": 101,
    "cut-altered": 102,
    "authentication-failed": 65,
    "forbidden": 65,
    "invalid-input": USAGE,
}


def exit_code(error: KlinketError) -> int:
    """Return the exit code of an error; a refused flow counts by its failure word."""
    failure = getattr(error, "failure", None)
    word = getattr(failure, "value", None) or error.code
    return EXIT_CODES.get(word, INTERNAL)
