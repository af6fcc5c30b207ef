"""Texts are read a few at a time, so that nobody waits for all texts of somebody else."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from coterie.runtime import load
from coterie.runtime.batching._reading import TextReader, pieces
from coterie.runtime.errors import InvalidInputError, UnavailableError
from coterie.runtime.text import TextEncoder

from ..handmade import HandMade


class Slow:
    """An encoder that waits for each piece until it is let go on."""

    def __init__(self, encoder: TextEncoder) -> None:
        self.spec, self._encoder = encoder.spec, encoder
        self.read: list[str] = []
        self.go = threading.Semaphore(0)

    def encode(self, texts: Sequence[Any], *, first: int = 0) -> Any:
        assert self.go.acquire(timeout=10)
        self.read.append(texts[0].split()[0])
        return self._encoder.encode(texts, first=first)


@pytest.fixture
def encoder(texts: HandMade) -> TextEncoder:
    found = load(texts.path, threads=1).bundle.text
    assert found is not None
    return found


def test_pieces_hold_all_texts_in_their_order_and_few_characters() -> None:
    given = ["a" * 9000, "b" * 9000, "c", "d" * 50_000, "e"]
    assert [len(piece) for piece in pieces(given)] == [1, 2, 1, 1]
    assert [text for piece in pieces(given) for text in piece] == given
    assert [list(piece) for piece in pieces([])] == [[]]
    assert [len(piece) for piece in pieces([["word"] * 1500, ["word"] * 1500])] == [1, 1]


def test_texts_in_pieces_are_read_as_in_one(texts: HandMade, encoder: TextEncoder) -> None:
    said = [text + " " * (n * 50 % 7000) for n, text in enumerate(texts.inputs(200))]
    assert len(list(pieces(said))) > 5
    read = asyncio.run(TextReader(encoder).read("topic", said))
    np.testing.assert_array_equal(read, encoder.encode(said))


def test_an_empty_text_is_told_by_its_number(texts: HandMade, encoder: TextEncoder) -> None:
    said = [text + " " * 8000 for text in texts.inputs(9)]
    said[7] = " "
    with pytest.raises(InvalidInputError, match="text 7 is empty"):
        asyncio.run(TextReader(encoder).read("topic", said))


def test_tasks_take_turns(texts: HandMade, encoder: TextEncoder) -> None:
    word = texts.inputs(1)[0].split()[0]

    async def run() -> list[str]:
        slow = Slow(encoder)
        reader = TextReader(slow)  # type: ignore[arg-type]
        flood = ["first " + word + " " * 17_000] * 10
        work = [asyncio.ensure_future(reader.read("topic", flood)) for _ in range(3)]
        await asyncio.sleep(0.01)
        work.append(asyncio.ensure_future(reader.read("mood", ["second " + word])))
        await asyncio.sleep(0.01)
        for _ in range(31):
            slow.go.release()
        await asyncio.gather(*work)
        reader.close()
        return slow.read

    read = asyncio.run(run())
    assert read.count("first") == 30
    assert read.index("second") <= 3


def test_whoever_goes_away_passes_the_turn_on(texts: HandMade, encoder: TextEncoder) -> None:
    async def run() -> int:
        slow = Slow(encoder)
        reader = TextReader(slow)  # type: ignore[arg-type]
        work = [asyncio.ensure_future(reader.read("topic", texts.inputs(1))) for _ in range(6)]
        await asyncio.sleep(0.01)
        for each in work[:5]:
            each.cancel()
        slow.go.release(6)
        return len(await asyncio.wait_for(work[5], 5))

    assert asyncio.run(run()) == 1


def test_a_reader_that_is_closed_in_the_middle_says_so(texts: HandMade, encoder: TextEncoder) -> None:
    async def run() -> None:
        slow = Slow(encoder)
        reader = TextReader(slow)  # type: ignore[arg-type]
        said = [text + " " * 17_000 for text in texts.inputs(4)]
        work = asyncio.ensure_future(reader.read("topic", said))
        await asyncio.sleep(0.01)
        reader.close()
        slow.go.release(4)
        with pytest.raises(UnavailableError, match="shutting down"):
            await work

    asyncio.run(run())
