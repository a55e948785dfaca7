"""Defects that a part survives: it logs them with their traceback and goes on, so that nothing else may show them for long."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from klinket.domain.errors import KlinketError


@contextmanager
def defects_told(tell: Callable[[str], None]) -> Iterator[None]:
    """Have `tell` hear of each exception that is logged and is no KlinketError, also while logging is disabled."""
    true_error, true_exception = logging.Logger.error, logging.Logger.exception

    def hear(error: object) -> None:
        if isinstance(error, tuple):
            error = error[1]
        elif error is True:
            error = sys.exc_info()[1]
        if isinstance(error, BaseException) and not isinstance(error, KlinketError):
            tell(f"{type(error).__name__}: {error}")

    def log_error(self: logging.Logger, message: object, *args: object, **more: Any) -> None:
        hear(more.get("exc_info"))
        true_error(self, message, *args, **more)

    def log_exception(self: logging.Logger, message: object, *args: object, **more: Any) -> None:
        hear(more.get("exc_info", True))
        with patch.object(logging.Logger, "error", true_error):  # which the true one calls
            true_exception(self, message, *args, **more)

    with patch.object(logging.Logger, "error", log_error), patch.object(logging.Logger, "exception", log_exception):
        yield
