"""Following a store: the version it serves is loaded beside the one before, and takes its place."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from coterie.runtime._process import give_back_memory
from coterie.runtime.batching import Batcher
from coterie.runtime.engine import Engine
from coterie.runtime.errors import BundleError, CoterieError
from coterie.runtime.serving.models._models import Models
from coterie.runtime.serving.models._version import Version
from coterie.runtime.store import Pointer, Store

_LOG = logging.getLogger("coterie.serving")

Load = Callable[[Path], Engine]
"""Reads, verifies and warms a bundle; raises a ``CoterieError`` where that fails."""


class SwapObserver(Protocol):
    """Is told of every version that was loaded, for metrics."""

    def swapped(self, *, outcome: str) -> None:
        """Take note of a version that was loaded, ``ok``, or could not be, ``failed``."""

    def unloaded(self, version: str) -> None:
        """Take note of a version that is asked no more."""


def load_served(store: Store, load: Load) -> tuple[int, Engine, dict[str, str]]:
    """Load the version that a store serves; where that fails the one before, and so on.

    Returns:
        The version's number, its engine, and which versions could not be loaded, and why.

    Raises:
        BundleError: If none can be loaded.
    """
    failed: dict[str, str] = {}
    for number in reversed(store.pointer().history):
        try:
            engine = load(store.folder(number))
        except Exception as error:
            failed[str(number)] = _why(store, number, error)
            continue
        store.mark(number, None)
        return number, engine, failed
    reasons = "\n".join(f"  - version {number}: {why}" for number, why in failed.items())
    raise BundleError(f"no version of the store can be served:\n{reasons}")


class Follower:
    """Keeps a server's models as a store says, while it answers.

    A version is loaded and warmed in a thread. Until it is ready, and for good if it cannot be loaded,
    whatever is served stays. A version that was replaced stays loaded while it is one of the last ``keep``;
    when it is not, it answers what it was asked, and is unloaded.

    Args:
        store: The store.
        models: The models; the version they begin with is the store's.
        load: Gives a version's engine.
        batcher: Gives the batcher of an engine, by the number of its version.
        keep: How many versions that were replaced stay loaded.
        seconds: How often the store is looked at.
        observer: Told of every version that was loaded.
    """

    def __init__(
        self,
        store: Store,
        models: Models,
        *,
        load: Load,
        batcher: Callable[[Engine, str], Batcher],
        keep: int,
        seconds: float,
        observer: SwapObserver | None = None,
    ) -> None:
        self._store = store
        self._models = models
        self._load = load
        self._batcher = batcher
        self._keep = keep
        self._seconds = seconds
        self._observer = observer
        self._seen: Pointer | None = None
        self._complaint = ""
        self._replaced: list[str] = []
        self._unloading: set[asyncio.Task[None]] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look at the store now and then, until ``stop``."""
        self._task = asyncio.get_running_loop().create_task(self._follow())

    async def stop(self) -> None:
        """Look no more; what is being unloaded is unloaded first."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._unloading:
            await asyncio.wait(self._unloading)

    async def look(self) -> None:
        """Look at the store once, and do what it says."""
        try:
            pointer = await asyncio.to_thread(self._store.pointer)
        except (CoterieError, OSError) as error:
            self._complain(str(error))
            return
        self._complaint = ""
        if pointer == self._seen:
            return
        first, self._seen = self._seen is None, pointer
        trial = pointer.trial
        # What could not be loaded when the server was started is tried again when the store changes.
        again = {} if not first else dict(self._models.failed)
        self._models.failed = again
        if not await self._loaded(pointer.current):
            self._models.serve(self._models.current.number)  # and nothing on trial: that is over
            self._unload({self._models.current.number})
            return
        tried = None if trial is None or not await self._loaded(trial.version) else trial
        before = self._models.current.number
        if tried is None:
            self._models.serve(str(pointer.current))
        else:
            self._models.serve(
                str(pointer.current), trial=str(tried.version), share=tried.share, shadow=tried.shadow
            )
        if before != str(pointer.current):
            self._replaced = [each for each in self._replaced if each != str(pointer.current)] + [before]
            # A warning: under BentoML anything less is not told, and from now on the numbers are others.
            _LOG.warning("version %s is served, in place of version %s", pointer.current, before)
        self._unload({str(pointer.current)} | ({str(tried.version)} if tried else set()))

    async def _follow(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                # Whatever it is, what is served goes on being served.
                _LOG.exception("the store could not be followed; it is looked at again")
            await asyncio.sleep(self._seconds)

    async def _loaded(self, version: int) -> bool:
        """Load a version, unless it is or has been tried in vain; return whether it is loaded."""
        number = str(version)
        if number in self._models.loaded:
            return True
        if number in self._models.failed:
            return False
        try:
            engine = await asyncio.to_thread(lambda: self._load(self._store.folder(version)))
        except Exception as error:
            why = await asyncio.to_thread(_why, self._store, version, error)
            self._models.failed = {**self._models.failed, number: why}
            self._tell("failed")
            return False
        await asyncio.to_thread(self._store.mark, version, None)
        self._models.add(self._batcher(engine, number), number)
        self._tell("ok")
        return True

    def _unload(self, wanted: set[str]) -> None:
        self._replaced = self._replaced[-self._keep :] if self._keep else []
        for number in [each for each in self._models.loaded if each not in {*wanted, *self._replaced}]:
            task = asyncio.get_running_loop().create_task(self._close(self._models.remove(number)))
            self._unloading.add(task)
            task.add_done_callback(self._unloading.discard)

    async def _close(self, version: Version) -> None:
        await version.close()
        number = version.number
        del version
        await asyncio.to_thread(give_back_memory)
        if self._observer is not None and number not in self._models.loaded:
            self._observer.unloaded(number)

    def _tell(self, outcome: str) -> None:
        if self._observer is not None:
            self._observer.swapped(outcome=outcome)

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            self._complaint = text
            _LOG.error("the store cannot be read, what is served stays: %s", text)


def _why(store: Store, number: int, error: Exception) -> str:
    """Log why a version cannot be loaded, note it in the store, and return it in words that hold no path."""
    told = isinstance(error, CoterieError) and error.__cause__ is None
    _LOG.error(
        "version %s cannot be loaded, what is served stays: %s",
        number,
        error,
        exc_info=None if told else error,
    )
    why = "it could not be loaded; the server's log says why"
    if isinstance(error, CoterieError):
        why = str(error).replace(f"{store.path}/", "")
    store.mark(number, why)
    return why
