"""What a store tells whoever it cannot serve. All of them pass: 503 over HTTP."""

from __future__ import annotations

from klinket.domain.errors import KlinketError


class StoreUnavailable(KlinketError):
    """Base of all refusals below; people see the word of the one that was raised."""

    code = "store-unavailable"


class StoreOverloaded(StoreUnavailable):
    """More changes wait than the writer can take."""

    code = "store-overloaded"
    default_hint = "try again in a moment"


class StoreClosed(StoreUnavailable):
    """The controller is going down; the change was not made."""

    code = "store-closed"
    default_hint = "try again when the controller is back"


class StoreUnreachable(StoreUnavailable):
    """The database is away or locked; nothing was changed."""

    code = "store-unreachable"
    default_hint = "try again in a moment; the controller goes on by itself when its database is back"


class OutcomeUnknown(StoreUnavailable):
    """The database was lost between a commit and its answer: the change was made, or it was not."""

    code = "store-outcome-unknown"
    default_hint = "look whether the change is there before you repeat it"


class StoreInUse(StoreUnavailable):
    """Another controller runs on this database."""

    code = "store-in-use"
    default_hint = "one controller per database: stop the other one, or give this one a database of its own"
