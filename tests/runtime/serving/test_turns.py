"""Who may be read next: whatever one task is asked, the others wait for a few of its questions only."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from coterie.runtime import load
from coterie.runtime.batching import Batcher, Limits
from coterie.runtime.errors import DeadlineError, OverloadedError
from coterie.runtime.serving.http._typed import TypedApi
from coterie.runtime.serving.models._models import Models
from coterie.runtime.serving.models._turns import Turns, Urgency
from coterie.runtime.serving.observing._calls import Done
from coterie.runtime.tasks import ROUTER

from ..handmade import HandMade


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Asked:
    """Questions that are in hand until they are told to end."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.begun: list[str] = []
        self.since: list[float | None] = []
        self.ends: list[asyncio.Event] = []

    def ask(self, task: str, count: int = 1) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self._ask(task)) for _ in range(count)]

    async def _ask(self, task: str) -> None:
        end = asyncio.Event()
        async with self.turns.of(task, 10) as since:
            self.begun.append(task)
            self.since.append(since)
            self.ends.append(end)
            await end.wait()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_task_that_is_asked_alone_never_waits() -> None:
    async def run() -> None:
        asked = Asked(Turns(clock=Clock()))
        asked.ask("one", 100)
        await settled()
        assert asked.begun == ["one"] * 100
        assert set(asked.since) == {None}

    asyncio.run(run())


def test_a_flood_has_four_in_hand_while_another_task_is_asked_and_all_go_on_in_order() -> None:
    async def run() -> None:
        clock = Clock()
        asked = Asked(Turns(clock=clock))
        asked.ask("other")
        await settled()
        asked.ends.pop().set()
        await settled()
        clock.now = 0.5
        flood = asked.ask("flood", 20)
        await settled()
        assert asked.begun == ["other"] + ["flood"] * 4
        assert asked.turns.waiting == 16
        asked.ask("other")
        await settled()
        assert asked.begun[5:] == ["other"]  # at once, past sixteen that came before it
        clock.now = 0.6
        asked.ends[0].set()
        await settled()
        assert asked.begun[6:] == ["flood"]
        assert asked.since[6] == 0.5
        # As many as twice what the others have is no flood.
        asked.ask("other", 4)
        await settled()
        asked.ends[1].set()
        await settled()
        assert asked.begun.count("flood") == 1 + 1 + 10
        for _ in range(20):
            for end in asked.ends:
                end.set()
            await settled()
        assert all(each.done() for each in flood)
        await asyncio.wait_for(asked.turns.empty(), 1)

    asyncio.run(run())


def test_once_the_others_are_quiet_all_that_wait_go_on() -> None:
    async def run() -> None:
        clock = Clock()
        asked = Asked(Turns(clock=clock))
        asked.ask("other")
        asked.ask("flood", 20)
        await settled()
        assert asked.begun.count("flood") == 4
        clock.now = 1.5
        asked.ends[1].set()
        await settled()
        assert asked.begun.count("flood") == 20

    asyncio.run(run())


def test_who_goes_away_while_waiting_takes_nobodys_turn() -> None:
    async def run() -> None:
        asked = Asked(Turns(clock=Clock()))
        asked.ask("other")
        flood = asked.ask("flood", 7)
        await settled()
        flood[4].cancel()  # while it waits
        await settled()
        asked.ends[1].set()  # so that it is the sixth's turn, who goes away in the same moment
        asked.ends[2].set()
        flood[5].cancel()
        await settled()
        assert asked.begun.count("flood") == 5
        assert flood[4].cancelled()
        assert flood[5].cancelled()
        assert not flood[6].done()
        for end in asked.ends:
            end.set()
        await asyncio.wait_for(asked.turns.empty(), 1)

    asyncio.run(run())


def test_what_would_have_to_wait_where_as_much_waits_as_may_is_refused() -> None:
    async def run() -> None:
        asked = Asked(Turns(Limits(task_rows=2, nbytes=25), clock=Clock()))
        asked.ask("other")
        asked.ask("flood", 5)
        await settled()
        asked.turns.check("flood", 15)
        asked.turns.check("other", 1000)
        with pytest.raises(OverloadedError, match="1 questions are waiting for this task already"):
            asked.turns.check("flood", 16)
        asked.ask("flood")
        await settled()
        with pytest.raises(OverloadedError, match="2 questions are waiting") as refused:
            asked.turns.check("flood", 1)
        assert refused.value.retry_seconds == 1

    asyncio.run(run())


def test_typed_questions_take_turns_too_and_are_refused_where_as_much_waits_as_may(
    features: HandMade,
) -> None:
    async def run() -> None:
        engine = load(features.path, threads=1)
        seen: list[Done] = []
        models = Models(
            Batcher(engine),
            max_rows=64,
            turns=Turns(Limits(task_rows=2)),
            observer=SimpleNamespace(observe=seen.append),
        )
        models.ready = True
        api = TypedApi(models)
        rows = features.inputs(1).tolist()
        held = Asked(models.turns)
        held.ask("mood")
        await settled()
        held.ask("topic", 4)  # as many as may be in hand
        await settled()
        waiting = [asyncio.create_task(api.predict("topic", rows)) for _ in range(2)]
        every = asyncio.create_task(api.ask(rows, None))
        await settled()
        assert models.turns.waiting == 2
        assert (await every).answers[0].keys() == set(features.names)
        with pytest.raises(OverloadedError, match="2 questions are waiting for this task already"):
            await api.predict("topic", rows)
        assert [(done.model, done.outcome) for done in seen] == [(ROUTER, "ok"), ("topic", "overloaded")]
        for end in held.ends:
            end.set()
        assert [answer.task for answer in await asyncio.gather(*waiting)] == ["topic"] * 2
        await models.turns.empty()
        await models.current.batcher.close()

    asyncio.run(run())


def test_who_goes_first_among_the_questions_to_a_task(features: HandMade) -> None:
    async def run() -> None:
        turns, order = Turns(clock=Clock()), []
        hold = asyncio.Event()

        async def ask(task: str, name: str, priority: int = 2) -> None:
            async with turns.of(task, 1, lambda: Urgency(priority)):
                order.append(name)
                await (hold.wait() if name == "held" else asyncio.sleep(0))

        await asyncio.gather(ask("other", "other"), ask("one", "first"))
        held = [asyncio.create_task(ask("one", "held")) for _ in range(4)]
        await settled()
        order.clear()
        waiting = [asyncio.create_task(ask("one", f"p{priority}", priority)) for priority in (3, 2, 1, 3, 1)]
        await settled()
        assert not order
        hold.set()
        await asyncio.gather(*held, *waiting)
        assert order == ["p1", "p1", "p2", "p3", "p3"]

    asyncio.run(run())


def test_a_question_that_waits_too_long_for_its_turn_is_told_so() -> None:
    async def run() -> None:
        turns = Turns(clock=Clock())
        asked = Asked(turns)
        asked.ask("other")
        asked.ask("one", 5)
        await settled()
        assert turns.waiting == 1
        with pytest.raises(DeadlineError, match=r"0\.01 seconds"):
            async with turns.of("one", 10, lambda: Urgency(seconds=0.01)):
                pass
        assert turns.waiting == 1

    asyncio.run(run())


def test_a_task_of_more_weight_has_more_in_hand() -> None:
    async def run() -> None:
        asked = Asked(Turns(weights={"heavy": 8.0}, clock=Clock()))
        asked.ask("light")
        asked.ask("heavy", 200)
        asked.ask("light", 200)
        await settled()
        assert asked.begun.count("heavy") == 4 * 8
        assert asked.begun.count("light") == 4

    asyncio.run(run())
