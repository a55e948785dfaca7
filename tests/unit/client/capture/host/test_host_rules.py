"""The rules as text: what the kernel takes, and what must be in them."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from klinket.client.capture.host import routes, rules
from klinket.client.capture.host.rules import Layout, Ports

PORTS = Ports(1001, 1002, 1003, 1004)
BEST = Layout(PORTS, Ports(2001, 2002, 2003, 2004), holds=True, native_queue=True, users=(1000, 33), gateway=True)
CONTENTS = {
    "resources": ["10.0.0.0/8", "2001:db8::/32", "100.96.0.0/12"],
    "fast": ["10.9.0.5/32"],
    "sources": ["172.16.0.0/16", "fd00::/64"],
    "resolvers": ["192.0.2.53", "127.0.0.53", "2001:db8::53"],
}


def chain(text: str, name: str) -> list[str]:
    found = re.search(rf"\tchain {name} {{\n(.*?)\t}}\n", text, re.DOTALL)
    assert found, name
    return [line.strip() for line in found[1].splitlines()]


@pytest.mark.parametrize("layout", list(rules.layouts(BEST)))
def test_without_a_verdict_nothing_leaves(layout: Layout) -> None:
    text = rules.table(layout, CONTENTS)
    for name in ("held", "deliver", "deliver_dns"):
        assert chain(text, name)[-1] == "drop", "with klinket gone, packets are dropped"
    assert "bypass" not in text
    assert text.startswith(rules.remove()), "whatever was there before is replaced at the same moment"


def test_klinkets_own_packets_pass_first() -> None:
    text = rules.table(BEST, CONTENTS)
    for name in ("output_hold", "output_steer"):
        assert chain(text, name)[1] == f"meta mark {rules.OWN:#x} return"


def test_only_the_users_it_is_told_are_captured_and_still_rejected_after_a_crash() -> None:
    served = "meta skuid != { 1000, 33 } return"
    text = rules.table(BEST, CONTENTS)
    assert served in chain(text, "output_hold")
    assert chain(text, "output_steer").index(served) < chain(text, "output_steer").index("jump steer")
    assert f"add rule inet klinket output_hold {served}\n" in rules.closed((1000, 33), gateway=False)
    assert "skuid" not in rules.closed((), gateway=False)


def test_a_machine_that_is_no_gateway_captures_nothing_that_is_forwarded() -> None:
    text = rules.table(Layout(PORTS, None, holds=True, native_queue=True), CONTENTS)
    assert "sources4 " not in "".join(chain(text, "prerouting_steer"))
    assert "prerouting_hold" not in text
    assert "ip daddr { 100.95.0.251, 100.95.0.252, 100.95.0.253, 100.95.0.254, 100.96.0.0/12 } drop" in chain(
        text, "prerouting_steer"
    )


def test_where_ipv6_cannot_be_captured_it_is_rejected() -> None:
    text = rules.table(Layout(PORTS, None, holds=True, native_queue=True), CONTENTS)
    assert "ip6 daddr @resources6 reject" in chain(text, "steer")
    assert "tproxy ip6" not in text


def test_where_the_kernel_holds_nothing_every_connect_is_taken_at_once() -> None:
    held, taken = (rules.table(Layout(PORTS, None, holds, False), CONTENTS) for holds in (True, False))
    assert any("jump begin" in line for line in chain(held, "output_hold"))
    assert not any("jump begin" in line for line in chain(taken, "output_hold"))
    syn = rules._SYN
    first = next(line for line in chain(taken, "take") if line.startswith(f"{syn} ct mark set"))
    assert chain(taken, "take").index(first) < chain(taken, "take").index(f"{syn} drop")


def test_the_best_layout_is_tried_first_and_the_last_needs_the_least() -> None:
    tried = list(rules.layouts(BEST))
    assert tried[0] == BEST
    assert (tried[-1].holds, tried[-1].native_queue, tried[-1].ports6) == (False, False, None)
    assert len(set(tried)) == len(tried)
    assert [one.ports6 for one in rules.layouts(Layout(PORTS, None, holds=True, native_queue=True))] == [None] * 3


def test_marks_differ_and_one_routing_rule_matches_both_that_are_delivered() -> None:
    marks = [rules.OWN, rules.DELIVER, rules.DELIVER_DNS, rules.QUEUE.connect, rules.QUEUE.refuse, rules.QUEUE.unreachable]
    marks.append(rules.QUEUE.forbidden)
    assert len(set(marks)) == len(marks)
    assert {mark & rules.DELIVER_MASK for mark in (rules.DELIVER, rules.DELIVER_DNS)} == {rules.DELIVER}
    assert [mark for mark in marks if mark & rules.DELIVER_MASK == rules.DELIVER] == [rules.DELIVER, rules.DELIVER_DNS]


@pytest.mark.parametrize("version", [4, 6])
def test_everything_claimed_is_undone(version: int) -> None:
    claimed = set(re.findall(r"rule add pref ([0-9]+)", routes.claim(version)))
    undone = set(re.findall(r"rule del pref ([0-9]+)", routes.undo(version)))
    assert claimed == undone == set(map(str, routes.preferences(version)))
    assert set(re.findall(r"table ([0-9]+)", routes.claim(version))) <= set(re.findall(r"table ([0-9]+)", routes.undo(version)))


@pytest.mark.root
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root for a network namespace")
def test_the_kernel_takes_the_rules_and_what_a_crash_leaves_of_them() -> None:
    for layout in rules.layouts(BEST):
        if layout.native_queue:
            continue  # not every kernel has it, which is why there are others
        text = rules.table(layout, CONTENTS) + rules.closed(layout.users, gateway=layout.gateway)
        done = subprocess.run(["unshare", "-n", "nft", "-f", "-"], input=text, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
    twice = rules.table(layout, CONTENTS) * 2 + rules.remove() * 2
    done = subprocess.run(["unshare", "-n", "nft", "-f", "-"], input=twice, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
