"""Limits on logins: an account's, all keys together, and a back-off for addresses that fail."""

from __future__ import annotations

import pytest

from klinket.controller.throttle import (
    ADDRESS_FAILURE_BURST,
    FAILURE_BURST,
    FAILURES_PER_SECOND,
    RECORD_BURST,
    RECORDS_PER_SECOND,
    LoginThrottle,
)
from klinket.domain.account_limits import DEFAULTS
from klinket.domain.errors import (
    AssertionReplayed,
    AssertionStale,
    InvalidToken,
    KlinketError,
    ServiceKeyExpired,
    ServiceKeyRevoked,
    ServiceKeyUnknown,
    Throttled,
    WrongSignature,
)


def test_an_account_logs_in_so_often_at_once_and_so_often_after_that() -> None:
    throttle = LoginThrottle()
    for _ in range(DEFAULTS.login_burst):
        throttle.count_account("account", "ci", 0.0)
    with pytest.raises(Throttled, match="service account 'ci'") as caught:
        throttle.count_account("account", "ci", 0.0)
    assert caught.value.retry_after == pytest.approx(1 / DEFAULTS.logins_per_second)
    throttle.count_account("another", "other", 0.0)
    throttle.count_account("account", "ci", 1 / DEFAULTS.logins_per_second)
    with pytest.raises(Throttled):
        throttle.count_account("account", "ci", 1 / DEFAULTS.logins_per_second)


def unproven() -> ServiceKeyUnknown:
    """Return the refusal of a login that was not signed by the key it names."""
    error = ServiceKeyUnknown("no such service key")
    error.__cause__ = WrongSignature("wrong")
    return error


def fail(throttle: LoginThrottle, error: KlinketError, address: str = "192.0.2.1", kid: str = "key-1", now: float = 0.0) -> bool:
    """Return whether a failed login is slowed."""
    try:
        throttle.failed(error, address, kid, now)
    except Throttled:
        return True
    return False


def test_failures_of_one_address_and_key_are_slowed_and_forgiven_with_time() -> None:
    throttle = LoginThrottle()
    assert [fail(throttle, unproven()) for _ in range(FAILURE_BURST)] == [False] * FAILURE_BURST
    with pytest.raises(Throttled, match=r"192\.0\.2\.1") as caught:
        throttle.failed(unproven(), "192.0.2.1", "key-1", 0.0)
    assert caught.value.retry_after == pytest.approx(1 / FAILURES_PER_SECOND)
    assert caught.value.hint
    assert not fail(throttle, unproven(), address="192.0.2.2")
    assert not fail(throttle, unproven(), kid="key-2")
    assert not fail(throttle, unproven(), now=1 / FAILURES_PER_SECOND)


@pytest.mark.parametrize("error", [ServiceKeyUnknown("x"), unproven(), InvalidToken("x")], ids=["unknown", "known", "malformed"])
def test_all_keys_together_share_the_patience_of_an_address_whether_they_exist_or_not(error: KlinketError) -> None:
    throttle = LoginThrottle()
    told = [fail(throttle, error, kid=f"key-{number}") for number in range(2 * ADDRESS_FAILURE_BURST)]
    assert told == [False] * ADDRESS_FAILURE_BURST + [True] * ADDRESS_FAILURE_BURST
    assert not fail(throttle, error, address="192.0.2.2")


def test_after_many_guesses_a_key_that_exists_is_answered_like_one_that_does_not() -> None:
    throttle = LoginThrottle()
    for number in range(FAILURE_BURST + 1):
        fail(throttle, ServiceKeyUnknown("x"), kid=f"key-{number}")
    for error in (ServiceKeyUnknown("x"), unproven()):
        assert not fail(throttle, error, kid=type(error.__cause__).__name__)
    for error in (ServiceKeyUnknown("x"), unproven()):
        told = [fail(throttle, error, address="192.0.2.3", kid=str(error.__cause__)) for _ in range(FAILURE_BURST + 1)]
        assert told == [False] * FAILURE_BURST + [True]


def test_addresses_of_one_ipv6_network_share_their_patience() -> None:
    throttle = LoginThrottle()
    told = [fail(throttle, unproven(), address=f"2001:db8::{number:x}") for number in range(FAILURE_BURST + 1)]
    assert told[-1]
    assert not fail(throttle, unproven(), address="2001:db8:0:1::1")


@pytest.mark.parametrize("kind", [ServiceKeyRevoked, ServiceKeyExpired, AssertionReplayed, AssertionStale, Throttled])
def test_whoever_holds_the_key_is_told_the_reason_however_often(kind: type[KlinketError]) -> None:
    throttle = LoginThrottle()
    assert not any(fail(throttle, kind("x")) for _ in range(10 * FAILURE_BURST))


def test_refusals_of_a_key_fill_the_audit_slowly() -> None:
    throttle = LoginThrottle()
    assert sum(throttle.may_record("key-1", 0.0) for _ in range(10 * RECORD_BURST)) == RECORD_BURST
    assert throttle.may_record("key-2", 0.0)
    assert throttle.may_record("key-1", 1 / RECORDS_PER_SECOND)
