"""The batcher: questions of all tasks and front ends in one queue, run together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from coterie.runtime._process import is_own, on_one_core, step_back
from coterie.runtime.batching._admission import Admission, Limits
from coterie.runtime.batching._lull import lull
from coterie.runtime.batching._merge import merge
from coterie.runtime.batching._pace import Pace
from coterie.runtime.batching._parts import divide
from coterie.runtime.batching._queue import FairQueue
from coterie.runtime.batching._reading import TextReader
from coterie.runtime.batching._telling import Answers, Telling
from coterie.runtime.batching._ticket import MANY, Shape, Ticket
from coterie.runtime.engine import Engine
from coterie.runtime.engine._asked import Asked
from coterie.runtime.engine._graph import RunOptions
from coterie.runtime.engine._inputs import takes_text, texts_of
from coterie.runtime.engine._prediction import Prediction, Timing
from coterie.runtime.errors import CoterieError, DeadlineError, UnavailableError

_BESIDE = 0.0002
"""Seconds of a run that are not worth a thread, which the loop has to wake and to be woken by."""
_ON_ONE_CORE = 0.005
"""And where a thread would take the loop's own core: longer ones are, so that health is told meanwhile."""
_FEW = 4
"""Requests of such a run: while more come, gRPC needs the loop's turns, in each of which it takes one. Beside
a flood, for which the loop is busy, a thread would wait for it; there it may have more."""

_LEAST = 32
"""Questions that a part of a large request has at least."""

Floats = npt.NDArray[np.float32]


class BatchObserver(Protocol):
    """Is told of every run, for metrics."""

    def batch(self, *, requests: int, task: npt.NDArray[np.int64], inputs: int, seconds: float) -> None:
        """Take note, in a thread, of a run of B questions to tasks [B] about ``inputs`` distinct inputs."""


class Batcher:
    """Asks an engine from one event loop.

    It never waits while the engine is idle and there is nothing to read: a question that finds it so is run
    at once, and whatever comes during a run is run together after it, fairly between tasks. Equal inputs of
    several requests are computed once. A request that nobody waits for any more is dropped, or its run is
    ended when it was the only one.

    Args:
        engine: The engine; it is asked from ``runs`` threads of the batcher's own.
        limits: How much may wait or run.
        runs: Runs at once.
        target: Seconds that a run should take at most; batches are cut to it.
        most_rows: Rows that a batch never exceeds, unless one request does.
        weights: How much more often than others a task has its turn, by its name.
        observer: Told of every run.

    Raises:
        UnknownTaskError: If a weight is of no task.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        limits: Limits | None = None,
        runs: int = 1,
        target: float = 0.02,
        most_rows: int = 4096,
        weights: Mapping[str, float] | None = None,
        observer: BatchObserver | None = None,
    ) -> None:
        self.engine = engine
        turns = {engine.bundle.task_index(name): weight for name, weight in (weights or {}).items()}
        self._queue = FairQueue(turns)
        self._admission = Admission(limits or Limits())
        self._pace = Pace(target=target, most=most_rows)
        self._arrived = 0
        self._starting: asyncio.Task[None] | None = None
        self._runs = runs
        self._running: set[asyncio.Task[None]] = set()
        self._telling = Telling()
        self._observer = observer
        self._pool = ThreadPoolExecutor(
            max_workers=runs, thread_name_prefix="coterie-engine", initializer=step_back
        )
        text = engine.bundle.text
        # Texts take long enough to encode that a thread's price does not matter.
        self._reader = None if text is None else TextReader(text)
        self._sequences = {
            spec.name for spec in engine.bundle.manifest.inputs if takes_text(engine.bundle, spec)
        }
        self._tagging = engine.tasks[0].kind == "tagging"
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def waiting(self) -> int:
        """Requests that wait or run; a large one's parts one by one."""
        return self._admission.tickets

    async def predict(
        self,
        task: str | Sequence[str | int],
        inputs: Any,
        *,
        timeout: float | None = None,
        priority: int = 0,
        since: float | None = None,
    ) -> Prediction:
        """Ask one task about R inputs; see ``Engine.predict``.

        Args:
            task: As there.
            inputs: As there.
            timeout: Seconds after which nobody wants the answer.
            priority: 0 goes before 1, 1 before 2, and so on.
            since: When it came, on the clock of ``time.perf_counter``, where that is a while ago.

        Raises:
            RequestError: As there; a ``DeadlineError`` when the time is over.
            OverloadedError: If as much waits as may wait.
            UnavailableError: If the batcher is being closed.
        """
        self._check_open()
        if self._reader is None and timeout is None:
            return await self._ask(self.engine.prepare(task, inputs), priority, since)

        async def work() -> Prediction:
            flow = task if isinstance(task, str) else ""
            return await self._ask(self.engine.prepare(task, await self._read(flow, inputs)), priority, since)

        return await _in_time(work, timeout, since)

    async def predict_many(
        self,
        inputs: Any,
        row: Any,
        task: Any,
        *,
        timeout: float | None = None,
        priority: int = 0,
        since: float | None = None,
    ) -> Prediction:
        """Ask B questions about R inputs; see ``Engine.predict_many``, and ``predict`` for the rest."""
        self._check_open()

        async def work() -> Prediction:
            asked = self.engine.prepare_many(await self._read("", inputs), row, task)
            return await self._ask(asked, priority, since)

        return await _in_time(work, timeout, since)

    def check_room(self, task: str | None = None) -> None:
        """Refuse what could not be taken, before anybody has the trouble of reading it.

        Args:
            task: Whose questions they are; ``None`` where that is not known.

        Raises:
            OverloadedError: If not one more row may wait.
        """
        if self._admission.tickets:
            flow = MANY if task is None else self.engine.bundle.task_index(task)
            self._admission.check(flow, self._retry_seconds)

    async def close(self) -> None:
        """Take no more questions, and return when those that were taken are answered."""
        self._closing = True
        await self._idle.wait()
        if self._running:
            await asyncio.wait(self._running)
        # Nothing is left for them to do: their threads end by themselves, and the loop need not wait.
        self._pool.shutdown(wait=False)
        if self._reader is not None:
            self._reader.close()

    async def _read(self, flow: str, inputs: Any) -> Any:
        """Return inputs with tokens in place of texts."""
        found = None if self._reader is None else texts_of(self.engine.bundle, inputs)
        if self._reader is None or found is None:
            return inputs
        given, name, texts = found
        return {**given, name: await self._reader.read(flow, texts)}

    async def _ask(self, asked: Asked, priority: int, since: float | None) -> Prediction:
        self._check_open()  # again: a text took a while to read
        create = asyncio.get_running_loop().create_future
        arrived = time.perf_counter() if since is None else since
        # Whoever comes meanwhile should not have to wait for all of a large request.
        parts = divide(asked, max(_LEAST, self._pace.limit() // 2))
        tickets = [
            Ticket(each, create(), self._shape(each), priority, arrived)
            for each in ([asked] if parts is None else parts.asked)
        ]
        self._admission.admit(tickets, self._retry_seconds)
        self._idle.clear()
        for ticket in tickets:
            self._queue.push(ticket)
        self._arrived += 1
        self._start_soon()
        try:
            if parts is None:
                return await tickets[0].answer
            return parts.join(await asyncio.gather(*[each.answer for each in tickets]))
        finally:
            for ticket in tickets:
                ticket.answer.cancel()  # of use where another part has failed
                ticket.leave()
                self._admission.release(ticket)
            if not self._admission.tickets:
                self._idle.set()

    def _check_open(self) -> None:
        if self._closing:
            raise UnavailableError("the server is shutting down: ask another one")

    def _retry_seconds(self) -> float:
        return max(1.0, self._pace.seconds(self._admission.rows))

    def _shape(self, asked: Asked) -> Shape:
        return tuple([self._dims(name, tensor.shape[1:]) for name, tensor in asked.inputs.items()])

    def _dims(self, name: str, dims: tuple[int, ...]) -> tuple[int, ...]:
        # Sequences of about the same length are padded to the longest: at most twice as long.
        return (int(dims[0]).bit_length(), *dims[1:]) if name in self._sequences else dims

    def _start_soon(self) -> None:
        if self._starting is None and len(self._running) < self._runs and self._queue:
            self._starting = asyncio.get_running_loop().create_task(self._start())

    async def _start(self) -> None:
        # In a task of its own: whoever is ready in this turn of the loop joins.
        await lull(lambda: self._arrived, self._is_pressing)
        self._starting = None
        while len(self._running) < self._runs and self._queue:
            pressing = self._is_pressing()
            tickets = self._queue.take(self._pace.limit())
            if not tickets:
                return
            run = asyncio.get_running_loop().create_task(self._run(tickets, pressing=pressing))
            self._running.add(run)
            run.add_done_callback(self._finished)

    def _is_pressing(self) -> bool:
        """Return whether somebody waits for a flood alone, which always has more to read or to write."""
        flood = self._telling.flood
        return self._queue.is_flooded or (flood is not None and self._queue.holds_others(flood))

    def _finished(self, run: asyncio.Task[None]) -> None:
        self._running.discard(run)
        self._start_soon()

    async def _run(self, tickets: list[Ticket], *, pressing: bool) -> None:
        loop = asyncio.get_running_loop()
        stop, wanted = RunOptions(), len(tickets)

        def leave() -> None:
            nonlocal wanted
            wanted -= 1
            if not wanted:  # of no use where all have their answers, and no harm
                stop.terminate = True

        for ticket in tickets:
            ticket.leave = leave
        answers: Answers
        try:
            if self._is_short(tickets, most=len(tickets) if pressing else _FEW):
                answers = self._answers(tickets, stop)
            else:
                answers = await loop.run_in_executor(self._pool, self._answers, tickets, stop)
        except Exception as error:
            # Whatever fails beside the engine, nobody is left waiting.
            answers = [_failure(error)] * len(tickets)
        self._telling.tell(tickets, answers)

    def _is_short(self, tickets: Sequence[Ticket], *, most: int) -> bool:
        """Return whether a run, of so many requests at most, is over before a thread would have begun."""
        # The length of sequences tells more than their number.
        if not is_own() or len(tickets) > most or self._sequences:
            return False
        seconds = self._pace.seconds(sum(ticket.rows for ticket in tickets))
        return 0 < seconds < (_ON_ONE_CORE if on_one_core() else _BESIDE)

    def _answers(self, tickets: list[Ticket], stop: RunOptions) -> Answers:
        """Run requests together; where that fails, in halves, so that a bad one fails alone. In a thread."""
        merged = merge([each.asked for each in tickets])
        began = time.perf_counter()
        try:
            scores, probabilities = self.engine.run(merged.asked, stop)
        except Exception as error:
            if len(tickets) == 1 or stop.terminate:
                return [_failure(error)] * len(tickets)
            middle = len(tickets) // 2
            return [*self._answers(tickets[:middle], stop), *self._answers(tickets[middle:], stop)]
        seconds = time.perf_counter() - began
        if len(merged.asked):
            self._pace.learn(len(merged.asked), seconds)
        if self._observer is not None:
            self._observer.batch(
                requests=len(tickets),
                task=merged.asked.task,
                inputs=merged.asked.distinct,
                seconds=seconds,
            )
        try:
            self.engine.check(merged.asked, scores, probabilities)
            sound = True
        except CoterieError:
            sound = False  # somebody's are not; whose they are is found one by one
        answers: Answers = []
        for number, each in enumerate(tickets):
            own = merged.cut(scores, number, words=self._tagging)
            shares = None if probabilities is None else merged.cut(probabilities, number, words=self._tagging)
            timing = Timing(each.arrived, began, seconds, len(merged.asked))
            try:
                if not sound:
                    self.engine.check(each.asked, own, shares)
                answers.append(self.engine.assemble(each.asked, own, shares, timing))
            except Exception as error:
                answers.append(_failure(error))
        return answers


async def _in_time(
    work: Callable[[], Awaitable[Prediction]], seconds: float | None, since: float | None
) -> Prediction:
    """Return what is worked at, where that takes no longer than so many seconds, counted since then."""
    if seconds is None:
        return await work()
    left = seconds if since is None else seconds - (time.perf_counter() - since)
    if left <= 0:
        raise too_late(seconds)
    try:
        async with asyncio.timeout(left):
            return await work()
    except TimeoutError:
        raise too_late(seconds) from None


def too_late(seconds: float) -> DeadlineError:
    """Return the error of a question that was not answered within so many seconds."""
    return DeadlineError(f"no answer within {seconds:g} seconds: give it more time, or ask less at once")


def _failure(error: Exception) -> CoterieError:
    if isinstance(error, CoterieError):
        return error
    failure = CoterieError("a run failed inside the engine")
    failure.__cause__ = error
    return failure
