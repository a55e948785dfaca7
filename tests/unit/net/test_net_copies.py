"""Signs that this machine is a copy, or was resumed from a snapshot."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.net import copies
from klinket.net.copies import STOOD_STILL_SECONDS, CopyWatch, StoodStill, tells_new_generation
from klinket.net.uptime import own_time
from klinket.wire.control import HeartbeatAnswer
from tests.eventually import eventually

SECONDS = st.floats(0, 1e6)


@given(st.lists(st.tuples(SECONDS, SECONDS, SECONDS), min_size=1), st.floats(-1e9, 1e9))
def test_pauses_and_delays_on_the_way_prove_nothing(exchanges: list[tuple[float, float, float]], difference: float) -> None:
    watch, now = StoodStill(), 0.0
    for pause, there, back in exchanges:
        asked = now + pause
        now = asked + there + back
        assert watch.seconds(asked, now, asked + there + difference) < 1e-3


@given(st.floats(1, 1e6), st.floats(0, 20), st.floats(0, 20))
def test_a_gap_is_found_whole_but_for_the_delays(gap: float, delay: float, later_delay: float) -> None:
    watch = StoodStill()
    watch.seconds(0.0, delay, 1000.0 + delay)
    found = watch.seconds(30.0, 30.0 + later_delay, 1030.0 + gap)
    assert max(0.0, gap - delay - later_delay) - 1e-3 <= found <= gap + 1e-3


def test_a_gap_is_found_once_and_a_clock_set_back_is_none() -> None:
    watch = StoodStill()
    assert watch.seconds(0.0, 0.1, 1000.0) == 0.0
    assert watch.seconds(10.0, 10.1, 4610.0) == pytest.approx(3599.9)
    assert watch.seconds(20.0, 20.1, 4620.0) == 0.0
    assert watch.seconds(30.0, 30.1, 600.0) == 0.0


@pytest.mark.parametrize(("uptime", "since"), [(0.0, ""), (50.0, "one")])
def test_the_watch_tells_from_its_bound_on_and_once(uptime: float, since: str) -> None:
    told: list[str] = []
    watch = CopyWatch(told.append)
    watch.exchanged(own_time(), answer(1000.0, uptime, since))
    watch.exchanged(own_time(), answer(1000.0 + STOOD_STILL_SECONDS - 5, uptime + STOOD_STILL_SECONDS - 5, since))
    assert told == []
    for _ in range(3):
        watch.exchanged(own_time(), answer(9000.0, uptime + 8000.0, since))
    assert len(told) == 1


def answer(wall: float, uptime: float = 0.0, since: str = "") -> HeartbeatAnswer:
    return HeartbeatAnswer(sequence=1, time_ms=round(wall * 1000), uptime_ms=round(uptime * 1000), boot=since)


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_controller_whose_clock_is_set_proves_nothing(step: float) -> None:
    told: list[str] = []
    watch = CopyWatch(told.append)
    watch.exchanged(own_time(), answer(1e6, 500.0, "one"))
    watch.exchanged(own_time(), answer(1e6 + step, 500.0, "one"))
    watch.exchanged(own_time(), answer(1e6, 500.0, "one"))
    assert told == []
    watch.exchanged(own_time(), answer(1e6, 500.0 + 2 * STOOD_STILL_SECONDS, "one"))
    assert len(told) == 1


def test_between_two_boots_of_the_controllers_machine_its_wall_clock_counts() -> None:
    told: list[str] = []
    watch = CopyWatch(told.append)
    watch.exchanged(own_time(), answer(1e6, 500.0, "one"))
    watch.exchanged(own_time(), answer(1e6, 9e6, "two"))
    assert told == []
    watch.exchanged(own_time(), answer(1e6 + 2 * STOOD_STILL_SECONDS, 10.0, "three"))
    assert len(told) == 1


@given(st.binary())
def test_any_message_of_the_kernel_is_read(event: bytes) -> None:
    assert tells_new_generation(event) == (b"NEW_VMGENID=1" in event.split(b"\0"))


def test_a_message_of_a_new_generation() -> None:
    event = b"change@/devices/platform/vmgenid\0ACTION=change\0SUBSYSTEM=platform\0NEW_VMGENID=1\0SEQNUM=9\0"
    assert tells_new_generation(event)
    assert not tells_new_generation(event.replace(b"=1", b"=12"))
    assert not tells_new_generation(event.replace(b"NEW", b"SYNTH_ARG_NEW"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes the kernel send an event")
async def test_the_kernel_is_heard_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    watch = CopyWatch(told.append)
    watch.start()
    try:
        if watch._sock is None:
            pytest.skip("this host lets nobody hear events of the kernel")
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 15) as forger:
            forger.bind((0, 0))
            try:
                forger.sendto(b"change@/x\0NEW_VMGENID=1\0", (0, 1))
            except OSError:
                pass  # not even root may
        monkeypatch.setattr(copies, "_NEW_GENERATION", b"ACTION=change")
        try:
            Path("/sys/class/net/lo/uevent").write_text("change")
        except OSError:
            pytest.skip("/sys cannot be written here")
        await eventually(lambda: told)
        await asyncio.sleep(0)
        assert len(told) == 1  # the forged message came first, and was not told
    finally:
        watch.close()
