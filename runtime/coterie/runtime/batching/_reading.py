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
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from coterie.runtime.errors import UnavailableError
from coterie.runtime.text import Text, TextEncoder

Tokens = npt.NDArray[np.int64]

_CHARACTERS = 16 * 1024
"""Of the texts that are read in one turn: a few milliseconds' work."""
_WORD = 8
"""Characters of a word in a list of words."""
_AHEAD = 2 * _CHARACTERS
"""Of texts that the thread is given at once: it reads some while the loop hears that others are done."""


class _Turn(NamedTuple):
    """Somebody's piece that waits to be read, and the room that it wants."""

    begun: asyncio.Future[None]
    room: int


class TextReader:
    """Reads texts; all of it but the reading itself belongs to one event loop.

    Args:
        encoder: Turns texts into tokens.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="coterie-text")
        self._closed = False
        self._room = _AHEAD
        self._waiting: dict[str, deque[_Turn]] = {}

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
            # A text that is longer than a piece has the room of one.
            room = min(_CHARACTERS, sum(map(_length, piece)))
            await self._turn(flow, room)
            try:
                if self._closed:
                    raise UnavailableError("the server is shutting down: ask another one")
                work = partial(self._encoder.encode, piece, first=first)
                read.append(await asyncio.get_running_loop().run_in_executor(self._pool, work))
            finally:
                self._leave(room)
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

    async def _turn(self, flow: str, room: int) -> None:
        if not self._waiting and self._room >= room:
            self._room -= room
            return
        turn = _Turn(asyncio.get_running_loop().create_future(), room)
        self._waiting.setdefault(flow, deque()).append(turn)
        try:
            await turn.begun
        except asyncio.CancelledError:
            if not turn.begun.cancelled():  # it was its turn just now: somebody else's, then
                self._leave(room)
            raise

    def _leave(self, room: int) -> None:
        """Give up room, and let those begin that have waited longest since their flow's last turn."""
        self._room += room
        while self._waiting:
            flow = next(iter(self._waiting))
            turn = self._waiting[flow][0]
            if turn.begun.done():
                wanted = 0  # whoever waited has gone
            elif turn.room > self._room:
                return
            else:
                wanted = turn.room
                turn.begun.set_result(None)
            self._room -= wanted
            line = self._waiting.pop(flow)
            line.popleft()
            if line:
                self._waiting[flow] = line  # behind all others


def pieces(texts: Sequence[Text]) -> Iterator[Sequence[Text]]:
    """Yield texts a few at a time, at least one; nothing is cut."""
    first = length = 0
    for number, text in enumerate(texts):
        own = _length(text)
        if number > first and length + own > _CHARACTERS:
            yield texts[first:number]
            first, length = number, 0
        length += own
    yield texts[first:]


def _length(text: Text) -> int:
    """Return about how many characters a text has."""
    return len(text) if isinstance(text, str) else _WORD * len(text)
