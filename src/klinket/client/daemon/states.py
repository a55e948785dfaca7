"""The one word `klinket status` says, and why (docs/reference/status-words.md).

No word but `online` holds "online", and no sentence beside another word does: scripts look for it in either.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from klinket.client.capture.machine import CaptureState
from klinket.client.daemon.protocol import NetworkRow
from klinket.domain.errors import (
    AssertionStale,
    AuthenticationFailed,
    KlinketError,
    ServiceKeyExpired,
    ServiceKeyRevoked,
    Throttled,
)


class State(Enum):
    """The words, from the first that counts to the last."""

    UNINITIALIZED = "uninitialized"
    NOT_RUNNING = "not-running"
    NOT_ANSWERING = "not-answering"
    STOPPING = "stopping"
    KEY_REVOKED = "key-revoked"
    KEY_EXPIRED = "key-expired"
    KEY_REFUSED = "key-refused"
    CLOCK_WRONG = "clock-wrong"
    THROTTLED = "throttled"
    OFFLINE = "offline"
    AUTHENTICATING = "authenticating"
    CAPTURE_IMPOSSIBLE = "capture-impossible"
    RULES_MISSING = "rules-missing"
    DNS_MISSING = "dns-missing"
    NO_CONNECTOR = "no-connector"
    CONNECTING = "connecting"
    ONLINE = "online"


_WAIT = "wait, or klinket wait"
_RESTART = "klinket stop, then klinket start"
_CONNECTORS = "klinket admin connector list"
#: States that waiting does not change: somebody has to do something first.
FINAL = frozenset({State.UNINITIALIZED, State.KEY_REVOKED, State.KEY_EXPIRED, State.KEY_REFUSED, State.CAPTURE_IMPOSSIBLE})


@dataclass(frozen=True, slots=True)
class Facts:
    """What a daemon knows of itself.

    `trouble`: why there is no session, or not any more; `configured`: a session is there, what it was told counts still;
    `capture`: None where nothing is captured, by choice or not yet; `networks`: None until connectors were asked.
    """

    has_key: bool
    stopping: bool = False
    trouble: KlinketError | None = None
    configured: bool = False
    capture_wanted: bool = True
    capture_failed: KlinketError | None = None
    capture: CaptureState | None = None
    networks: Sequence[NetworkRow] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A word, the reason for it, and what to do next; both are "" for `online`."""

    state: State
    reason: str = ""
    next_step: str = ""


def judge(facts: Facts) -> Verdict:
    """Return what is to be said: the first thing that is missing, in the order in which it is needed."""
    found = _without_session(facts) or _without_capture(facts) or _without_connector(facts)
    return found or Verdict(State.ONLINE)


def _without_session(facts: Facts) -> Verdict | None:
    if facts.stopping:
        return Verdict(State.STOPPING, "the daemon is ending", "klinket start")
    if facts.trouble is not None and not facts.configured:
        return Verdict(_word_for(facts.trouble), facts.trouble.message, facts.trouble.hint or "klinket report")
    if not facts.has_key:
        return Verdict(State.UNINITIALIZED, "there is no service key", "klinket setup --headless FILE")
    if not facts.configured:
        return Verdict(State.AUTHENTICATING, "the controller has not answered yet", _WAIT)
    return None


def _without_capture(facts: Facts) -> Verdict | None:
    if not facts.capture_wanted:
        return None
    if facts.capture_failed is not None:
        return Verdict(State.CAPTURE_IMPOSSIBLE, facts.capture_failed.message, facts.capture_failed.hint or "klinket report")
    if facts.capture is None:
        return Verdict(State.CONNECTING, "rules and DNS are being put in place", _WAIT)
    problem = facts.capture.problems[0] if facts.capture.problems else ""
    if not facts.capture.rules:
        return Verdict(State.RULES_MISSING, problem or "the daemon's rules are not in place", _RESTART)
    if not facts.capture.dns:
        return Verdict(State.DNS_MISSING, problem or "the system does not ask the daemon for names", _RESTART)
    return None


def _without_connector(facts: Facts) -> Verdict | None:
    if facts.networks is None:
        return Verdict(State.CONNECTING, "no connector has answered yet", _WAIT)
    missing = next((row for row in facts.networks if not row.reached), None)
    if missing is None:
        return None
    return Verdict(State.NO_CONNECTOR, missing.problem or f"no connector leads to {missing.resource!r}", _CONNECTORS)


def _word_for(trouble: KlinketError) -> State:
    match trouble:
        case ServiceKeyRevoked():
            return State.KEY_REVOKED
        case ServiceKeyExpired():
            return State.KEY_EXPIRED
        case AssertionStale():
            return State.CLOCK_WRONG
        case AuthenticationFailed():
            return State.KEY_REFUSED
        case Throttled():
            return State.THROTTLED
        case _:
            return State.OFFLINE


def guarded(text: str) -> str:
    """Return a sentence without the word that only the state `online` may say, in one line."""
    return re.sub("online", "up", " ".join(text.split()), flags=re.IGNORECASE)
