"""Requests are answered as if each were alone, whatever happens to the others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from coterie.runtime import Engine, Prediction, load
from coterie.runtime.batching import Batcher, Limits
from coterie.runtime.errors import (
    CoterieError,
    DeadlineError,
    InvalidInputError,
    OverloadedError,
    UnavailableError,
    UnknownTaskError,
)

from ..gate import Gate
from ..handmade import HandMade


class Seen:
    """Remembers what the batcher tells of."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int, int]] = []

    def batch(self, *, requests: int, task: Any, inputs: int, seconds: float) -> None:
        assert seconds > 0
        self.batches.append((requests, len(task), inputs))


def with_batcher(made: HandMade, work: Callable[[Batcher, Engine], Awaitable[Any]], **options: Any) -> Any:
    async def run() -> Any:
        engine = load(made.path, threads=1)
        batcher = Batcher(engine, **options)
        result = await work(batcher, engine)
        await batcher.close()
        assert batcher.waiting == 0
        return result

    return asyncio.run(run())


def test_what_comes_at_once_is_run_together_and_answered_as_if_alone(features: HandMade) -> None:
    seen = Seen()
    inputs = features.inputs(40)
    names = ["topic", "mood", "tags"]

    async def ask(batcher: Batcher, engine: Engine) -> None:
        answers = await asyncio.gather(
            *(batcher.predict(names[n % 3], inputs[n : n + 1]) for n in range(40)),
            batcher.predict_many(inputs[:2], [0, 1, 1], names),
        )
        for number, answer in enumerate(answers[:-1]):
            alone = engine.predict(names[number % 3], inputs[number : number + 1])
            np.testing.assert_allclose(answer.scores, alone.scores, atol=1e-5)
            assert answer[0].label == alone[0].label
            assert [spec.name for spec in answer.specs] == [names[number % 3]]
        many = engine.predict_many(inputs[:2], [0, 1, 1], names)
        np.testing.assert_allclose(answers[-1].scores, many.scores, atol=1e-5)

    with_batcher(features, ask, observer=seen)
    assert [requests for requests, _, _ in seen.batches] == [41]


def test_one_input_asked_by_many_is_computed_once(features: HandMade) -> None:
    seen, inputs = Seen(), features.inputs(1)

    async def ask(batcher: Batcher, _: Engine) -> None:
        await asyncio.gather(*(batcher.predict(name, inputs) for name in ["topic", "mood"] * 8))

    with_batcher(features, ask, observer=seen)
    assert seen.batches == [(16, 16, 1)]


def test_it_does_not_wait_while_the_engine_is_idle_and_gathers_while_it_is_not(features: HandMade) -> None:
    seen, inputs = Seen(), features.inputs(8)

    async def ask(batcher: Batcher, engine: Engine) -> None:
        gate = Gate(engine)
        first = asyncio.ensure_future(batcher.predict("topic", inputs[:1]))
        await gate.busy()
        rest = [asyncio.ensure_future(batcher.predict("mood", inputs[n : n + 1])) for n in range(1, 8)]
        await asyncio.sleep(0.05)
        gate.open()
        await asyncio.gather(first, *rest)

    with_batcher(features, ask, observer=seen)
    assert [requests for requests, _, _ in seen.batches] == [1, 7]


def test_a_bad_request_fails_alone(texts: HandMade) -> None:
    said = texts.inputs(12)
    said[5] = "unheard-of"  # the graph has no row for it, and refuses the whole run

    async def ask(batcher: Batcher, engine: Engine) -> list[Any]:
        work = (batcher.predict(engine.tasks[0].name, [text]) for text in said)
        return await asyncio.gather(*work, return_exceptions=True)

    answers = with_batcher(texts, ask)
    assert [isinstance(answer, InvalidInputError) for answer in answers] == [n == 5 for n in range(12)]
    assert sum(isinstance(answer, Prediction) for answer in answers) == 11


def test_an_answer_that_is_not_finite_fails_alone(features: HandMade) -> None:
    inputs = features.inputs(6)
    inputs[3] = 3e38

    async def ask(batcher: Batcher, _: Engine) -> list[Any]:
        work = (batcher.predict("topic", inputs[n : n + 1]) for n in range(6))
        return await asyncio.gather(*work, return_exceptions=True)

    answers = with_batcher(features, ask)
    assert [isinstance(answer, CoterieError) for answer in answers] == [n == 3 for n in range(6)]


def test_a_fault_of_the_engine_is_an_error_and_the_next_question_is_answered(features: HandMade) -> None:
    async def ask(batcher: Batcher, engine: Engine) -> None:
        run = engine.run
        engine.run = lambda *_: 1 / 0  # type: ignore[assignment,method-assign,return-value]
        with pytest.raises(CoterieError, match="failed inside"):
            await batcher.predict("topic", features.inputs(1))
        engine.run = run  # type: ignore[method-assign]
        assert len(await batcher.predict("topic", features.inputs(2))) == 2

    with_batcher(features, ask)


def test_a_fault_beside_the_engine_leaves_nobody_waiting(
    features: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> None:
        raise MemoryError

    async def ask(batcher: Batcher, _: Engine) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("coterie.runtime.batching._batcher.merge", fails)
            with pytest.raises(CoterieError, match="failed inside"):
                await batcher.predict("topic", features.inputs(1), timeout=5)
        assert len(await batcher.predict("topic", features.inputs(1))) == 1

    with_batcher(features, ask)


def test_what_is_wrong_is_refused_before_it_waits(features: HandMade) -> None:
    async def ask(batcher: Batcher, _: Engine) -> None:
        with pytest.raises(UnknownTaskError):
            await batcher.predict("topics", features.inputs(1))
        with pytest.raises(InvalidInputError):
            await batcher.predict("topic", [[1.0]])
        assert batcher.waiting == 0

    with_batcher(features, ask)


def test_a_question_about_nothing_is_answered_and_so_is_the_next(features: HandMade) -> None:
    async def ask(batcher: Batcher, _: Engine) -> list[int]:
        return [len(await batcher.predict("topic", features.inputs(rows))) for rows in (0, 0, 2, 0)]

    assert with_batcher(features, ask) == [0, 0, 2, 0]


@pytest.mark.parametrize(
    "limits",
    [
        Limits(rows=30),
        Limits(task_rows=30),
        Limits(nbytes=30 * 4 * 4 + 3 * 10 * 16),
    ],
    ids=["rows", "rows of a task", "bytes"],
)
def test_more_than_may_wait_is_refused_at_once_and_places_become_free(
    features: HandMade, limits: Limits
) -> None:
    inputs = features.inputs(10)

    async def ask(batcher: Batcher, engine: Engine) -> None:
        gate = Gate(engine)
        work = [asyncio.ensure_future(batcher.predict("topic", inputs)) for _ in range(8)]
        done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_EXCEPTION)
        refused = [each.exception() for each in done]
        assert all(isinstance(each, OverloadedError) for each in refused)
        gate.open()
        answers = await asyncio.gather(*work, return_exceptions=True)
        assert [isinstance(each, OverloadedError) for each in answers] == [False] * 3 + [True] * 5
        assert min(each.retry_seconds for each in answers[3:]) >= 1
        assert len(await batcher.predict("topic", inputs)) == 10

    with_batcher(features, ask, limits=limits)


def test_a_full_task_leaves_room_for_others(features: HandMade) -> None:
    inputs = features.inputs(10)

    async def ask(batcher: Batcher, engine: Engine) -> None:
        gate = Gate(engine)
        flood = [asyncio.ensure_future(batcher.predict("topic", inputs)) for _ in range(8)]
        await gate.busy()
        other = asyncio.ensure_future(batcher.predict("mood", inputs))
        await asyncio.sleep(0)
        gate.open()
        assert len(await other) == 10
        await asyncio.gather(*flood, return_exceptions=True)

    with_batcher(features, ask, limits=Limits(task_rows=30))


def test_who_goes_away_is_not_computed(features: HandMade) -> None:
    seen, inputs = Seen(), features.inputs(10)

    async def ask(batcher: Batcher, engine: Engine) -> None:
        gate = Gate(engine)
        first = asyncio.ensure_future(batcher.predict("topic", inputs[:1]))
        await gate.busy()
        gone = asyncio.ensure_future(batcher.predict("mood", inputs))
        late = asyncio.ensure_future(batcher.predict("mood", inputs[:2], timeout=0.02))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.wait([gone])
        with pytest.raises(DeadlineError, match=r"0\.02 seconds"):
            await late
        assert batcher.waiting == 1
        gate.open()
        await first

    with_batcher(features, ask, observer=seen)
    assert [rows for _, rows, _ in seen.batches] == [1]


def test_a_run_whose_only_client_went_away_is_ended(features: HandMade) -> None:
    async def ask(batcher: Batcher, engine: Engine) -> None:
        gate = Gate(engine)
        with pytest.raises(DeadlineError):
            await batcher.predict("topic", features.inputs(1), timeout=0.05)
        # The gate was never opened: only the end of the first run lets another one be made.
        gate.open()
        assert len(await batcher.predict("topic", features.inputs(1), timeout=5)) == 1

    with_batcher(features, ask)


def test_onnx_runtime_stops_a_run_that_is_ended(features: HandMade) -> None:
    async def ask(batcher: Batcher, engine: Engine) -> float:
        inputs = np.ones((400_000, 4), dtype=np.float32)
        began = time.perf_counter()
        engine.predict("topic", inputs)
        whole = time.perf_counter() - began
        began = time.perf_counter()
        with pytest.raises(DeadlineError):
            await batcher.predict("topic", inputs, timeout=whole / 20)
        await batcher.predict("topic", inputs[:1])
        return (time.perf_counter() - began) / whole

    assert with_batcher(features, ask) < 0.9


def test_a_closed_batcher_refuses_texts_too(texts: HandMade) -> None:
    async def ask() -> None:
        batcher = Batcher(load(texts.path, threads=1))
        await batcher.close()
        with pytest.raises(UnavailableError, match="shutting down"):
            await batcher.predict(texts.names[0], ["a fine book"])
        with pytest.raises(UnavailableError, match="shutting down"):
            await batcher.predict_many(["a fine book"], [0], texts.names[:1])

    asyncio.run(ask())


def test_closing_answers_what_was_taken_and_takes_no_more(features: HandMade) -> None:
    async def ask(batcher: Batcher, engine: Engine) -> None:
        gate = Gate(engine)
        taken = [asyncio.ensure_future(batcher.predict("topic", features.inputs(3))) for _ in range(4)]
        await gate.busy()
        closing = asyncio.ensure_future(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError, match="shutting down"):
            await batcher.predict("topic", features.inputs(1))
        gate.open()
        assert [len(answer) for answer in await asyncio.gather(*taken)] == [3] * 4
        await closing

    with_batcher(features, ask)


def test_texts_of_unlike_lengths_are_answered_as_if_alone(texts: HandMade) -> None:
    said = [*texts.inputs(12), " ".join(texts.inputs(12, seed=1))]

    async def ask(batcher: Batcher, engine: Engine) -> None:
        name = engine.tasks[0].name
        answers = await asyncio.gather(*(batcher.predict(name, [text]) for text in said))
        for text, answer in zip(said, answers, strict=True):
            np.testing.assert_allclose(answer.scores, engine.predict(name, [text]).scores, atol=1e-5)

    with_batcher(texts, ask)


def test_a_large_request_is_run_in_parts_and_answered_as_if_in_one(features: HandMade) -> None:
    seen, inputs = Seen(), features.inputs(1000)

    async def ask(batcher: Batcher, engine: Engine) -> None:
        names = ["topic", "mood", "tags"]
        row, task = np.arange(1500)[::-1] % 1000, [names[n % 3] for n in range(1500)]
        one, many = await asyncio.gather(
            batcher.predict("topic", inputs), batcher.predict_many(inputs, row, task)
        )
        wanted = engine.predict("topic", inputs)
        np.testing.assert_allclose(one.scores, wanted.scores, atol=1e-5)
        np.testing.assert_allclose(one.probabilities, wanted.probabilities, atol=1e-5)
        assert one.label_texts() == wanted.label_texts()
        assert one.timing is not None
        several = engine.predict_many(inputs, row, task)
        np.testing.assert_array_equal(many.task, several.task)
        np.testing.assert_allclose(many.scores, several.scores, atol=1e-5)

    with_batcher(features, ask, observer=seen, most_rows=128)
    assert max(rows for _, rows, _ in seen.batches) <= 128
    assert sum(rows for _, rows, _ in seen.batches) == 2500


def test_a_few_rows_need_not_wait_for_all_of_a_large_request(features: HandMade) -> None:
    async def ask(batcher: Batcher, engine: Engine) -> None:
        gate = Gate(engine)
        large = asyncio.ensure_future(batcher.predict("topic", features.inputs(2000)))
        await gate.busy()
        small = asyncio.ensure_future(batcher.predict("mood", features.inputs(1)))
        await asyncio.sleep(0.01)
        gate.open()
        await small
        assert not large.done()
        assert len(await large) == 2000

    with_batcher(features, ask, most_rows=128)


def test_a_value_far_off_in_a_large_request_is_told_by_its_row(features: HandMade) -> None:
    inputs = features.inputs(400)
    inputs[333] = 3e38

    async def ask(batcher: Batcher, _: Engine) -> None:
        with pytest.raises(InvalidInputError, match="input 333 is not finite"):
            await batcher.predict("topic", inputs)

    with_batcher(features, ask, most_rows=64)


def test_a_question_that_comes_too_late_is_not_run(features: HandMade) -> None:
    seen = Seen()

    async def ask(batcher: Batcher, _: Engine) -> None:
        for options in ({"timeout": 0.0}, {"timeout": 0.01, "since": time.perf_counter() - 1}):
            with pytest.raises(DeadlineError):
                await batcher.predict("topic", features.inputs(1), **options)
        await asyncio.sleep(0.02)

    with_batcher(features, ask, observer=seen)
    assert seen.batches == []
