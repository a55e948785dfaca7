"""Whether two addresses have a host in common."""

from __future__ import annotations

import itertools
import re

import pytest

from klinket.domain.address import ResourceAddress
from klinket.domain.overlap import overlap


@pytest.mark.parametrize(("one", "other", "both"), [
    ("10.0.0.5", "10.0.0.5", True),
    ("10.0.0.5", "10.0.0.0/24", True),
    ("10.0.1.5", "10.0.0.0/24", False),
    ("10.0.0.0/16", "10.0.3.0/24", True),
    ("10.0.0.0/16", "10.1.0.0/24", False),
    ("10.0.0.0/8", "fd00::/8", False),
    ("db.internal", "DB.internal", True),
    ("db.internal", "*.internal", True),
    ("internal", "*.internal", False),
    ("*.internal", "db.*", True),
    ("*.internal", "*.example", False),
    ("web-?.internal", "web-*.internal", True),
    ("web-?.internal", "web-??.internal", False),
    ("*a*", "*b*", True),
    ("10.0.0.0/8", "*.internal", False),
    ("10.0.0.0/8", "db.internal", False),
])  # fmt: skip
def test_whether_two_addresses_have_a_host_in_common(one: str, other: str, both: bool) -> None:
    first, second = ResourceAddress.parse(one), ResourceAddress.parse(other)
    assert overlap(first, second) is overlap(second, first) is both


def test_patterns_meet_exactly_where_some_text_fits_both() -> None:
    texts = ["".join(signs) for length in range(5) for signs in itertools.product("ab", repeat=length)]
    patterns = ["x" + "".join(signs) for length in range(1, 4) for signs in itertools.product("ab*?", repeat=length)]
    patterns = [pattern for pattern in patterns if "*" in pattern or "?" in pattern]
    fits = {}
    for pattern in patterns:
        rule = re.compile(pattern.replace("*", ".*").replace("?", "."))
        fits[pattern] = {text for text in texts if rule.fullmatch("x" + text)}
    for one, other in itertools.product(patterns[:60], patterns):
        met = overlap(ResourceAddress.parse(one), ResourceAddress.parse(other))
        # Three signs and a star each: a common text, if there is any, has at most six; four are looked at, so only one way holds.
        assert met or not fits[one] & fits[other], (one, other)
        if one.count("*") + other.count("*") <= 1:
            assert met == bool(fits[one] & fits[other]), (one, other)


def test_long_patterns_are_compared_to_their_end() -> None:
    stars = ResourceAddress.parse(".".join(["*a" * 30] * 4))
    assert overlap(stars, ResourceAddress.parse(".".join(["*b" * 30 + "a"] * 4)))
    assert not overlap(stars, ResourceAddress.parse(".".join(["?" * 60] * 2)))
