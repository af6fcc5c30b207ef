"""Who may ask what."""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from coterie.runtime.errors import CoterieError
from coterie.runtime.serving._failures import RefusedError, UnauthenticatedError
from coterie.runtime.serving.access._keys import KeyEntry, digest, read_keys, split
from coterie.runtime.tasks import ROUTER

_LOG = logging.getLogger("coterie.serving")
_LOOK_SECONDS = 1.0
_NOBODYS_HASH = "0" * 64
_REMEMBERED = 10_000


class Caller:
    """Whoever asks, and what they may.

    Args:
        name: Of their key.
        tasks: Patterns of the tasks that they may ask.
        metrics: Whether they may read the metrics.
    """

    def __init__(self, name: str, tasks: Iterable[str] = ("*",), *, metrics: bool = True) -> None:
        self.name: Final = name
        self.metrics: Final = metrics
        self._tasks = tuple(tasks)
        self.may_ask_all: Final = "*" in self._tasks
        self._known: dict[str, bool] = {}

    def may_ask(self, model: str) -> bool:
        """Return whether they may ask a model; the router anybody may, about the tasks that they may ask."""
        if self.may_ask_all or model == ROUTER:
            return True
        known = self._known.get(model)
        if known is None:
            known = any(fnmatchcase(model, pattern) for pattern in self._tasks)
            if len(self._known) < _REMEMBERED:  # a client may make up any number of names
                self._known[model] = known
        return known

    def seen(self, entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return those of some models' descriptions, each with a ``name``, that they may ask."""
        return [entry for entry in entries if self.may_ask(entry["name"])]

    def check(self, model: str) -> None:
        """Check that they may ask a model.

        Raises:
            RefusedError: If not; a model that there is not is refused alike.
        """
        if not self.may_ask(model):
            raise RefusedError(f"this key may not ask {model[:80]!r}: ask whoever runs the server for it")


ANYBODY: Final = Caller("")
"""Who asks a server that has no keys."""


class Access:
    """The keys of a server; a file that changes is read again within a second.

    Args:
        file: The file of keys; without one anybody may ask anything.

    Raises:
        ConfigError: If it cannot be read.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._entries: dict[str, tuple[KeyEntry, Caller]] = {}
        self._stamp: tuple[int, int] | None = None
        self._next_look = 0.0
        if file is not None:
            self._stamp = _stamp(file)
            self._take(read_keys(file))

    @property
    def is_open(self) -> bool:
        """Whether anybody may ask anything."""
        return self._file is None

    def caller(self, authorization: str, api_key: str) -> Caller:
        """Return whose key it is that a request brings.

        Args:
            authorization: Its header ``Authorization``: ``Bearer KEY``; empty, if it has none.
            api_key: Its header ``X-Api-Key``; empty, if it has none.

        Raises:
            UnauthenticatedError: If the server has keys, and this is none of them.
        """
        if self._file is None:
            return ANYBODY
        self._look(self._file)
        scheme, _, token = authorization.partition(" ")
        key = api_key or (token.strip() if scheme.lower() == "bearer" else "")
        if not key:
            raise UnauthenticatedError(
                "this server takes questions with a key only: send it as 'Authorization: Bearer KEY'"
            )
        identifier, secret = split(key)
        entry, caller = self._entries.get(identifier, (None, ANYBODY))
        # As much work for an id that there is not.
        same = hmac.compare_digest(digest(secret), _NOBODYS_HASH if entry is None else entry.sha256)
        if entry is None or not same:
            raise UnauthenticatedError("the key is none of this server's: check it, or ask for another")
        return caller

    def _take(self, entries: Iterable[KeyEntry]) -> None:
        self._entries = {
            entry.id: (entry, Caller(entry.name, entry.tasks, metrics=entry.metrics)) for entry in entries
        }

    def _look(self, file: Path) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        try:
            stamp = _stamp(file)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self._take(read_keys(file))
        except (OSError, CoterieError) as error:
            if self._stamp is not None:
                _LOG.error("the file of keys cannot be read, the keys stay as they were: %s", error)
            self._stamp = None


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino
