"""Many questions and answers over one stream, as Triton's ``ModelStreamInfer`` has them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from typing import TypeVar

from coterie.runtime.errors import UnavailableError

Q = TypeVar("Q")
A = TypeVar("A")

AHEAD = 256
"""Questions of one stream that may wait or run; what a client sends beyond them stays unread until then."""


async def in_order(
    questions: AsyncIterable[Q],
    answer: Callable[[Q], Awaitable[A]],
    stopping: asyncio.Event,
    *,
    ahead: int = AHEAD,
) -> AsyncGenerator[A, None]:
    """Yield the answer to each question, in the order of the questions, which are answered side by side.

    Args:
        questions: What the client sends, as it comes.
        answer: Answers one question; an error that it raises ends the stream.
        stopping: Once it is set no more questions are read; those that were are answered.
        ahead: Questions that may be at work at once.

    Raises:
        UnavailableError: After the last answer, if the stream ends because of ``stopping``.
    """
    answers: asyncio.Queue[asyncio.Future[A] | None] = asyncio.Queue()
    at_work: set[asyncio.Future[A]] = set()
    room = asyncio.Semaphore(ahead)

    async def read() -> None:
        try:
            async for question in questions:
                await room.acquire()
                work = asyncio.ensure_future(answer(question))
                at_work.add(work)
                answers.put_nowait(work)
        finally:
            answers.put_nowait(None)

    async def stop() -> None:
        await stopping.wait()
        reader.cancel()

    reader = asyncio.ensure_future(read())
    stopper = asyncio.ensure_future(stop())
    try:
        while (first := await answers.get()) is not None:
            yield await first
            at_work.discard(first)
            room.release()
        if reader.cancelled():
            raise UnavailableError("the server is shutting down: ask another one")
        await reader  # an error of the client's side ends the stream too
    finally:
        reader.cancel()
        stopper.cancel()
        for work in at_work:
            work.cancel()
