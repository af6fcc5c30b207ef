"""The clients of the load benchmarks: what they send is right, and what they measure is what it says."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

import numpy as np
import pytest
from benchmarks.serving.questions import TRANSPORTS, Questions, Transport, decode, order

from coterie.cli._bench._clients import Client, Reply, connect
from coterie.cli._bench._loops import Measured, closed_loop, open_loop
from coterie.runtime.serving import Addresses

from ..handmade import FEATURES, HandMade


def address(server: Addresses, transport: Transport) -> str:
    return str(server.grpc) if transport == "grpc" else server.http


@pytest.fixture(scope="module")
def questions(features: HandMade) -> Questions:
    return Questions(features.names, "features", (FEATURES,), each=4)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_every_question_is_answered_with_its_task_s_scores(
    transport: Transport, questions: Questions, features: HandMade, server: Addresses
) -> None:
    async def ask() -> None:
        client = await connect(transport, address(server, transport))
        for number, (task, requests) in enumerate(
            zip(questions.tasks, questions.encoded(transport), strict=True)
        ):
            for row, request in zip(questions.rows[number], requests, strict=True):
                reply = await client.ask(request)
                assert reply.ok, reply
                told = decode(transport, reply)
                assert (told.model, told.version) == (task, "1")
                np.testing.assert_allclose(
                    told.scores, features.scores(task, row[None]), rtol=1e-4, atol=1e-5
                )
        await client.close()

    asyncio.run(ask())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_both_loops_ask_a_real_server(transport: Transport, questions: Questions, server: Addresses) -> None:
    async def ask() -> tuple[Measured, Measured]:
        clients = [await connect(transport, address(server, transport)) for _ in range(4)]
        requests = itertools.cycle(questions.stream(transport, "zipf", 50, seed=0))
        closed = await closed_loop(clients, requests, 0.3)
        opened = await open_loop(clients, requests, rate=100, seconds=0.5, seed=0)
        for client in clients:
            await client.close()
        return closed, opened

    closed, opened = asyncio.run(ask())
    assert closed.failures == opened.failures == Counter()
    assert len(closed.latencies) > 20
    assert len(opened.latencies) == 50  # as many as the rate says, however fast the server is


class Stalling:
    """Answers at once, but for one request, which takes a while."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._asked = seconds, 0

    async def ask(self, request: bytes) -> Reply:  # noqa: ARG002 - as a client has it
        self._asked += 1
        if self._asked == 10:
            await asyncio.sleep(self._seconds)
        return Reply("OK", b"")

    async def close(self) -> None:
        pass


def test_an_open_loop_charges_a_stall_to_all_who_would_have_come_meanwhile() -> None:
    def late(measured: Measured) -> int:
        return sum(seconds > 0.1 for seconds in measured.latencies)

    async def ask(client: Client) -> Measured:
        return await open_loop([client], itertools.repeat(b""), rate=200, seconds=1, seed=0)

    stalled = asyncio.run(ask(Stalling(0.4)))
    closed = asyncio.run(closed_loop([Stalling(0.4)], itertools.repeat(b""), 0.6))
    assert late(closed) == 1  # whoever waits for answers sees one slow request
    assert late(stalled) > 30  # some sixty of them come in 0.3 of the 0.4 seconds


def test_zipf_asks_the_first_task_most() -> None:
    counts = np.bincount(order("zipf", 20, 20_000, seed=0), minlength=20)
    assert counts[0] > 1.7 * counts[1] > 0
    assert counts.min() > 0
    assert np.ptp(np.bincount(order("uniform", 20, 20_000, seed=0))) < 250
