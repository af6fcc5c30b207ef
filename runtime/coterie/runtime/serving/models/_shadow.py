"""A shadow: a version that is asked what the served one is, and whose answers are only compared."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol

import numpy as np

from coterie.runtime.engine import Prediction
from coterie.runtime.errors import UnavailableError
from coterie.runtime.serving.models._version import Version

Outcome = Literal["same", "scores", "labels", "failed", "skipped"]

TOLERANCE = 1e-4
"""Scores that differ by no more, absolutely or relatively, are the same."""
_MOST = 64
"""Questions that a shadow is asked at once: it must not become a queue of its own."""


class ShadowObserver(Protocol):
    """Is told of every comparison, for metrics."""

    def shadowed(self, *, version: str, outcome: str) -> None:
        """Take note of how a version's answer compares with the one that was given."""


class Shadow:
    """Asks one version again what another has answered.

    Args:
        version: The version on trial.
        share: Of the questions, from 0 to 1, that it is asked.
        chance: Decides which.
        observer: Told of every comparison.
    """

    def __init__(
        self, version: Version, share: float, chance: random.Random, observer: ShadowObserver | None
    ) -> None:
        self.version = version
        self._share = share
        self._chance = chance
        self._observer = observer
        self._asking: set[asyncio.Task[None]] = set()

    def mirror(self, work: Callable[[Version], Awaitable[tuple[Any, Prediction]]], given: Prediction) -> None:
        """Ask the shadow, in the background, what was answered with ``given``."""
        if self._chance.random() >= self._share:
            return
        if len(self._asking) >= _MOST:
            self._tell("skipped")
            return
        task = asyncio.get_running_loop().create_task(self._compare(work, given))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _compare(
        self, work: Callable[[Version], Awaitable[tuple[Any, Prediction]]], given: Prediction
    ) -> None:
        try:
            with self.version.held():
                _, prediction = await work(self.version)
            outcome = compare(given, prediction)
        except UnavailableError:
            outcome = "skipped"
        except Exception:
            # Whatever it is, the client has the answer of the version that is served.
            outcome = "failed"
        self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        if self._observer is not None:
            self._observer.shadowed(version=self.version.number, outcome=outcome)


def compare(given: Prediction, other: Prediction) -> Outcome:
    """Return whether two versions' answers to one question are the same, or what of them differs."""
    if given.label_texts() != other.label_texts() or given.scores.shape != other.scores.shape:
        return "labels"
    close = np.allclose(given.scores, other.scores, rtol=TOLERANCE, atol=TOLERANCE)
    return "same" if close else "scores"
