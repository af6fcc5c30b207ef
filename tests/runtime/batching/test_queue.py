"""The queue is fair between tasks, and loses nothing."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.runtime.batching._queue import FairQueue
from coterie.runtime.batching._ticket import MANY, Shape, Ticket
from coterie.runtime.engine._asked import Asked
from coterie.runtime.tasks import TaskSpec

SPEC = TaskSpec(name="any", kind="regression", labels=("value",))
WIDE: Shape = ((4,),)
LONG: Shape = ((9,),)


@pytest.fixture(autouse=True)
def _loop() -> None:
    """Futures need a loop to belong to; it is never run."""
    asyncio.set_event_loop(asyncio.new_event_loop())


def ticket(task: int, rows: int = 1, *, shape: Shape = WIDE, priority: int = 0, number: float = 0) -> Ticket:
    asked = Asked({"x": np.zeros((rows, 4), np.float32)}, np.arange(rows), np.full(rows, task), SPEC)
    return Ticket(asked, asyncio.get_event_loop().create_future(), shape, priority, number)


def pushed(*tickets: Ticket, **options: object) -> FairQueue:
    queue = FairQueue(**options)  # type: ignore[arg-type]
    for each in tickets:
        queue.push(each)
    return queue


def test_what_asks_several_tasks_is_a_flow_of_its_own() -> None:
    asked = Asked({"x": np.zeros((1, 4), np.float32)}, np.zeros(2, np.int64), np.array([0, 1]))
    assert Ticket(asked, asyncio.get_event_loop().create_future(), WIDE, 0, 0).flow == MANY


def test_a_flood_on_one_task_leaves_the_others_their_turn() -> None:
    queue = pushed(*[ticket(0) for _ in range(1000)], *[ticket(1) for _ in range(10)])
    assert queue.is_flooded
    batch = queue.take(64)
    assert sum(each.flow == 1 for each in batch) == 10
    assert sum(each.flow == 0 for each in batch) == 20  # no more than twice as many
    assert not queue.is_flooded  # nobody waits beside it any more
    assert len(queue.take(64)) == 64


def test_a_popular_task_is_no_flood() -> None:
    queue = pushed(*[ticket(0) for _ in range(40)], *[ticket(task) for task in range(1, 21)])
    assert not queue.is_flooded
    assert len(queue.take(64)) == 60


def test_a_large_request_beside_small_ones_has_its_turn() -> None:
    queue = pushed(ticket(0, 200), *[ticket(1) for _ in range(10)])
    taken = []
    for _ in range(15):
        queue.push(ticket(1))
        taken += queue.take(256)
    assert any(each.flow == 0 for each in taken)


def test_others_than_a_flow_are_found() -> None:
    queue = pushed(ticket(0), ticket(0))
    assert not queue.holds_others(0)
    queue.push(ticket(1, priority=1))
    assert queue.holds_others(0)


def test_a_task_of_small_requests_gets_as_many_rows_as_one_of_large_ones() -> None:
    queue = pushed(*[ticket(0, 40) for _ in range(100)], *[ticket(1, 1) for _ in range(2000)])
    rows = {0: 0, 1: 0}
    for _ in range(20):
        for each in queue.take(80):
            rows[each.flow] += each.rows
    assert 0.8 < rows[0] / rows[1] < 1.25


def test_a_weight_is_a_share() -> None:
    queue = pushed(
        *[ticket(0) for _ in range(1000)], *[ticket(1) for _ in range(1000)], weights={0: 3.0, 1: 1.0}
    )
    flows = [each.flow for _ in range(10) for each in queue.take(64)]
    assert 2.5 < flows.count(0) / flows.count(1) < 3.5


def test_a_higher_priority_goes_first_and_the_rest_of_the_batch_is_filled() -> None:
    queue = pushed(*[ticket(0, priority=1) for _ in range(8)], *[ticket(1) for _ in range(3)])
    assert [each.flow for each in queue.take(5)] == [1, 1, 1, 0, 0]


def test_another_shape_waits_for_the_next_batch_and_is_first_in_it() -> None:
    queue = pushed(ticket(0), ticket(1, shape=LONG), ticket(2), ticket(0))
    assert [each.flow for each in queue.take(64)] == [0, 0, 2]
    queue.push(ticket(0))
    assert [each.flow for each in queue.take(64)] == [1]


def test_a_large_request_of_another_shape_is_not_starved_by_small_ones() -> None:
    queue = pushed(ticket(1, 500, shape=LONG))
    batches = 0
    flow = 0
    while flow == 0:
        for _ in range(64):
            queue.push(ticket(0))
        flow, batches = queue.take(64)[0].flow, batches + 1
    assert batches * 64 <= 1000


def test_a_request_larger_than_a_batch_goes_alone() -> None:
    queue = pushed(ticket(0, 500), ticket(1))
    batches = [[each.rows for each in queue.take(64)] for _ in range(2)]
    assert sorted(batches) == [[1], [500]]
    assert not queue


def test_who_is_gone_is_never_taken() -> None:
    gone, here = ticket(0), ticket(0)
    queue = pushed(gone, here, ticket(1))
    gone.answer.cancel()
    assert here in queue.take(64)
    alone = pushed(gone)
    assert not alone
    assert alone.take(64) == []


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 4),
            st.integers(1, 90),
            st.sampled_from([WIDE, LONG]),
            st.integers(0, 2),
            st.booleans(),
        ),
        max_size=60,
    ),
    st.integers(1, 100),
)
def test_every_ticket_is_taken_once_in_its_order_and_batches_have_one_shape(
    wanted: list[tuple[int, int, Shape, int, bool]], most: int
) -> None:
    asyncio.set_event_loop(asyncio.new_event_loop())
    tickets = [
        ticket(task, rows, shape=shape, priority=priority, number=number)
        for number, (task, rows, shape, priority, _) in enumerate(wanted)
    ]
    queue = pushed(*tickets)
    for each, (*_, gone) in zip(tickets, wanted, strict=True):
        if gone:
            each.answer.cancel()
    taken: list[Ticket] = []
    while queue:
        batch = queue.take(most)
        assert batch
        assert len({each.shape for each in batch}) == 1
        assert sum(each.rows for each in batch) <= most or len(batch) == 1
        taken += batch
    assert {each.arrived for each in taken} == {
        each.arrived for each in tickets if not each.answer.cancelled()
    }
    assert len(taken) == len({each.arrived for each in taken})
    for flow in {(each.flow, each.priority) for each in taken}:
        order = [each.arrived for each in taken if (each.flow, each.priority) == flow]
        assert order == sorted(order)
