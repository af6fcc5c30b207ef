"""The models that all transports share: which version of the bundle answers which question."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeVar

from coterie.runtime.batching import Batcher
from coterie.runtime.bundle import Bundle
from coterie.runtime.engine._prediction import Prediction, Timing
from coterie.runtime.errors import UnknownTaskError
from coterie.runtime.serving._failures import failure_of, not_ready
from coterie.runtime.serving.access._callers import ANYBODY, Caller
from coterie.runtime.serving.models._metadata import VERSION, ModelInfo
from coterie.runtime.serving.models._questions import Answer, Question
from coterie.runtime.serving.models._shadow import Shadow, ShadowObserver
from coterie.runtime.serving.models._sizes import LONGEST_TEXT
from coterie.runtime.serving.models._turns import Turns
from coterie.runtime.serving.models._version import Version
from coterie.runtime.serving.observing._calls import Done, current_call
from coterie.runtime.serving.observing._statistics import Told

T = TypeVar("T")


class Observer(ShadowObserver, Protocol):
    """Is told of every request, and of every comparison with a shadow, for metrics."""

    def observe(self, done: Done) -> None:
        """Take note of one request."""


class Models:
    """The versions of a bundle that are loaded: one that is served, and others that may be asked for.

    All of it belongs to one event loop: between two questions a version is added, served or dropped.

    Args:
        batcher: Where the questions to the first version go.
        max_rows: Most inputs, and most questions, of one request.
        max_text: Most characters of one text.
        number: What clients call the first version.
        observer: Told of every request.
        turns: Whose question a transport reads next.
    """

    def __init__(
        self,
        batcher: Batcher,
        *,
        max_rows: int,
        max_text: int = LONGEST_TEXT,
        number: str = VERSION,
        observer: Observer | None = None,
        turns: Turns | None = None,
    ) -> None:
        self.ready = False
        self.turns = turns or Turns()
        self.failed: dict[str, str] = {}
        """Versions that should be loaded and could not be, and why, in words for a client."""
        self.elsewhere: Callable[[str], Sequence[Told]] = lambda _: ()
        """Gives what the server's other workers counted for the statistics of a version."""
        self._max_rows = max_rows
        self._max_text = max_text
        self._observer = observer
        self._current = Version(batcher, max_rows=max_rows, max_text=max_text, number=number)
        self._loaded = {number: self._current}
        self._canary: Version | None = None
        self._share = 0.0
        self._shadow: Shadow | None = None
        # Which requests a canary is given need not be hard to guess.
        self._random = random.Random()  # noqa: S311

    @property
    def current(self) -> Version:
        """The version that answers whoever names none."""
        return self._current

    @property
    def loaded(self) -> Mapping[str, Version]:
        """The versions that can be asked, by their numbers."""
        return MappingProxyType(self._loaded)

    @property
    def bundle(self) -> Bundle:
        """The bundle that is served."""
        return self._current.bundle

    @property
    def names(self) -> list[str]:
        """The served version's models: every task, and the router."""
        return self._current.names

    @property
    def odd(self) -> frozenset[str]:
        """Models whose names look like more than a name where they are a part of an address."""
        return self._current.odd

    def find(self, number: str = "") -> Version:
        """Return a version; the one that is served, where none is named.

        Raises:
            UnknownTaskError: If it is not loaded.
        """
        version = self._loaded.get(number) if number else self._current
        if version is None:
            raise UnknownTaskError(
                f"version {number[:40]!r} is not loaded: there is {', '.join(map(repr, self._loaded))}"
            )
        return version

    def info(self, model: str, version: str = "", caller: Caller = ANYBODY) -> ModelInfo:
        """Return the metadata of a model that somebody asks for.

        Raises:
            RefusedError: If they may not.
            UnknownTaskError: If there is no such model, or that version is not loaded.
        """
        info = self.find(version).info(model, caller)
        if len(self._loaded) == 1:
            return replace(info, versions=tuple(self._loaded))
        return replace(info, versions=tuple(number for number, each in self._loaded.items() if model in each))

    def check_room(self, model: str, version: str, nbytes: int) -> None:
        """Refuse a question of so many bytes to a known model that could not be taken, before it is read.

        Raises:
            OverloadedError: If as much waits as may wait.
            UnavailableError: If the server is not ready, or is shutting down.
            UnknownTaskError: If that version is not loaded.
        """
        if not self.ready:
            raise not_ready()
        self.turns.check(model, nbytes)
        if version or self._canary is None:  # else it is not known yet who will be asked
            self.find(version).check_room(model)

    def statistics(self, model: str = "", version: str = "") -> list[dict[str, Any]]:
        """Return what the models of the loaded versions were asked, or one model, or one version's.

        In all workers; what another one counted may be a second late.

        Raises:
            UnknownTaskError: If there is no such model, or that version is not loaded.
        """
        if model:
            self.info(model, version)
        chosen = [self.find(version)] if version else list(self._loaded.values())
        if not model:
            return [one for each in chosen for one in each.statistics.all(self.elsewhere(each.number))]
        return [each.statistics.of(model, self.elsewhere(each.number)) for each in chosen if model in each]

    async def answer(self, question: Question, *, transport: str) -> Answer:
        """Answer a question.

        Raises:
            UnknownTaskError: If there is no such model or task, or that version is not loaded.
            InvalidInputError: If an input or output is wrong.
            TooLargeError: If there are too many inputs or questions.
            DeadlineError: If the answer takes longer than the question's timeout.
            OverloadedError: If as much waits as may wait.
            UnavailableError: If the server is not ready, or is shutting down.
        """
        return await self.ask(
            question.model,
            transport,
            lambda version: version.answer(question),
            number=question.version,
            since=question.since,
        )

    async def ask(
        self,
        model: str,
        transport: str,
        work: Callable[[Version], Awaitable[tuple[T, Prediction]]],
        *,
        number: str = "",
        since: float | None = None,
    ) -> T:
        """Let one version answer from beginning to end; count it, and return the answer.

        Args:
            model: Which is asked.
            transport: By which it is asked.
            work: Gives a version's answer, and the prediction behind it.
            number: The version to ask; if empty, the one that is served, or a canary by its share.
            since: When the question came, where it was accepted then and had to wait for its turn.

        Raises:
            UnknownTaskError: If that version is not loaded.
            UnavailableError: If the server is not ready.
        """
        start = time.perf_counter() if since is None else since
        outcome, asked, version, timing = "cancelled", 0, self._current, None
        try:
            version = self._choose(model, number)
            if not self.ready and since is None:
                raise not_ready()
            with version.held():
                answer, prediction = await work(version)
            outcome, asked, timing = "ok", len(prediction), prediction.timing
            version.statistics.answered(model, prediction, start)
        except Exception as error:
            outcome = failure_of(error).outcome
            raise
        finally:
            seconds = time.perf_counter() - start
            self._observe(model, transport, outcome, asked, seconds, version=version, timing=timing)
        if self._shadow is not None and version is self._current and not number:
            self._shadow.mirror(work, prediction)
        return answer

    @contextmanager
    def counting_refusals(self, model: str, transport: str) -> Iterator[None]:
        """Count a request that is refused in here, before any version is asked."""
        try:
            yield
        except Exception as error:
            self._observe(model, transport, failure_of(error).outcome, 0, 0.0)
            raise

    def _observe(
        self,
        model: str,
        transport: str,
        outcome: str,
        questions: int,
        seconds: float,
        *,
        version: Version | None = None,
        timing: Timing | None = None,
    ) -> None:
        version = version or self._current
        if outcome != "ok" and model in version:
            version.statistics.failed(model, seconds)
        name = model if model in version else "unknown"
        done = Done(name, version.number, transport, outcome, questions, seconds, timing)
        call = current_call()
        if call is not None:
            call.done = done
        if self._observer is not None:
            self._observer.observe(done)

    def add(self, batcher: Batcher, number: str) -> None:
        """Let a version be asked by whoever names it."""
        self._loaded[number] = Version(
            batcher, max_rows=self._max_rows, max_text=self._max_text, number=number
        )

    def serve(
        self, number: str, *, trial: str | None = None, share: float = 0.0, shadow: bool = False
    ) -> None:
        """Serve a version, from the next question on.

        Args:
            number: A loaded version.
            trial: One that is tried out beside it.
            share: Of the questions, from 0 to 1, that the version on trial is asked.
            shadow: Whether its answers are only compared, and the served version's given.
        """
        self._current = self._loaded[number]
        tried = None if trial is None else self._loaded[trial]
        self._canary, self._share, self._shadow = (None if shadow else tried), share, None
        if tried is not None and shadow:
            self._shadow = Shadow(tried, share, self._random, self._observer)

    def state(self, number: str) -> Literal["served", "canary", "shadow", "kept"]:
        """Return what is done with a loaded version; one that is kept answers whoever names it."""
        version = self._loaded[number]
        if version is self._current:
            return "served"
        if version is self._canary:
            return "canary"
        return "shadow" if self._shadow is not None and version is self._shadow.version else "kept"

    def remove(self, number: str) -> Version:
        """Let a version be asked no more, and return it: it may still have to answer what it was asked."""
        return self._loaded.pop(number)

    async def close(self) -> None:
        """Take no more questions, and return when those that were taken are answered."""
        self.ready = False
        await self.turns.empty()
        for version in tuple(self._loaded.values()):
            await version.close()

    def _choose(self, model: str, number: str) -> Version:
        if number or self._canary is None or model not in self._canary:
            return self.find(number)
        return self._canary if self._random.random() < self._share else self._current
