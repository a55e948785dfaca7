"""A controller that a connector proves to be behind itself grants nothing (security.md 14, decision 0014)."""

from __future__ import annotations

import logging

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
    """The highest head that a connector has proved."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self.proven: Stamp = (0, 0)
        self._strange: set[int] = set()

    def shown(self, token: str, connector: int, now: float) -> bool:
        """Take note of a head that a connector shows; returns whether it is the highest so far. `now` in seconds."""
        try:
            head = verify_head(token, self._trust.keys[KeyPurpose.HEAD], network=self._trust.network, now=now)
        except InvalidToken as error:
            if connector not in self._strange:
                self._strange.add(connector)
                logger.error("connector %d shows a head that is not this controller's: %s", connector, error.message)
            return False
        if head <= self.proven:
            return False
        self.proven = head
        return True

    def behind(self, own: Stamp) -> bool:
        """Return whether the controller, being at `own`, is behind what it has said."""
        return own < self.proven

    def check(self, own: Stamp) -> None:
        """Raise ControllerBehind when it is."""
        if self.behind(own):
            raise ControllerBehind
