"""A controller that a connector proves to be behind itself grants nothing (security.md 14, decision 0014)."""

from __future__ import annotations

import logging

from klinket.controller.app.ports import Transaction
from klinket.controller.app.store_errors import StoreUnavailable
from klinket.controller.trust import KeyPurpose, Trust
from klinket.domain.cut import Stamp
from klinket.domain.errors import InvalidToken
from klinket.wire.head_token import verify_head

logger = logging.getLogger(__name__)


class ControllerBehind(StoreUnavailable):
    """A connector was told a later state than the controller's own: a restored backup, which knows nothing of later cuts."""

    code = "controller-behind"
    default_hint = "an admin has to look at what was restored, then: klinket issue accept-head --state DIR"

    retry_seconds = 30.0

    def __init__(self) -> None:
        super().__init__("the controller was restored from a backup and grants nothing until an admin accepts that")


class HeadGuard:
    """Judges the heads that connectors show."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._strange: set[int] = set()

    def shown(self, token: str, connector: int) -> Stamp | None:
        """Return the head that a connector shows, None for one that this controller never signed."""
        try:
            return verify_head(token, self._trust.keys[KeyPurpose.HEAD], network=self._trust.network)
        except InvalidToken as error:
            if connector not in self._strange:
                self._strange.add(connector)
                logger.error("connector %d shows a head that is not this controller's: %s", connector, error.message)
            return None


def check(tx: Transaction) -> None:
    """Raise ControllerBehind while a proved head is kept: changes count the own one up, which brings nothing back."""
    refuse(tx.proven_head())


def refuse(proven: Stamp | None) -> None:
    """Raise ControllerBehind if there is a proved head."""
    if proven is not None:
        raise ControllerBehind
