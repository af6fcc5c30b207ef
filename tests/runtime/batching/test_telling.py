"""Answers to a flood are told a few at a time, those of others first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from coterie.runtime.batching._telling import Answers, Telling
from coterie.runtime.batching._ticket import Ticket
from coterie.runtime.engine._asked import Asked
from coterie.runtime.errors import CoterieError
from coterie.runtime.tasks import TaskSpec

SPEC = TaskSpec(name="any", kind="regression", labels=("value",))


def tickets(*flows: int) -> list[Ticket]:
    loop = asyncio.get_running_loop()
    return [
        Ticket(
            Asked({"x": np.zeros((1, 4), np.float32)}, np.zeros(1, np.int64), np.array([flow]), SPEC),
            loop.create_future(),
            ((4,),),
            0,
            0,
        )
        for flow in flows
    ]


def failures(asked: Sequence[Ticket]) -> Answers:
    return [CoterieError(f"answer {number}") for number in range(len(asked))]


async def told_by_turn(telling: Telling, asked: list[Ticket]) -> list[list[int]]:
    """Return whose answers, by their numbers, came in each turn of the loop."""
    telling.tell(asked, failures(asked))
    known: set[int] = set()
    turns = []
    while len(known) < len(asked):
        done = [number for number, each in enumerate(asked) if each.answer.done() and number not in known]
        if done:
            turns.append(done)
        known.update(done)
        await asyncio.sleep(0)
    for number, each in enumerate(asked):
        assert str(each.answer.exception()) == f"answer {number}"
    return turns


def test_of_a_flood_some_are_told_in_each_turn_and_whose_task_was_asked_least_first() -> None:
    async def ask() -> None:
        turns = await told_by_turn(Telling(), tickets(*[0] * 20, 1, 2))
        assert [len(each) for each in turns] == [4, 4, 4, 4, 4, 2]
        assert turns[0] == [0, 1, 20, 21]

    asyncio.run(ask())


def test_a_flood_is_known_until_it_is_told() -> None:
    async def ask() -> None:
        telling = Telling()
        asked = tickets(*[3] * 40, 1)
        telling.tell(asked, failures(asked))
        assert telling.flood == 3
        while not all(each.answer.done() for each in asked):
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert telling.flood is None
        for each in asked:
            each.answer.exception()

    asyncio.run(ask())


def test_many_tasks_asked_alike_are_no_flood_and_all_are_told_at_once() -> None:
    async def ask() -> None:
        telling = Telling()
        assert len(await told_by_turn(telling, tickets(*range(40)))) == 1
        assert telling.flood is None

    asyncio.run(ask())


def test_who_is_gone_is_left_alone() -> None:
    async def ask() -> None:
        asked = tickets(*[0] * 10)
        asked[9].answer.cancel()
        Telling().tell(asked, failures(asked))
        for _ in range(3):
            await asyncio.sleep(0)
        assert asked[9].answer.cancelled()
        assert all(each.answer.exception() for each in asked[:9])

    asyncio.run(ask())
