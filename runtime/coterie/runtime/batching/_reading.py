"""Texts become tokens in a thread, a few at a time, in turns between tasks.

To read a thousand texts takes longer than to run them. If they were read request by request, whoever asks
about one text would wait for all texts of all requests before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt

from coterie.runtime.errors import UnavailableError
from coterie.runtime.text import Text, TextEncoder

Tokens = npt.NDArray[np.int64]

_CHARACTERS = 16 * 1024
"""Of the texts that are read in one turn: a few milliseconds' work."""
_WORD = 8
"""Characters of a word in a list of words."""
_AHEAD = 2
"""Turns at once: one is read while the loop hears that the one before is done."""


class TextReader:
    """Reads texts; all of it but the reading itself belongs to one event loop.

    Args:
        encoder: Turns texts into tokens.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="coterie-text")
        self._closed = False
        self._free = _AHEAD
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def read(self, flow: str, texts: Sequence[Text]) -> Tokens:
        """Return the token ids of a request's texts, as ``TextEncoder.encode`` does, and raise as it does.

        Args:
            flow: Whose turn it is: the task, or what stands for several.
            texts: R of them.

        Raises:
            UnavailableError: If the reader is closed before they are read.
        """
        read: list[Tokens] = []
        first = 0
        for piece in pieces(texts):
            await self._turn(flow)
            try:
                if self._closed:
                    raise UnavailableError("the server is shutting down: ask another one")
                work = partial(self._encoder.encode, piece, first=first)
                read.append(await asyncio.get_running_loop().run_in_executor(self._pool, work))
            finally:
                self._next()
            first += len(piece)
        return read[0] if len(read) == 1 else self._joined(read)

    def close(self) -> None:
        """Let the thread end; nothing is read any more."""
        self._closed = True
        self._pool.shutdown(wait=False)

    def _joined(self, read: Sequence[Tokens]) -> Tokens:
        count, length = sum(map(len, read)), max(each.shape[1] for each in read)
        joined = np.full((count, length, *read[0].shape[2:]), self._encoder.spec.pad_id, dtype=np.int64)
        first = 0
        for each in read:
            joined[first : first + len(each), : each.shape[1]] = each
            first += len(each)
        return joined

    async def _turn(self, flow: str) -> None:
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(flow, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it was its turn just now: somebody else's, then
                self._next()
            raise

    def _next(self) -> None:
        """Give the turn to the flow that has waited longest since its last one."""
        while self._waiting:
            flow = next(iter(self._waiting))
            line = self._waiting.pop(flow)
            turn = line.popleft()
            if line:
                self._waiting[flow] = line  # behind all others
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


def pieces(texts: Sequence[Text]) -> Iterator[Sequence[Text]]:
    """Yield texts a few at a time, at least one; nothing is cut."""
    first = length = 0
    for number, text in enumerate(texts):
        own = len(text) if isinstance(text, str) else _WORD * len(text)
        if number > first and length + own > _CHARACTERS:
            yield texts[first:number]
            first, length = number, 0
        length += own
    yield texts[first:]
