"""Every error klinket tells people about: a stable code, a sentence, and what to do next.

Codes appear in logs, in the Admin API, at the client's exit and in the docs; a code is never renamed.
"""

from __future__ import annotations

from typing import ClassVar

from klinket.domain.flow import FlowFailure


class KlinketError(Exception):
    """An error with a stable `code`, a `message` for people and a `hint` that says what to do next.

    `retry_after` is in seconds and set only where waiting helps.
    """

    code: ClassVar[str] = "internal"
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InvalidInput(KlinketError):
    """A value given from outside breaks a rule; `field` names it."""

    code = "invalid-input"

    def __init__(self, field: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.field = field


class NotFound(KlinketError):
    """`kind` and `id` name what is missing; the text contains "does not exist" (facts §7)."""

    code = "not-found"

    def __init__(self, kind: str, id: object) -> None:
        super().__init__(f"{kind} with id '{id}' does not exist")
        self.kind = kind
        self.id = id


class Conflict(KlinketError):
    """The change contradicts what is stored, for example a name that is taken."""

    code = "conflict"


class LifecycleError(KlinketError):
    """A service key cannot make this move from the state it is in."""

    code = "service-key-state"


class ProtocolError(KlinketError):
    """A peer sent bytes that break the protocol; the connection ends."""

    code = "protocol-error"


class AuthenticationFailed(KlinketError):
    """Base of all refusals to believe who somebody is."""

    code = "authentication-failed"


class Forbidden(AuthenticationFailed):
    """Whoever asks is known, but may not do this, or not from there (HTTP 403)."""

    code = "forbidden"


class InvalidToken(AuthenticationFailed):
    code = "invalid-token"


class CutAltered(InvalidToken):
    """A cut's document is not what the controller and the connectors signed; the message says what differs."""

    code = "cut-altered"
    default_hint = "make it again and compare; keep the file: it shows what was changed"


class WrongSignature(InvalidToken):
    """The token was not signed by the key it should be."""


class ServiceKeyInvalid(AuthenticationFailed):
    """The key file cannot be read, or the key does not belong to this account or network."""

    code = "service-key-invalid"
    default_hint = "generate a new service key with `klinket admin service key generate`"


class ServiceKeyUnknown(AuthenticationFailed):
    """No such key (deleted, never made), or the signature is not its own (told apart in the audit only)."""

    code = "service-key-unknown"
    default_hint = (
        "the key may have been deleted, or the file's private key is not its own: generate a new one for the same account"
    )


class ServiceKeyRevoked(AuthenticationFailed):
    code = "service-key-revoked"
    default_hint = "ask an admin for a new key of the same service account"


class ServiceKeyExpired(AuthenticationFailed):
    code = "service-key-expired"
    default_hint = "generate a new key for the same service account; an expiry cannot be changed"


class AssertionReplayed(AuthenticationFailed):
    code = "assertion-replayed"
    default_hint = "each login needs a fresh assertion"


class AssertionStale(AuthenticationFailed):
    """`time_ms`: the time at whoever judged it, in milliseconds since the epoch, where that is told."""

    code = "assertion-stale"
    default_hint = "set the clock of this machine, or the controller's: `klinket doctor` tells which is off"

    def __init__(
        self, message: str, *, hint: str | None = None, retry_after: float | None = None, time_ms: int | None = None
    ) -> None:
        super().__init__(message, hint=hint, retry_after=retry_after)
        self.time_ms = time_ms


class ConnectorTokensDead(AuthenticationFailed):
    """Tokens of a connector that were replaced, or that already enrolled another key (HTTP 410, facts §5)."""

    code = "connector-tokens-dead"
    default_hint = "generate new tokens for this connector and start it with them"


class EnrolledElsewhere(AuthenticationFailed, Conflict):
    """The tokens have enrolled another key already: a copy of them is in use, or the connector lost its state."""

    code = "connector-enrolled-elsewhere"
    default_hint = "if this connector lost its state folder, generate new tokens for it; if not, somebody has a copy"


class SessionOver(AuthenticationFailed):
    """The session was ended, or is unknown to this controller."""

    code = "session-ended"
    default_hint = "log in again with the service key"


class Throttled(KlinketError):
    """A limit of the service account (all keys together) is used up; the message names the limit. `limit`: its code word."""

    code = "throttled"
    default_hint = "give each high-traffic system a service account of its own"

    def __init__(self, message: str, *, hint: str | None = None, retry_after: float | None = None, limit: str = "") -> None:
        super().__init__(message, hint=hint, retry_after=retry_after)
        self.limit = limit

    @classmethod
    def again_in(cls, seconds: float, message: str) -> Throttled:
        """Return a refusal that waiting alone helps against."""
        return cls(message, hint=f"try again in {seconds:.0f} s", retry_after=seconds)


class SignInRefused(AuthenticationFailed):
    """A person is not believed. One text for every reason: who guesses learns nothing."""

    code = "sign-in-refused"


class SignInOver(AuthenticationFailed):
    """A sign-in that was begun has ended: too late, too many tries, or it was begun elsewhere."""

    code = "sign-in-over"
    default_hint = "begin again"


class SignInLocked(Throttled):
    """Too many failures of an address or for an account: nothing is tried for a while, whether the account exists or not."""

    code = "sign-in-locked"
    default_hint = "wait, use a passkey, or have a link made: `klinket issue admin-link`"


class IdentityRefused(AuthenticationFailed):
    """What an identity provider says of somebody is not believed, or lets nobody in."""

    code = "identity-refused"
    default_hint = "begin again; if it stays, an admin finds the reason in the audit"


class IdentityProviderAway(KlinketError):
    """The identity provider cannot be reached or does not answer as one: nobody was refused, and other ways in are open."""

    code = "identity-provider-away"
    default_hint = (
        "sign in another way: by password and second factor, with a passkey, or with a one-time link of an admin"
        " (`klinket issue admin-link` on the controller's machine); or try again later"
    )


class ConnectorTooOld(Conflict):
    """A connector of the remote network is below the version a feature needs (facts §5)."""

    code = "connector-too-old"


class ControllerUnreachable(KlinketError):
    code = "controller-unreachable"
    default_hint = "check the host in the key file's `network` field, DNS, and that outbound HTTPS is allowed"


class NotTheController(ControllerUnreachable):
    """Somebody answered who is not this controller: another certificate, or no answer of klinket's. Waiting does not help."""


class CaptureImpossible(KlinketError):
    code = "capture-impossible"


class FlowRefused(KlinketError):
    """A flow was not opened; `failure` is the word of `domain.flow.FlowFailure` that says why."""

    code = "flow-refused"

    def __init__(self, failure: FlowFailure, message: str, *, hint: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint, retry_after=retry_after)
        self.failure = failure


class AuditAltered(KlinketError):
    """An export of the audit is not what the controller signed; the message names the first event that is wrong."""

    code = "audit-altered"
    default_hint = "export again and compare; keep the file: it shows what was changed"
