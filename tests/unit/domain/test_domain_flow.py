"""Flows and errors as people and logs read them."""

from __future__ import annotations

import re

import pytest

from klinket.domain import errors
from klinket.domain.errors import FlowRefused, KlinketError, NotFound
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol


@pytest.mark.parametrize(
    ("host", "text"), [("db.internal", "tcp db.internal:5432"), ("10.0.0.1", "tcp 10.0.0.1:5432"), ("::1", "tcp [::1]:5432")]
)
def test_a_destination_reads_unambiguously(host: str, text: str) -> None:
    assert str(Destination(host, 5432, TransportProtocol.TCP)) == text


def test_failure_words_are_the_ones_already_told() -> None:
    """Logs and job scripts compare these words: none may change, new ones only join."""
    assert {failure.value for failure in FlowFailure} >= {
        "not-granted",
        "service-key-revoked",
        "service-key-expired",
        "grant-expired",
        "name-not-found",
        "refused",
        "timed-out",
        "unreachable",
        "address-forbidden",
        "throttled",
        "draining",
        "reset",
        "cut",
        "no-connector",
        "controller-unreachable",
        "internal",
    }


def every_error() -> list[type[KlinketError]]:
    found = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, KlinketError)]
    assert len(found) > 15
    return found


def test_every_code_belongs_to_one_error_and_reads_as_a_word() -> None:
    codes = [one.code for one in every_error() if "code" in vars(one)]  # a finer kind may share its base's
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)


def test_an_error_says_what_to_do_next() -> None:
    assert "generate a new" in str(errors.ServiceKeyExpired("the key has expired"))
    assert str(errors.ServiceKeyExpired("the key has expired", hint="")) == "the key has expired"
    assert str(errors.Conflict("taken", hint="take another")) == "taken (take another)"


def test_a_miss_has_the_words_api_clients_match() -> None:
    assert str(NotFound("Connector", "Q29ubmVjdG9yOjE=")) == "Connector with id 'Q29ubmVjdG9yOjE=' does not exist"


def test_a_refused_flow_keeps_its_reason() -> None:
    refused = FlowRefused(FlowFailure.THROTTLED, "too many", retry_after=2.5)
    assert (refused.failure, refused.retry_after, refused.code) == (FlowFailure.THROTTLED, 2.5, "flow-refused")
