"""A flow on a process's own input and output: both ends of a stream count, and each direction ends alone."""

from __future__ import annotations

import asyncio
import os

import pytest

from klinket.client import ssh_proxy, standard_streams
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import FlowFailure
from tests.eventually import PATIENCE
from tests.unit.connector.test_connector_dial import closed_port
from tests.unit.whole import Whole


async def read_all(descriptor: int) -> bytes:
    def read() -> bytes:
        with open(descriptor, "rb", closefd=True) as file:
            return file.read()

    return await asyncio.wait_for(asyncio.to_thread(read), PATIENCE)


async def test_the_end_of_the_input_is_told_and_the_answer_still_comes(whole: Whole) -> None:
    client = await whole.client()
    flow = await client.open_stream(whole.resource.destination)
    (input, writes), (reads, output) = os.pipe(), os.pipe()
    carrying = asyncio.ensure_future(standard_streams.carry(flow, input, output))
    content = os.urandom(300_000)

    def write() -> None:
        with open(writes, "wb") as file:
            file.write(content)

    writing = asyncio.ensure_future(asyncio.to_thread(write))
    assert await read_all(reads) == content
    await writing
    assert await asyncio.wait_for(carrying, PATIENCE) is None
    assert whole.resource.resets == [False]
    os.close(input)


async def test_a_cut_ends_the_output_and_is_told(whole: Whole) -> None:
    client = await whole.client()
    flow = await client.open_stream(whole.resource.destination)
    (input, writes), (reads, output) = os.pipe(), os.pipe()
    carrying = asyncio.ensure_future(standard_streams.carry(flow, input, output))
    os.write(writes, b"ping")
    assert await asyncio.to_thread(os.read, reads, 10) == b"ping"
    await whole.controller.revoke_key(whole.key)
    assert await read_all(reads) == b""
    failure = await asyncio.wait_for(carrying, PATIENCE)
    assert failure is not None
    assert failure.failure in (FlowFailure.SERVICE_KEY_REVOKED, FlowFailure.CUT)
    os.close(writes)


async def test_an_output_that_nobody_reads_any_more_resets_the_flow(whole: Whole) -> None:
    client = await whole.client()
    flow = await client.open_stream(whole.resource.destination)
    (input, writes), (reads, output) = os.pipe(), os.pipe()
    carrying = asyncio.ensure_future(standard_streams.carry(flow, input, output))
    os.close(reads)
    os.write(writes, b"ping")
    await asyncio.wait_for(carrying, PATIENCE)
    os.close(writes)
    os.close(output)


async def test_ssh_proxy_ends_with_the_word_of_the_resource(whole: Whole) -> None:
    with pytest.raises(FlowRefused) as caught:
        await ssh_proxy.run(whole.key_file, "127.0.0.1", closed_port(), PATIENCE, asyncio.Event())
    assert caught.value.failure is FlowFailure.REFUSED
    with pytest.raises(FlowRefused) as caught:
        await ssh_proxy.run(whole.key_file, "git.internal", 22, PATIENCE, asyncio.Event())
    assert caught.value.failure is FlowFailure.NOT_GRANTED


async def test_ssh_proxy_ends_at_once_when_it_is_stopped(whole: Whole) -> None:
    stop = asyncio.Event()
    stop.set()
    await asyncio.wait_for(ssh_proxy.run(whole.key_file, "127.0.0.1", closed_port(), PATIENCE, stop), PATIENCE)
