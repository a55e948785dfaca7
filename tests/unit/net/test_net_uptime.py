"""Time that nobody sets, and what others learn of it."""

from __future__ import annotations

from pathlib import Path

from klinket.net.uptime import boot, told_uptime_ms


def test_a_boot_has_one_name_which_is_not_the_machines_own() -> None:
    assert boot() == boot()
    assert boot() not in Path("/proc/sys/kernel/random/boot_id").read_text()


def test_nobody_is_told_for_how_long_the_machine_has_been_up() -> None:
    began = told_uptime_ms(0.0)
    assert told_uptime_ms(1000.0) - began == 1_000_000  # one clock
    assert began > 1_000_000  # of a number with 40 bits: a lower one comes once in a million boots
