"""Limits on logins: an account's, all keys together, and a back-off for addresses that fail."""

from __future__ import annotations

import pytest

from klinket.controller.throttle import (
    FAILURE_BURST,
    FAILURES_PER_SECOND,
    LOGIN_BURST,
    LOGINS_PER_SECOND,
    LoginThrottle,
)
from klinket.domain.errors import Throttled


def test_an_account_logs_in_so_often_at_once_and_so_often_after_that() -> None:
    throttle = LoginThrottle()
    for _ in range(LOGIN_BURST):
        throttle.count_account("account", "ci", 0.0)
    with pytest.raises(Throttled, match="service account 'ci'") as caught:
        throttle.count_account("account", "ci", 0.0)
    assert caught.value.retry_after == pytest.approx(1 / LOGINS_PER_SECOND)
    throttle.count_account("another", "other", 0.0)
    throttle.count_account("account", "ci", 1 / LOGINS_PER_SECOND)
    with pytest.raises(Throttled):
        throttle.count_account("account", "ci", 1 / LOGINS_PER_SECOND)


def test_looking_at_an_address_costs_nothing_and_failures_are_forgiven_with_time() -> None:
    throttle = LoginThrottle()
    for _ in range(10 * FAILURE_BURST):
        throttle.check_address("192.0.2.1", 0.0)
    for _ in range(FAILURE_BURST):
        throttle.check_address("192.0.2.1", 0.0)
        throttle.failed("192.0.2.1", 0.0)
    with pytest.raises(Throttled, match=r"192\.0\.2\.1") as caught:
        throttle.check_address("192.0.2.1", 0.0)
    assert caught.value.retry_after == pytest.approx(1 / FAILURES_PER_SECOND)
    assert caught.value.hint
    throttle.check_address("192.0.2.2", 0.0)
    throttle.check_address("192.0.2.1", 1 / FAILURES_PER_SECOND)


def test_failures_above_the_bound_do_not_lengthen_the_wait() -> None:
    throttle = LoginThrottle()
    for _ in range(5 * FAILURE_BURST):
        throttle.failed("192.0.2.1", 0.0)
    throttle.check_address("192.0.2.1", 1 / FAILURES_PER_SECOND)
