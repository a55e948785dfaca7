"""What a store tells whoever it cannot serve: no fault of the caller, and waiting helps. All of them are 503 over HTTP."""

from __future__ import annotations

from typing import ClassVar

from klinket.domain.errors import KlinketError


class StoreUnavailable(KlinketError):
    """Base of all refusals below; people see the word of the one that was raised."""

    code = "store-unavailable"
    retry_seconds: ClassVar[float] = 1.0

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, retry_after=self.retry_seconds)


class StoreOverloaded(StoreUnavailable):
    """More changes wait than the writer can take; the change was not made."""

    code = "store-overloaded"
    default_hint = "try again in a moment"


class StoreClosed(StoreUnavailable):
    """The controller is going down; the change was not made."""

    code = "store-closed"
    default_hint = "try again when the controller is back"
    retry_seconds = 5.0


class StoreUnreachable(StoreUnavailable):
    """The database is away or locked; nothing was changed."""

    code = "store-unreachable"
    default_hint = "try again in a moment; the controller goes on by itself when its database is back"
    retry_seconds = 5.0


class StoreNotWritable(StoreUnavailable):
    """The database takes no change, for its disk is full, read-only or broken; nothing was changed."""

    code = "store-not-writable"
    default_hint = (
        "make room on the disk of the controller's database, or make it writable; the controller then goes on by itself"
    )
    retry_seconds = 5.0


class OutcomeUnknown(StoreUnavailable):
    """The database was lost between a commit and its answer: the change was made, or it was not."""

    code = "store-outcome-unknown"
    default_hint = "look whether the change is there before you repeat it"
    retry_seconds = 5.0


class StoreInUse(StoreUnavailable):
    """Another controller runs on this database."""

    code = "store-in-use"
    default_hint = "one controller per database: stop the other one, or give this one a database of its own"
    retry_seconds = 5.0
